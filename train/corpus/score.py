"""The common representation of scores: a passage with its keys, chords, melody and notes, in beats."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from stonecli.errors import StoneError
from stonecli.key import Key, Mode

MAX_SCORE_BYTES = 64 << 20  # maximum size of a file in a zip; the largest score of the corpora has 2 MB

SCALES: dict[Mode, tuple[int, ...]] = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
"""Semitones above the tonic: major and natural minor."""

# Pitch classes that may occur in a key, including the flat seventh of mixolydian and rock, and the raised sixth and
# seventh of dorian, melodic and harmonic minor.
_WIDE_SCALES: dict[Mode, tuple[int, ...]] = {
    "major": (0, 2, 4, 5, 7, 9, 10, 11),
    "minor": (0, 2, 3, 5, 7, 8, 9, 10, 11),
}

# Profiles of Temperley (*Music and Probability*, 2007), from the Essen folk songs.
_PROFILES: dict[Mode, tuple[float, ...]] = {
    "major": (5.0, 2.0, 3.5, 2.0, 4.5, 4.0, 2.0, 4.5, 2.0, 3.5, 1.5, 4.0),
    "minor": (5.0, 2.0, 3.5, 4.5, 2.0, 4.0, 2.0, 4.5, 3.5, 2.0, 1.5, 4.0),
}

Skipped: TypeAlias = Counter[str]
"""Number of pieces that a reader has skipped, by reason."""


@dataclass(frozen=True, slots=True)
class Chord:
    """A chord with a start and a duration.

    Attributes:
        start, duration: in beats of the passage.
        root: pitch class.
        intervals: semitones above the root, starting with 0, in chord order (third, fifth, seventh ...).
        bass: pitch class of the lowest note.
    """

    start: float
    duration: float
    root: int
    intervals: tuple[int, ...]
    bass: int

    @property
    def end(self) -> float:
        """End in beats of the passage."""
        return self.start + self.duration

    @property
    def pitch_classes(self) -> tuple[int, ...]:
        """Pitch classes of the chord, starting with the root."""
        return tuple((self.root + interval) % 12 for interval in self.intervals)


@dataclass(frozen=True, slots=True)
class Note:
    """A note.

    Attributes:
        start, duration: in beats of the passage.
        pitch: MIDI number.
        voice: index of its part in the score.
        velocity: 1..127.
    """

    start: float
    duration: float
    pitch: int
    voice: int = 0
    velocity: int = 90

    @property
    def end(self) -> float:
        """End in beats of the passage."""
        return self.start + self.duration


_Event = TypeVar("_Event", Chord, Note)


@dataclass(frozen=True)
class Passage:
    """A passage of music with its keys.

    Attributes:
        keys: (first beat, key), ascending; the first starts at 0.
        length: length in beats.
        source: name of the corpus.
        origin: file or title in the corpus.
        chords, melody, notes: events, ascending in time; ``notes`` is a complete score, ``melody`` one line over the
            chords.
        beats_per_bar: length of a bar in quarter notes.
        bar_start: beat at which a bar starts.
    """

    keys: tuple[tuple[float, Key], ...]
    length: float
    source: str
    origin: str
    chords: tuple[Chord, ...] = ()
    melody: tuple[Note, ...] = ()
    notes: tuple[Note, ...] = ()
    beats_per_bar: int = 4
    bar_start: float = 0.0

    @property
    def key(self) -> Key:
        """The key with the longest total duration."""
        return self.main_key()[0]

    def main_key(self) -> tuple[Key, float]:
        """The key with the longest total duration, and its share of the passage, 0..1."""
        shares: dict[Key, float] = {}
        ends = [start for start, _ in self.keys[1:]] + [self.length]
        for (start, key), end in zip(self.keys, ends, strict=True):
            shares[key] = shares.get(key, 0.0) + max(0.0, min(end, self.length) - start)
        key = max(shares, key=lambda key: shares[key])
        return key, shares[key] / max(self.length, 1e-9)

    def transposed(self, semitones: int) -> Passage:
        """The passage transposed up by ``semitones``."""
        return replace(
            self,
            keys=tuple((start, key.transposed(semitones)) for start, key in self.keys),
            chords=tuple(
                replace(chord, root=(chord.root + semitones) % 12, bass=(chord.bass + semitones) % 12)
                for chord in self.chords
            ),
            melody=tuple(replace(note, pitch=note.pitch + semitones) for note in self.melody),
            notes=tuple(replace(note, pitch=note.pitch + semitones) for note in self.notes),
        )

    def excerpt(self, start: float, length: float) -> Passage:
        """``length`` beats from ``start``, or up to the end of the passage, as a passage that starts at beat 0."""
        length = min(length, self.length - start)
        before = [key for beat, key in self.keys if beat <= start + 1e-6][-1]
        later = [(beat - start, key) for beat, key in self.keys if start + 1e-6 < beat < start + length]
        return replace(
            self,
            keys=((0.0, before), *later),
            length=length,
            chords=tuple(_cut(self.chords, start, length)),
            melody=tuple(_cut(self.melody, start, length)),
            notes=tuple(_cut(self.notes, start, length)),
            bar_start=(self.bar_start - start) % self.beats_per_bar,
        )

    def histogram(self) -> npt.NDArray[np.float64]:
        """Duration of each pitch class in beats, float64 [12]: from the notes, or from chords and melody."""
        counts = np.zeros(12)
        for note in self.notes or self.melody:
            counts[note.pitch % 12] += note.duration
        if not self.notes:
            for chord in self.chords:
                counts[list(set(chord.pitch_classes))] += chord.duration
        return counts


def _cut(events: tuple[_Event, ...], start: float, length: float) -> Iterator[_Event]:
    for event in events:
        first, last = max(event.start, start), min(event.end, start + length)
        if last - first > 1e-3:
            yield replace(event, start=first - start, duration=last - first)


def diatonic_share(histogram: npt.NDArray[np.float64], key: Key) -> float:
    """Share of ``histogram`` [12] in the scale of ``key``, including mixolydian, dorian and harmonic minor, 0..1."""
    inside = [(key.tonic + degree) % 12 for degree in _WIDE_SCALES[key.mode]]
    return float(histogram[inside].sum() / max(histogram.sum(), 1e-9))


def profile_correlations(histogram: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Correlation of ``histogram`` [12] with Temperley's key profiles, float64 [24] by ``Key.index``, -1..1."""
    profiles = np.array([np.roll(_PROFILES[key.mode], key.tonic) for key in Key.all()])
    profiles -= profiles.mean(axis=1, keepdims=True)
    centered = histogram - histogram.mean()
    scale = np.linalg.norm(profiles, axis=1) * max(float(np.linalg.norm(centered)), 1e-9)
    correlations: npt.NDArray[np.float64] = profiles @ centered / scale
    return correlations


