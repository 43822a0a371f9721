"""Vocal lines: blue thirds, harmonies in thirds and sixths, sustained chords; all notes in beats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stonecli.key import Key
from stonecli_train.corpus.melodies import ChordLookup
from stonecli_train.corpus.score import SCALES, Chord, Note

_MIN_BLUE_BEATS = 0.12  # minimum duration of a blue third before it rises


def with_blue_thirds(rng: np.random.Generator, notes: Sequence[Note], key: Key, share: float) -> list[Note]:
    """The notes, in a major key, with a ``share`` of the thirds sung flat or approached from the minor third.

    The chords stay major, so the label stays major as well.
    """
    third = (key.tonic + 4) % 12
    out = []
    for note in notes:
        if note.pitch % 12 != third or rng.random() >= share:
            out.append(note)
            continue
        flat = replace(note, pitch=note.pitch - 1)
        if note.duration < 0.4 or rng.random() < 0.4:
            out.append(flat)
        else:
            length = min(0.5 * note.duration, _MIN_BLUE_BEATS + rng.uniform(0.0, 0.3))
            out.append(replace(flat, duration=length))
            out.append(replace(note, start=note.start + length, duration=note.duration - length))
    return out


def harmony(notes: Sequence[Note], key: Key, chords: ChordLookup, above: bool) -> list[Note]:
    """A second voice in thirds and sixths above or below the notes; in the scale, or in the chord on long notes."""
    scale = {(key.tonic + degree) % 12 for degree in SCALES[key.mode]}
    sign = 1 if above else -1
    out = []
    for note in notes:
        chord = chords.at(note.start)
        chordal = set(chord.pitch_classes) if chord is not None and note.duration >= 0.75 else set()
        steps = [sign * step for step in (3, 4, 5, 8, 9)]
        inside = [step for step in steps if (note.pitch + step) % 12 in chordal]
        thirds = [step for step in steps if abs(step) != 5 and (note.pitch + step) % 12 in scale]
        chosen = (inside or thirds or steps)[0]
        out.append(replace(note, pitch=note.pitch + chosen, velocity=max(1, note.velocity - 12)))
    return out


def held_chords(chords: Sequence[Chord], lowest: int, voices: int = 3) -> list[list[Note]]:
    """Lines of sustained chord tones; each line moves to the nearest chord tone that no other line has."""
    lines: list[list[Note]] = [[] for _ in range(voices)]
    centers = [lowest + 4 * voice for voice in range(voices)]
    for chord in chords:
        left = list(chord.pitch_classes) * voices
        for voice in range(voices):
            pool = [pitch for pitch in range(lowest - 3, lowest + 16) if pitch % 12 in left]
            pitch = min(pool, key=lambda value: abs(value - centers[voice]))
            left.remove(pitch % 12)
            if len(set(left)) > 1:
                left = [tone for tone in left if tone != pitch % 12]
            centers[voice] = pitch
            lines[voice].append(Note(chord.start, chord.duration, pitch, velocity=80))
    return lines
