"""Read and write the CSV files of an evaluation: labels, and the answers of an estimator."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TextIO

from stonecli.errors import CrateError, LabelsError, TagError
from stonecli.evaluation.metrics import NO_KEY, relation
from stonecli.key import Key, parse_or_none
from stonecli.library.crates import entry_of, is_collection, is_crate, read_crate, tracks_of
from stonecli.library.locations import Location, Url, parse_location
from stonecli.library.rekordbox import read_collection
from stonecli.tags import read_tags
from stonecli.tags.tempo_text import parse_bpm, says_no_tempo
from stonecli.util.atomic_file import atomic_file
from stonecli.util.csv_text import csv_cells, csv_line
from stonecli.util.text import unescaped

PREDICTION_COLUMNS = ("path", "key", "camelot", "confidence", "label", "relation", "genre", "source", "error")
TEMPO_COLUMNS = ("tempo", "tempo_label")
MAX_CHARACTERS, MAX_LINE = 64 << 20, 1 << 20  # of a table, and of one of its lines
_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}  # spreadsheets in many countries write semicolons
_NO_KEY_WORDS = frozenset({"", "-", "–", "none", "no key", "n", "x"})  # n in chord files, x in mir_eval

Answers = tuple[int | None, ...]
"""Per track: ``Key.index``, ``NO_KEY``, or None without an answer."""


@dataclass(frozen=True)
class Label:
    """One labeled track.

    Attributes:
        path: path of the music file; a relative path is relative to the folder of the CSV.
        name: the path as written in the CSV.
        key: the label; None for a track that has only a tempo.
        genre, source: as written in the CSV; empty without one.
        line: line number in the CSV, from 1.
        tempo: the true tempo in beats per minute; None without one.
        other_key: another key of the track in its crate or tags; ``key`` counts. None if there is only one.
    """

    path: Path
    name: str
    key: Key | None
    genre: str
    source: str
    line: int
    tempo: float | None = None
    other_key: Key | None = None

    @property
    def location(self) -> Location:
        """The URL of a track that is not a file, otherwise the path."""
        found = parse_location(self.name)
        return found if isinstance(found, Url) else self.path


@dataclass(frozen=True)
class Prediction:
    """The detected key of one track (None: no key), or the error that prevented its analysis.

    ``bpm`` is the estimated tempo, None if there is none; it is only estimated for labels with a tempo.
    """

    track: Label
    key: Key | None
    confidence: float
    error: str | None
    bpm: float | None = None


@dataclass(frozen=True)
class Predictions:
    """Answers of another estimator for a list of labeled tracks.

    Attributes:
        answers: one per track; None if the file contains none.
        unmatched: number of rows for other tracks.
        kept: number of rows of ``stone tag`` whose key is from the tags and was not detected.
    """

    answers: Answers
    unmatched: int
    kept: int


def read_rows(path: Path, *, keys_are_optional: bool = False) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a CSV with the columns ``path`` and ``key``: line number, and the stripped fields by column.

    With ``keys_are_optional``, the column ``tempo`` or ``bpm`` may stand in for ``key``.

    It is UTF-8, with or without a byte order mark, and has commas, semicolons or tabs between the columns. Rows that
    are empty are skipped, and missing fields at the end of a row are "". The line number is that of the first line of a
    row. The names of the columns are case-folded.

    Raises:
        LabelsError: a column is missing or exists twice, a line is not valid CSV, or the file is too large.
        OSError: the file cannot be read.
    """
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        delimiter = _delimiter(next((line for line in _lines(file) if line.strip()), ""))
        file.seek(0)
        reader = csv.reader(_lines(file), delimiter=delimiter)
        header: list[str] | None = None
        line = 1
        try:
            for fields in reader:
                line, next_line = line, reader.line_num + 1
                values = [field.strip() for field in fields]
                if header is None:
                    header = _header(values, keys_are_optional)
                elif any(values):
                    if len(values) > len(header):
                        raise LabelsError(
                            f"line {line}: {len(values)} fields for {len(header)} columns"
                            f" (put a path with a {_DELIMITERS[delimiter]} in quotes)"
                        )
                    values += [""] * (len(header) - len(values))
                    yield line, dict(zip(header, values, strict=True))
                line = next_line
        except csv.Error as error:
            raise LabelsError(f"line {line}: not valid CSV: {error}") from error
        if header is None:
            raise LabelsError("the file is empty")


def _lines(file: TextIO) -> Iterator[str]:
    """The lines of a table; a disk image or an endless device would fill the memory with one of them."""
    total = 0
    for number in count(1):
        line = file.readline(MAX_LINE + 1)
        total += len(line)
        if len(line) > MAX_LINE:
            raise LabelsError(f"line {number} is longer than {MAX_LINE:,} characters, so this is not a table")
        if total > MAX_CHARACTERS:
            raise LabelsError(f"larger than {MAX_CHARACTERS >> 20} MB, so not a table of labels or keys")
        if not line:
            return
        yield line


