"""Draws drum parts: General MIDI percussion notes in beats, from the patterns of ``styles.DRUMS``."""

from __future__ import annotations

import numpy as np

from stonecli_train.corpus.score import Note
from stonecli_train.corpus.styles import DRUMS

KICKS, SNARES, HATS = (35, 36), (38, 39, 40), (42, 42, 44, 46, 51, 70)
CLAP, TAMBOURINE, SHAKER, COWBELL = 39, 54, 70, 56
TOMS = (41, 43, 45, 47, 38)
CRASH = 49


def draw_drums(
    rng: np.random.Generator, pattern: str, beats: float, beats_per_bar: int, bar_start: float
) -> list[Note]:
    """The notes of a drum pattern over ``beats`` beats, with random fills, small changes and crash cymbals.

    Args:
        rng: random generator of the excerpt.
        pattern: key of ``styles.DRUMS``; in bars of three beats, the waltz is used instead.
        beats: length.
        beats_per_bar: 3 or 4.
        bar_start: beat at which a bar starts.
    """
    rows = DRUMS["waltz"] if beats_per_bar == 3 else DRUMS[pattern]
    sounds = tuple(int(rng.choice(pool)) for pool in (KICKS, SNARES, HATS))
    if pattern in ("brushes", "swing"):
        sounds = (sounds[0], 38, 51)
    step = beats_per_bar / len(rows[0])
    changes = rng.uniform(0.0, 0.06)
    notes = []
    bar, start = 0, bar_start - beats_per_bar if bar_start > 0 else 0.0
    while start < beats:
        fills = bar % 4 == 3 and rng.random() < 0.45
        for row, sound, loud in zip(rows, sounds, (108, 100, 74), strict=True):
            for index, mark in enumerate(row):
                if (mark == ".") == (rng.random() >= changes):
                    continue
                notes.append(
                    Note(
                        start + index * step, 0.25, sound, velocity=loud - 30 * (mark == "o") + int(rng.integers(-6, 7))
                    )
                )
        if fills:
            notes += [
                Note(start + beats_per_bar - 1 + index / 4, 0.25, int(rng.choice(TOMS)), velocity=96)
                for index in range(4)
            ]
        if bar % 8 == 0 and rng.random() < 0.4:
            notes.append(Note(start, 1.0, CRASH, velocity=95))
        bar, start = bar + 1, start + beats_per_bar
    return [note for note in notes if 0 <= note.start < beats]


def draw_percussion(rng: np.random.Generator, beats: float, beats_per_bar: int, bar_start: float) -> list[Note]:
    """Hand percussion (tambourine, claps, shaker or cowbell), the same in every bar; notes in beats."""
    sound = int(rng.choice([TAMBOURINE, TAMBOURINE, CLAP, CLAP, SHAKER, COWBELL]))
    step = float(rng.choice([0.25, 0.5, 1.0])) if sound in (TAMBOURINE, SHAKER) else 1.0
    backbeat = step == 1.0 and sound != COWBELL
    onsets = [index * step for index in range(int(beats_per_bar / step)) if not backbeat or index % 2]
    notes = []
    start = bar_start - beats_per_bar if bar_start > 0 else 0.0
    while start < beats:
        for beat in onsets:
            accent = 14 if beat % 2 == 1 else 0
            notes.append(Note(start + beat, 0.2, sound, velocity=72 + accent + int(rng.integers(-6, 7))))
        start += beats_per_bar
    return [note for note in notes if 0 <= note.start < beats]