def agrees_with_notes(histogram: npt.NDArray[np.float64], key: Key) -> bool:
    """Whether ``key`` is a plausible label of music with this pitch class ``histogram`` [12].

    The correlation of its profile must be close to that of the best key. Its relative and parallel keys, which share
    most of its notes, may have a slightly higher correlation.
    """
    correlations = profile_correlations(histogram)
    own, best = correlations[key.index], int(correlations.argmax())
    related = {key.index, key.relative.index, key.parallel.index}
    return bool(own > 0.45 and correlations[best] - own < (0.15 if best in related else 0.05))


@dataclass(frozen=True)
class CorpusFiles:
    """The files of a corpus: a folder, or a zip of one.

    Attributes:
        root: the folder or the zip.
        accepts: returns whether to read the file with this path inside the corpus, with ``/`` as the separator.
    """

    root: Path
    accepts: Callable[[str], bool] = field(default=lambda name: True)

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        """Name and content of each file, sorted by name.

        Nothing is unpacked to the disk, so a malicious name in a zip has no effect.

        Raises:
            FileNotFoundError: neither the folder nor the zip exists.
            StoneError: the file is not a zip, or a file in it is too large for a score.
        """
        if self.root.is_dir():
            for path in sorted(self.root.rglob("*")):
                name = path.relative_to(self.root).as_posix()
                if path.is_file() and self.accepts(name):
                    yield name, path.read_bytes()
            return
        archive = self.root if self.root.suffix == ".zip" else self.root.with_name(self.root.name + ".zip")
        content = archive.read_bytes()
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as file:
                for name in sorted(file.namelist()):
                    if not name.endswith("/") and self.accepts(name):
                        if file.getinfo(name).file_size > MAX_SCORE_BYTES:
                            raise StoneError(f"{archive}: {name}: larger than {MAX_SCORE_BYTES >> 20} MB")
                        yield name, file.read(name)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise StoneError(f"{archive}: not a readable zip: {error}") from error
