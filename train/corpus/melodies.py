"""Draws melodies over chords, riffs and hooks: notes in beats, from scales of the key."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np

from stonecli.key import Key, Mode
from stonecli_train.corpus.score import SCALES, Chord, Note

_SCALES: dict[Mode, tuple[tuple[int, ...], ...]] = {
    "major": (
        SCALES["major"], SCALES["major"], (0, 2, 4, 7, 9), (0, 2, 4, 7, 9), (0, 2, 4, 5, 7, 9, 10), (0, 3, 4, 5, 7, 10),
        (0, 2, 3, 4, 7, 9),
    ),
    "minor": (
        SCALES["minor"], SCALES["minor"], (0, 3, 5, 7, 10), (0, 3, 5, 7, 10), (0, 2, 3, 5, 7, 8, 11),
        (0, 2, 3, 5, 7, 9, 10), (0, 3, 5, 6, 7, 10),
    ),
}  # fmt: skip
_BLUE: tuple[tuple[int, ...], ...] = ((0, 3, 5, 7, 10), (0, 2, 3, 4, 5, 7, 9, 10))  # sung over major chords
BLUE_LOOPS = (
    "rock",
    "blues",
    "groove",
    "pop",
    "jazz",
    "beds",
)  # loops of the styles whose melodies may have blue notes
_CLASSICAL: dict[Mode, tuple[int, ...]] = {"major": SCALES["major"], "minor": (0, 2, 3, 5, 7, 8, 11)}
_RIFFS: dict[Mode, tuple[tuple[int, ...], ...]] = {
    "major": ((0, 4, 7, 9, 10), (0, 3, 4, 5, 7, 10), (0, 2, 4, 7, 9), (0, 4, 5, 7, 10), (0, 4, 7)),
    "minor": ((0, 3, 5, 6, 7, 10), (0, 3, 5, 7, 10), (0, 1, 3, 5, 7, 8, 10), SCALES["minor"], (0, 2, 3, 5, 7, 9, 10),
              (0, 3, 7, 8), (0, 1, 3, 7), (0, 3, 5)),
}  # fmt: skip


class ChordLookup:
    """Finds the chord at a beat."""

    def __init__(self, chords: tuple[Chord, ...]) -> None:
        self._chords = chords
        self._starts = [chord.start for chord in chords]

    def at(self, beat: float) -> Chord | None:
        """The chord that sounds at ``beat``; None if there is none."""
        index = bisect_right(self._starts, beat + 1e-6) - 1
        chord = self._chords[index] if index >= 0 else None
        return chord if chord is not None and beat < chord.end - 1e-6 else None


def draw_melody(rng: np.random.Generator, key: Key, chords: ChordLookup, beats: float, loops: str = "") -> list[Note]:
    """A random melody of ``beats`` beats: variations of a motif of steps and rests, with many chord tones on the beats.

    ``loops`` is the attribute of the style. Classical melodies stay in the scale; those in rock and related styles may
    use the minor third in a major key.
    """
    scales = _SCALES[key.mode] + (_BLUE if key.mode == "major" and loops in BLUE_LOOPS else ())
    degrees = _CLASSICAL[key.mode] if loops == "classical" else scales[int(rng.integers(len(scales)))]
    scale = [(key.tonic + degree) % 12 for degree in degrees]
    grid = float(rng.choice([0.25, 0.5, 0.5, 0.5, 1.0]))
    density = rng.uniform(0.45, 0.95)
    home = int(rng.integers(60, 78))
    motif = [
        (
            int(rng.choice([1, 1, 2, 2, 3, 4])) * grid,
            int(rng.choice([-2, -1, -1, 0, 1, 1, 2, 3])),
            rng.random() < density,
        )
        for _ in range(int(rng.choice([3, 5, 6, 8])))
    ]
    on_chord = rng.uniform(0.5, 0.9)
    pitch = _nearest(home, [key.tonic, (key.tonic + 7) % 12])
    notes: list[Note] = []
    now, index, phrase = 0.0, 0, float(rng.choice([8, 16]))
    while now < beats:
        length, step, sounds = motif[index % len(motif)]
        index += 1
        if rng.random() < 0.2:
            step = int(rng.choice([-2, -1, 1, 2]))
            sounds = rng.random() < density
        if sounds:
            pitch += step - 4 * (pitch > home + 9) + 4 * (pitch < home - 9)
            chord = chords.at(now)
            closes = (now + length) % phrase < length and rng.random() < 0.5  # the end of a phrase
            third = 4 if key.mode == "major" else 3
            if closes and chord is not None and key.tonic in chord.pitch_classes:
                allowed = [key.tonic, key.tonic, (key.tonic + third) % 12]
            elif chord is not None and now % 1 < 1e-6 and rng.random() < on_chord:
                allowed = list(chord.pitch_classes)
            else:
                allowed = scale
            pitch = _nearest(pitch, allowed)
            notes.append(Note(now, length * float(rng.choice([1.0, 1.0, 0.9, 0.6])), pitch))
        now += length
    return notes


def draw_riff(rng: np.random.Generator, key: Key, chords: ChordLookup, beats: float, lowest: int) -> list[Note]:
    """A random riff of 2 to 8 beats, repeated: mostly the tonic, with few other pitches, always including the third.

    Some riffs are transposed with the chord roots.
    """
    pool = _RIFFS[key.mode][int(rng.integers(len(_RIFFS[key.mode])))]
    grid = float(rng.choice([0.25, 0.5, 0.5]))
    length = float(rng.choice([2, 4, 4, 8]))
    third = 4 if key.mode == "major" else 3
    shape: list[tuple[float, float, int]] = []
    now = 0.0
    while now < length - 1e-6:
        step = min(grid * int(rng.choice([1, 1, 1, 2, 3])), length - now)
        degree = 0 if now == 0 or rng.random() < 0.35 else int(rng.choice(pool)) - 12 * int(rng.random() < 0.25)
        if now == 0 or rng.random() < 0.88:
            shape.append((now, step, degree))
        now += step
    if not any(degree % 12 == third for _, _, degree in shape) and len(shape) > 1:
        start, step, _ = shape[-1]
        shape[-1] = (start, step, third)
    follows = rng.random() < 0.4
    base = lowest + (key.tonic - lowest) % 12
    notes = []
    for bar in range(int(beats / length) + 1):
        for start, step, degree in shape:
            beat = bar * length + start
            chord = chords.at(beat) if follows else None
            shift = (chord.root - key.tonic) % 12 if chord else 0
            if beat < beats:
                notes.append(Note(beat, step * 0.92, base + degree + shift - 12 * (shift > 6)))
    return notes


def draw_hook(rng: np.random.Generator, key: Key, chords: ChordLookup, beats: float) -> list[Note]:
    """A random hook as in the sampled loop of a rap track: 4 or 8 beats of a broken chord or scale, repeated."""
    length = float(rng.choice([4, 8, 8]))
    home = int(rng.integers(55, 76))
    scale = [(key.tonic + degree) % 12 for degree in _SCALES[key.mode][int(rng.integers(4))]]
    grid = float(rng.choice([0.5, 0.5, 1.0]))
    rhythm = [index * grid for index in range(int(length / grid)) if index == 0 or rng.random() < 0.6]
    walk, pitch = [], home
    for start in rhythm:
        pitch = _nearest(pitch + int(rng.choice([-3, -2, -1, 1, 2, 3])), scale)
        if abs(pitch - home) > 10:
            pitch = home
        walk.append((start, pitch))
    on_chord = rng.uniform(0.4, 0.9)
    uses_chord = [rng.random() < on_chord for _ in walk]
    notes = []
    for bar in range(int(beats / length) + 1):
        for (start, pitch), chordal in zip(walk, uses_chord, strict=True):
            beat = bar * length + start
            chord = chords.at(beat)
            tone = _nearest(pitch, list(chord.pitch_classes)) if chordal and chord else _nearest(pitch, scale)
            notes.append(Note(beat, grid * 1.5, tone))
    return [note for note in notes if note.start < beats]


def _nearest(pitch: int, allowed: list[int]) -> int:
    """The pitch nearest to ``pitch`` whose pitch class is in ``allowed``."""
    return min(range(pitch - 6, pitch + 6), key=lambda value: (value % 12 not in allowed, abs(value - pitch)))
