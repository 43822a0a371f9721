"""Sources of excerpts: reads the corpora, draws passages, and arranges them in a style."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from stonecli.errors import StoneError
from stonecli.key import Mode
from stonecli_train.corpus import (
    bach_chorales,
    cocopops,
    jazz_standards,
    keyless,
    mma,
    music21_corpus,
    nottingham,
    pop909,
    songs,
)
from stonecli_train.corpus.arrange import Part, arrange, arrange_score, tempo_of
from stonecli_train.corpus.progressions import draw_loop, harmonized
from stonecli_train.corpus.score import Note, Passage, Skipped, profile_correlations
from stonecli_train.corpus.styles import STYLES

GENERATED = "styles"
READERS: dict[str, Callable[[Path, Skipped], Iterator[Passage]]] = {
    module.SOURCE: module.read
    for module in (pop909, cocopops, jazz_standards, bach_chorales, nottingham, music21_corpus)
}
MIX: dict[str, float] = {
    GENERATED: 0.55, "cocopops": 0.13, "jazz_standards": 0.07, "pop909": 0.15, "bach_chorales": 0.03,
    "nottingham": 0.035, "music21": 0.035,
}  # fmt: skip
"""Shares of the sources in ``--source all``."""
CHARTS = (cocopops.SOURCE, jazz_standards.SOURCE)  # corpora that MMA can accompany, if they are available
_CHART_SHARE = 0.35  # share of charts in MMA's excerpts; the others use generated songs

HELD_OUT_EVERY = 10  # one piece of a corpus out of this number is held out
MIN_KEY_SHARE = 0.75  # minimum share of an excerpt in its main key
MAX_PROFILE_ADVANTAGE = 0.25  # maximum advantage in correlation of another key's profile over that of the label
MIN_CHORD_SHARE = 0.6  # minimum share of an excerpt with chords
_MINOR_SHARE = {"nottingham": 0.3, "music21": 0.35, "bach_chorales": 0.45}  # default: 0.5
_JAZZ_STYLES = (
    "jazz",
    "jazz",
    "jazz",
    "bossa",
    "ballad",
    "latin",
    "soul",
    "solo_piano",
    "blues",
    "funk",
    "drum_and_bass",
)
_FOLK_STYLES = (
    "folk",
    "country",
    "solo",
    "solo_guitar",
    "ballad",
    "classical_piano",
    "chamber",
    "pop",
    "punk",
    "reggae",
    "folk",
    "solo",
)
_CLASSICAL_STYLES = ("strings", "choir", "orchestra", "chamber", "classical_piano", "solo_piano")
_POP_STYLES = (
    "pop",
    "ballad",
    "house",
    "disco",
    "drum_and_bass",
    "electro",
    "trance",
    "soul",
    "rock",
    "orchestra",
    "solo_piano",
)


class RejectedError(StoneError):
    """The drawn passage is unsuitable; the caller draws another."""


@dataclass(frozen=True)
class Excerpt:
    """An arrangement to render.

    Attributes:
        passage: starts at beat 0.
        parts: parts of the arrangement.
        style: its name.
        bpm: quarter notes per minute.
    """

    passage: Passage
    parts: tuple[Part, ...]
    style: str
    bpm: float


class Library:
    """Draws excerpts from the passages of the corpora.

    Args:
        passages: passages by source; generated sources have none.
        held_out: whether to draw the pieces and loops that are excluded from training.
        styles: names of the styles to use; None for all.
    """

    def __init__(
        self, passages: Mapping[str, Iterable[Passage]], held_out: bool = False, styles: Sequence[str] | None = None
    ) -> None:
        self._held_out = held_out
        self._styles = tuple(styles or STYLES)
        self._passages: dict[tuple[str, Mode], list[Passage]] = {}
        for source, of_source in passages.items():
            for passage in of_source:
                if is_held_out(passage.origin) == held_out:
                    self._passages.setdefault((source, passage.key.mode), []).append(passage)

    @classmethod
    def load(
        cls, folder: Path | None, sources: Sequence[str], held_out: bool, styles: Sequence[str] | None, skipped: Skipped
    ) -> Library:
        """The library with the passages of ``sources``.

        Args:
            folder: folder with a folder or zip for each corpus; None for generated sources only.
            sources: names of the sources.
            held_out, styles: as for the class.
            skipped: counts the skipped pieces by reason.

        Raises:
            StoneError: a source is missing.
        """
        passages: dict[str, list[Passage]] = {}
        for source in sources:
            if source in (GENERATED, songs.SOURCE, keyless.SOURCE) or (source == mma.SOURCE and folder is None):
                continue
            if source == mma.SOURCE:
                for charts in CHARTS:
                    with suppress(FileNotFoundError):
                        passages[charts] = list(READERS[charts](_root(folder, charts), skipped))
                continue
            passages[source] = _read(folder, source, skipped)
        return cls(passages, held_out, styles)

    def draw(self, rng: np.random.Generator, source: str, seconds: float) -> Excerpt:
        """A random excerpt of ``seconds`` from ``source`` in a random key and style.

        Raises:
            RejectedError: the drawn passage is unsuitable.
        """
        if source == GENERATED:
            return self._generated(rng, seconds)
        if source == songs.SOURCE:
            return self._song(rng, seconds)
        if source == mma.SOURCE:
            return self._accompanied(rng, seconds)
        mode: Mode = "minor" if rng.random() < _MINOR_SHARE.get(source, 0.5) else "major"
        pool = self._passages.get((source, mode))
        if not pool:
            raise RejectedError(f"{source}: nothing in {mode}")
        passage = pool[int(rng.integers(len(pool)))].transposed(int(rng.integers(-6, 6)))
        if passage.notes and (not passage.chords or rng.random() < 0.5):
            return _score(rng, passage, seconds)
        if not passage.chords:
            if rng.random() < 0.3:
                return _tune(rng, passage, seconds)
            passage = harmonized(passage, rng)
        name = self._style_for(rng, source, passage)
        style = STYLES[name]
        bpm = tempo_of(rng, style)
        section = _random_section(rng, passage, seconds * bpm / 60.0)
        covered = sum(chord.duration for chord in section.chords)
        if covered < MIN_CHORD_SHARE * section.length:
            raise RejectedError(f"{source}: too few chords")
        return Excerpt(section, arrange(rng, section, style, bpm), name, bpm)

    def _generated(self, rng: np.random.Generator, seconds: float) -> Excerpt:
        weights = np.array([STYLES[name].weight for name in self._styles])
        name = self._styles[int(rng.choice(len(self._styles), p=weights / weights.sum()))]
        style = STYLES[name]
        mode: Mode = "minor" if rng.random() < style.minor else "major"
        bpm = tempo_of(rng, style)
        beats = seconds * bpm / 60.0
        passage = draw_loop(rng, style.loops, mode, beats + 32.0, self._held_out)
        start = 4.0 * int(rng.integers(0, 8)) if rng.random() < 0.5 else 0.0
        passage = passage.excerpt(start, beats)
        return Excerpt(passage, arrange(rng, passage, style, bpm), name, bpm)

    def _song(self, rng: np.random.Generator, seconds: float) -> Excerpt:
        style, mode = songs.draw_style(rng, self._styles)
        song = songs.draw_song(rng, style, mode, seconds * style.bpm[1] / 60.0, self._held_out)
        parts, bpm = songs.arrange_song(rng, song, style)
        return Excerpt(song.passage, parts, style.name, bpm)

    def _accompanied(self, rng: np.random.Generator, seconds: float) -> Excerpt:
        """A generated song or a chart whose bass, chords and drums MMA plays; stone arranges the singers and lead."""
        names = mma.styles_with_grooves(self._styles, self._held_out)
        style, mode = songs.draw_style(rng, names)
        charts = [source for source in CHARTS if (source, mode) in self._passages]
        if charts and rng.random() < _CHART_SHARE:
            pool = self._passages[(charts[int(rng.integers(len(charts)))], mode)]
            passage = pool[int(rng.integers(len(pool)))].transposed(int(rng.integers(-6, 6)))
            if passage.beats_per_bar != mma.BEATS_PER_BAR or not passage.chords:
                raise RejectedError(f"{passage.source}: no chords in bars of four")
            bpm = tempo_of(rng, style)
            passage = _random_section(rng, passage, seconds * bpm / 60.0)
            passage = replace(passage, source=mma.SOURCE)
            own = arrange(rng, passage, style, bpm)
            starts = list(np.arange(0.0, passage.length, 8.0 * mma.BEATS_PER_BAR))
        else:
            song = songs.draw_song(rng, style, mode, seconds * style.bpm[1] / 60.0, self._held_out)
            passage = replace(song.passage, source=mma.SOURCE)
            own, bpm = songs.arrange_song(rng, song, style)
            starts = [section.start for section in song.sections]
        grooves = mma.draw_grooves(rng, style.name, self._held_out)
        changes = [(start, grooves[index % len(grooves)]) for index, start in enumerate(starts)]
        band = mma.accompany(rng, passage.chords, seconds * bpm / 60.0, changes, bpm, style.chords)
        lead = rng.random() < 0.5
        voices = [part for part in own if part.role in ("sung", "spoken") or (lead and part.role == "lead")]
        return Excerpt(passage, (*band, *voices), style.name, bpm)

    def _style_for(self, rng: np.random.Generator, source: str, passage: Passage) -> str:
        if source == "cocopops":
            names: Sequence[str] = [
                name for name in STYLES if STYLES[name].charts and STYLES[name].loops != "classical"
            ]
        elif source == "jazz_standards":
            names = _JAZZ_STYLES
        elif source == "pop909":
            names = _POP_STYLES
        else:
            names = _FOLK_STYLES if passage.melody else _CLASSICAL_STYLES
        allowed = [name for name in names if name in self._styles]
        if not allowed:
            raise RejectedError(f"{source}: no suitable style among those requested")
        return allowed[int(rng.integers(len(allowed)))]


def is_held_out(origin: str) -> bool:
    """Whether a piece of a corpus is excluded from training, by a hash of its ``origin``."""
    return zlib.crc32(origin.encode()) % HELD_OUT_EVERY == 0


def _read(folder: Path | None, source: str, skipped: Skipped) -> list[Passage]:
    """The passages of a corpus.

    Raises:
        StoneError: the corpus is missing or has no passages.
    """
    try:
        root = _root(folder, source)
        passages = list(READERS[source](root, skipped))
    except FileNotFoundError as error:
        raise StoneError(f"{source}: neither {folder}/{source} nor {folder}/{source}.zip exists") from error
    if not passages:
        raise StoneError(f"{source}: no passages in {root}")
    return passages


def _root(folder: Path | None, source: str) -> Path:
    if source == music21_corpus.SOURCE and (folder is None or not (folder / source).exists()):
        return music21_corpus.installed_corpus()
    if folder is None:
        raise StoneError(f"{source}: needs --corpus FOLDER")
    return folder / source


def _random_section(rng: np.random.Generator, passage: Passage, beats: float) -> Passage:
    """``beats`` beats of ``passage`` from a random bar line; a passage that is too short is repeated."""
    bar = passage.beats_per_bar
    if passage.length < beats:
        passage = _repeated(passage, beats + bar)
    latest = max(0, int((passage.length - beats - passage.bar_start) / bar))
    section = passage.excerpt(passage.bar_start + bar * int(rng.integers(latest + 1)), beats)
    if section.length < 0.9 * beats or section.main_key()[1] < MIN_KEY_SHARE:
        raise RejectedError(f"{passage.source}: the key changes")
    correlations = profile_correlations(section.histogram())
    if correlations.max() - correlations[section.key.index] > MAX_PROFILE_ADVANTAGE:
        raise RejectedError(f"{passage.source}: the notes fit another key better")
    return section


def _repeated(passage: Passage, beats: float) -> Passage:
    bar = passage.beats_per_bar
    # Repeats start on a bar line, to preserve the meter.
    length = max(bar, -(-passage.length // bar) * bar)
    times = int(beats / length) + 1

    def moved(notes: tuple[Note, ...], by: float) -> list[Note]:
        return [replace(note, start=note.start + by) for note in notes]

    shifts = [index * length for index in range(times)]
    return replace(
        passage,
        keys=tuple((start + shift, key) for shift in shifts for start, key in passage.keys),
        length=times * length,
        chords=tuple(replace(chord, start=chord.start + shift) for shift in shifts for chord in passage.chords),
        melody=tuple(note for shift in shifts for note in moved(passage.melody, shift)),
        notes=tuple(note for shift in shifts for note in moved(passage.notes, shift)),
    )


def _score(rng: np.random.Generator, passage: Passage, seconds: float) -> Excerpt:
    """An excerpt of a complete score, as written, on random instruments."""
    low, high = (65.0, 135.0) if passage.source == pop909.SOURCE else (55.0, 110.0)
    bpm = float(rng.uniform(low, high))
    section = _random_section(rng, passage, seconds * bpm / 60.0)
    if len(section.notes) < 12:
        raise RejectedError(f"{passage.source}: too few notes")
    return Excerpt(section, arrange_score(rng, section, bpm), "score", bpm)


def _tune(rng: np.random.Generator, passage: Passage, seconds: float) -> Excerpt:
    """An excerpt of an unaccompanied melody."""
    bpm = float(rng.uniform(70.0, 140.0))
    section = _random_section(rng, passage, seconds * bpm / 60.0)
    if len(section.melody) < 16:
        raise RejectedError(f"{passage.source}: too few notes")
    return Excerpt(section, arrange_score(rng, replace(section, notes=section.melody), bpm), "tune", bpm)