def read_labels(path: Path, playlist_name: str | None = None) -> tuple[list[Label], list[int]]:
    """The tracks of a CSV of labels in order, and the numbers of the lines that repeat a track.

    A playlist or a rekordbox XML is read by :func:`read_crate_labels`; ``playlist_name`` is for it.

    The first line names the columns, in any order and case: ``path``, ``key`` (any spelling that :meth:`Key.parse`
    reads) and optionally ``genre``, ``source`` and ``tempo`` or ``bpm`` (in beats per minute). A track with a tempo
    needs no key. Other columns are ignored.

    Raises:
        LabelsError: a column is missing, there are no tracks, a line has no path, no label or no valid key or tempo,
            or a track has two keys or two tempos.
        OSError: the file cannot be read.
    """
    if is_crate(path):
        return read_crate_labels(path, playlist_name), []
    tracks: dict[str, Label] = {}
    repeated, problems = [], []
    for line, row in read_rows(path, keys_are_optional=True):
        name, key_text, tempo_text = row["path"], row.get("key", ""), row.get("tempo") or row.get("bpm", "")
        key, tempo = parse_or_none(key_text), parse_bpm(tempo_text)
        if not name or "\0" in name:
            problems.append(f"line {line}: no path")
        elif key_text and key is None:
            problems.append(f"line {line}: not a key: {key_text[:40]!r}")
        elif tempo is None and not says_no_tempo(tempo_text):
            problems.append(f"line {line}: not a tempo: {tempo_text[:40]!r}")
        elif key is None and tempo is None:
            problems.append(f"line {line}: no key")
        else:
            label = Label(path.parent / name, name, key, row.get("genre", ""), row.get("source", ""), line, tempo)
            first = tracks.setdefault(_normalized(label.path), label)
            if key is not None and first.key is not None and first.key != key:
                problems.append(f"line {line}: {name} is labeled {key.name}, but {first.key.name} in line {first.line}")
            elif tempo is not None and first.tempo is not None and first.tempo != tempo:
                problems.append(
                    f"line {line}: the tempo of {name} is {tempo:g} BPM, but {first.tempo:g} BPM in line {first.line}"
                )
            elif first is not label:
                repeated.append(line)
    if problems:
        more = f" (and {len(problems) - 1} more such lines)" if len(problems) > 1 else ""
        raise LabelsError(problems[0] + more)
    if not tracks:
        raise LabelsError("the file contains no tracks")
    return list(tracks.values()), repeated


def read_crate_labels(path: Path, playlist_name: str | None = None) -> list[Label]:
    """The tracks of a playlist or a rekordbox XML in order, with the keys that the collection or their tags name.

    The key, tempo and genre of a track in a rekordbox XML are its ``Tonality``, ``AverageBpm`` and ``Genre``. Without a
    key there, and in a playlist, the key in the tags of the file counts. Files without a key are left out, but not
    files that are missing: they are errors of the evaluation.

    Args:
        path: ``.m3u``, ``.m3u8``, ``.pls`` or ``.xml``.
        playlist_name: only this playlist of a rekordbox XML.

    Raises:
        LabelsError: the crate cannot be read, or none of its tracks has a key.
        OSError: the crate cannot be read.
    """
    tracks: dict[str, Label] = {}
    try:
        if is_collection(path):
            found = tracks_of(read_collection(path, playlist_name), playlist_name)
            rows = [(entry_of(track), track.key_text, track.genre, parse_bpm(track.bpm_text)) for track in found]
        else:
            rows = [(entry, "", "", None) for entry in read_crate(path)]
    except CrateError as error:
        raise LabelsError(str(error)) from error
    for number, (entry, key_text, genre, tempo) in enumerate(rows, 1):
        path = Path(str(entry.location))
        key, other = parse_or_none(key_text), None
        if key is None:
            key, other = _keys_in_tags(path)
        if key is not None or not path.exists():
            label = Label(path, str(entry.location), key, genre, "", number, tempo if key is not None else None, other)
            first = tracks.setdefault(_normalized(path), label)
            if key not in (first.key, None) and first.key is not None and first.other_key is None:
                tracks[_normalized(path)] = replace(first, other_key=key)
    if not any(label.key is not None for label in tracks.values()):
        raise LabelsError("no track has a key, neither in the crate nor in its tags")
    return list(tracks.values())


def _keys_in_tags(path: Path) -> tuple[Key | None, Key | None]:
    """The key in the tags of the file, and another one in them; each None if there is none."""
    try:
        tags = read_tags(path)
    except TagError:
        return None, None
    return tags.key, tags.other_key


