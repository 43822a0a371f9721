"""Data that the layers of an arrangement share: the passage, its chords and bars, and the random generator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from stonecli_train.corpus.melodies import ChordLookup
from stonecli_train.corpus.score import Chord, Note, Passage
from stonecli_train.corpus.styles import Style


@dataclass(frozen=True)
class Scene:
    """Data that the layers of one excerpt share.

    Attributes:
        rng: random generator of the excerpt.
        passage: chords, melody and key.
        style: style of the arrangement.
        chords: lookup of the passage's chords.
    """

    rng: np.random.Generator
    passage: Passage
    style: Style
    chords: ChordLookup

    @property
    def beats(self) -> float:
        """Length of the excerpt in beats."""
        return self.passage.length

    def choice(self, values: Sequence[float]) -> float:
        """A random element of ``values``."""
        return float(values[int(self.rng.integers(len(values)))])

    def hits(self, pattern: Sequence[float]) -> Iterator[tuple[float, Chord]]:
        """Each beat of a one-bar ``pattern``, in every bar, at which a chord sounds, with the chord."""
        bar = float(self.passage.beats_per_bar)
        start = self.passage.bar_start - bar if self.passage.bar_start > 0 else 0.0
        while start < self.beats:
            for index in pattern:
                beat = start + index
                chord = self.chords.at(beat) if index < bar and 0 <= beat < self.beats else None
                if chord is not None:
                    yield beat, chord
            start += bar


Layer = Callable[[Scene], list[Note]]


def voiced(chord: Chord, lowest: int) -> list[int]:
    """The pitches of ``chord`` in close position above ``lowest``."""
    return sorted({lowest + (value - lowest) % 12 for value in chord.pitch_classes})


def near(pitch_class: int, lowest: int) -> int:
    """The lowest pitch of a pitch class that is at least ``lowest``."""
    return lowest + (pitch_class - lowest) % 12
