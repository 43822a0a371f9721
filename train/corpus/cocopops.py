"""CoCoPops: chords, keys and melodies of rock and pop songs by experts, in Humdrum, from
https://github.com/Computational-Cognitive-Musicology-Lab/CoCoPops (no license stated). Its two parts are the McGill
Billboard songs with melodies and Rolling Stone's 200 greatest songs (de Clercq and Temperley).

The tonic is annotated; the mode follows from the third in the tonic's chords, or in the melody if those have none.
Songs are split at key changes, and sections with an ambiguous third are skipped. Songs by the Beatles are skipped
because their recordings are often used for evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from stonecli.key import Key, Mode
from stonecli_train.corpus import humdrum
from stonecli_train.corpus.harmony import ChordName, parse_harte, pitch_class
from stonecli_train.corpus.score import Chord, CorpusFiles, Note, Passage, Skipped

SOURCE = "cocopops"
MIN_BEATS = 24.0
_MIN_THIRD_SHARE = 0.7  # minimum share of the tonic's chords that have the third of the mode


@dataclass
class _Song:
    tonics: list[tuple[float, int]] = field(default_factory=list)
    chords: list[tuple[float, ChordName | None]] = field(default_factory=list)
    melody: list[tuple[float, int | None]] = field(default_factory=list)
    bar: float = 4.0
    length: float = 0.0


def read(root: Path, skipped: Skipped) -> Iterator[Passage]:
    """Single-key passages of the songs in ``root``, a folder or zip with ``*.hum``; ``skipped`` counts the others."""
    for name, content in CorpusFiles(root, lambda name: name.endswith(".hum") and "beatles" not in name.lower()):
        try:
            yield from read_song(content.decode("utf-8", "replace"), Path(name).name, skipped)
        except ValueError as error:
            skipped[f"{SOURCE}: {str(error).split(':')[0]}"] += 1


def read_song(text: str, origin: str, skipped: Skipped) -> Iterator[Passage]:
    """One passage for each single-key section of the song.

    Raises:
        ValueError: the file cannot be read.
    """
    kinds, records = humdrum.parse_humdrum(text)
    if "**harte" not in kinds:
        raise ValueError("no chords")
    harte = kinds.index("**harte")
    kern = kinds.index("**kern") if "**kern" in kinds else None
    has_durations = any(
        humdrum.duration(record.spines[kinds.index("**harm")][0]) is not None
        for record in records
        if "**harm" in kinds and not record.is_bar and not record.is_interpretation
    )
    timed = _by_durations(kinds, records) if has_durations else _by_bars(records)
    song = _Song()
    for now, record in timed:
        _add_record(song, now, record, harte, kern)
    song.length = max(song.length, max((start for start, _ in song.chords), default=0.0))
    ends = [start for start, _ in song.tonics[1:]] + [song.length] * bool(song.tonics)
    for (start, tonic), end in zip(song.tonics, ends, strict=True):
        passage = _passage(song, start, end, tonic, origin)
        if passage is None:
            skipped[f"{SOURCE}: section too short, or its third is ambiguous"] += 1
        else:
            yield passage


def _by_durations(kinds: tuple[str, ...], records: list[humdrum.Record]) -> Iterator[tuple[float, humdrum.Record]]:
    """Each record with its beat, in the Billboard corpus, where chords and notes have durations."""
    spines = [index for index, kind in enumerate(kinds) if kind in ("**harm", "**kern")]
    end = 0.0
    for now, record in humdrum.times(records, spines):
        yield now, record
        if not record.is_bar and not record.is_interpretation:
            lengths = [humdrum.duration(token) or 0.0 for spine in spines for token in record.spines[spine]]
            end = max(end, now + max(lengths, default=0.0))
    if records:
        yield end, humdrum.Record(tuple(("=",) for _ in records[-1].spines))


def _by_bars(records: list[humdrum.Record]) -> Iterator[tuple[float, humdrum.Record]]:
    """Each record with its beat, in the Rolling Stone corpus, where the lines of a bar divide it evenly."""
    now, bar = 0.0, 4.0
    pending: list[humdrum.Record] = []

    def flush() -> Iterator[tuple[float, humdrum.Record]]:
        for index, line in enumerate(pending):
            yield now + bar * index / len(pending), line

    for record in records:
        if record.is_bar:
            yield from flush()
            now += bar if pending else 0.0
            pending.clear()
            yield now, record
        elif record.is_interpretation:
            bar = next((meter for spine in record.spines if (meter := humdrum.meter_of(spine[0]))), bar)
            yield now, record
        else:
            pending.append(record)
    yield from flush()
    if pending:
        yield now + bar, humdrum.Record(tuple(("=",) for _ in pending[-1].spines))


def _add_record(song: _Song, now: float, record: humdrum.Record, harte: int, kern: int | None) -> None:
    token = record.spines[harte][0]
    song.length = max(song.length, now)
    if record.is_bar:
        return
    if record.is_interpretation:
        found = humdrum.key_of(token)
        if found and (not song.tonics or song.tonics[-1][1] != pitch_class(found)):
            song.tonics.append((now, pitch_class(found)))
        song.bar = next((meter for spine in record.spines if (meter := humdrum.meter_of(spine[0]))), song.bar)
        return
    if token not in (".", "r"):
        song.chords.append((now, parse_harte(token)))
    if kern is not None:
        sung = record.spines[kern][0]
        if sung != "." and "q" not in sung and "]" not in sung and "_" not in sung:
            found_pitches = humdrum.pitches(sung)
            song.melody.append((now, found_pitches[0] if found_pitches else None))


def _passage(song: _Song, start: float, end: float, tonic: int, origin: str) -> Passage | None:
    chord_ends = [beat for beat, _ in song.chords[1:]] + [song.length] * bool(song.chords)
    chords: list[Chord] = []
    for (beat, name), until in zip(song.chords, chord_ends, strict=True):
        first, last = max(beat, start), min(until, end)
        if name is not None and last > first:
            chords.append(name.at(first - start, last - first))
    note_ends = [beat for beat, _ in song.melody[1:]] + [song.length] * bool(song.melody)
    melody = [
        Note(beat - start, min(until - beat, song.bar), pitch)
        for (beat, pitch), until in zip(song.melody, note_ends, strict=True)
        if pitch is not None and start <= beat < end and until > beat
    ]
    mode = _mode(tonic, chords, melody)
    if end - start < MIN_BEATS or len(chords) < 2 or mode is None:
        return None
    return Passage(
        keys=((0.0, Key(tonic, mode)),),
        length=end - start,
        source=SOURCE,
        origin=origin,
        chords=tuple(chords),
        melody=tuple(melody),
        beats_per_bar=3 if song.bar == 3 else 4,
    )


def _mode(tonic: int, chords: list[Chord], melody: list[Note]) -> Mode | None:
    """Mode from the thirds of the tonic's chords, or of the melody if they have none; None if ambiguous."""
    major = sum(chord.duration for chord in chords if chord.root == tonic and 4 in chord.intervals)
    minor = sum(chord.duration for chord in chords if chord.root == tonic and 3 in chord.intervals)
    if not major + minor:
        major = sum(note.duration for note in melody if (note.pitch - tonic) % 12 == 4)
        minor = sum(note.duration for note in melody if (note.pitch - tonic) % 12 == 3)
    if not major + minor:
        return None
    share = major / (major + minor)
    return "major" if share >= _MIN_THIRD_SHARE else "minor" if share <= 1 - _MIN_THIRD_SHARE else None