def read_predictions(path: Path, tracks: Sequence[Label], folder: Path) -> Predictions:
    """The answers for ``tracks`` in a CSV with the columns ``path,key`` (``--predictions``, ``stone tag`` or any tool).

    A row belongs to the track whose label has the same text as path. Otherwise its path is resolved from the folder of
    this CSV, the current folder, or ``folder``, that of the labels. An empty key, ``none`` or ``-`` means no key. A row
    with an ``error``, or with a key text that ``stone tag`` could not read, is no answer.

    Raises:
        LabelsError: a column is missing, a key is invalid, or a track has two different answers.
        OSError: the file cannot be read.
    """
    by_name = {track.name: index for index, track in enumerate(tracks)}
    by_path = {_normalized(track.path): index for index, track in enumerate(tracks)}
    answers: list[int | None] = [None] * len(tracks)
    lines: dict[int, int] = {}
    unmatched = kept = 0
    for line, row in read_rows(path):
        name = row["path"]
        if not name or "\0" in name:
            raise LabelsError(f"line {line}: no path")
        if row.get("error") or row.get("status") == "unreadable key":
            continue
        key = parse_or_none(row["key"])
        if key is None and row["key"].casefold() not in _NO_KEY_WORDS:
            raise LabelsError(f"line {line}: not a key: {row['key'][:40]!r}")
        answer = NO_KEY if key is None else key.index
        index = by_name.get(name, by_name.get(unescaped(name)))
        for start in (path.parent, Path(), folder):
            for spelling in (name, unescaped(name)):  # stone escapes special characters in names, other tools do not
                if index is None and "\0" not in spelling:
                    index = by_path.get(_normalized(start / spelling))
        if index is None:
            unmatched += 1
            continue
        if index in lines and answers[index] != answer:
            raise LabelsError(f"line {line}: another key for {name} than in line {lines[index]}")
        answers[index] = answer
        lines[index] = line
        kept += row.get("status") in ("kept", "incomplete", "tempo missing")
    return Predictions(tuple(answers), unmatched, kept)


def answers_of(tracks: Sequence[Label], predictions: Iterable[Prediction]) -> Answers:
    """The answers for ``tracks`` in ``predictions``; None for a track that failed or is missing."""
    by_path = {one.track.path: one for one in predictions if one.error is None}
    found = [by_path.get(track.path) for track in tracks]
    return tuple(None if one is None else NO_KEY if one.key is None else one.key.index for one in found)


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """Write one row per track, which ``--against`` can read.

    The columns are ``PREDICTION_COLUMNS``, and ``TEMPO_COLUMNS`` if a label has a tempo.

    Raises:
        OSError: the file cannot be written; an existing file is unchanged.
    """
    found = list(predictions)
    has_tempos = any(one.track.tempo is not None for one in found)
    columns = (*PREDICTION_COLUMNS, *TEMPO_COLUMNS) if has_tempos else PREDICTION_COLUMNS
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.write(csv_line(columns))
        for one in found:
            file.write(csv_line(csv_cells(_prediction_row(one), columns)))


def _prediction_row(prediction: Prediction) -> dict[str, str]:
    track, key, failed = prediction.track, prediction.key, prediction.error is not None
    return {
        "tempo": "" if prediction.bpm is None else f"{prediction.bpm:.2f}",
        "tempo_label": "" if track.tempo is None else f"{track.tempo:g}",
        "path": track.name,
        "key": key.musical if key else "",
        "camelot": key.camelot if key else "",
        "confidence": "" if failed else f"{prediction.confidence:.4f}",
        "label": track.key.musical if track.key else "",
        "relation": "" if failed or track.key is None else relation(track.key, key),
        "genre": track.genre,
        "source": track.source,
        "error": prediction.error or "",
    }


def _header(values: list[str], keys_are_optional: bool) -> list[str]:
    header = [value.casefold() for value in values]
    missing = [name for name in ("path", "key") if name not in header]
    if keys_are_optional and {"tempo", "bpm"} & set(header):
        missing = [name for name in missing if name != "key"]
    if missing:
        found = ", ".join(values)[:80] or "nothing"
        raise LabelsError(
            f"line 1: no column {' and no column '.join(missing)} (columns: {found});"
            f" it must name the columns path{', and key or tempo' if keys_are_optional else ' and key'}"
        )
    twice = next((name for name in header if name and header.count(name) > 1), None)
    if twice:
        raise LabelsError(f"line 1: two columns are named {twice}")
    return header


def _delimiter(header: str) -> str:
    """The character between the columns: the most frequent one of the first line; a comma if there is none."""
    return max(_DELIMITERS, key=header.count)


def _normalized(path: Path) -> str:
    """The absolute, normalized path, equal for two spellings of one path; links are not followed."""
    return os.path.normcase(os.path.normpath(path.absolute()))
