"""Parses Humdrum files into records with times; pitches and durations of ``**kern``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_PITCH = re.compile(r"([a-g]+|[A-G]+)(#+|-+|n)?")
_RECIP = re.compile(r"(\d+)(?:%(\d+))?(\.*)")
_STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}


@dataclass(frozen=True)
class Record:
    """A line of a Humdrum file that is not a comment.

    Attributes:
        spines: for each spine of the file's first line, its tokens; more than one where the spine is split.
    """

    spines: tuple[tuple[str, ...], ...]

    @property
    def is_interpretation(self) -> bool:
        """Whether it is a line of ``*`` tokens."""
        return self.spines[0][0].startswith("*")

    @property
    def is_bar(self) -> bool:
        """Whether it is a bar line."""
        return self.spines[0][0].startswith("=")


def parse_humdrum(text: str) -> tuple[tuple[str, ...], list[Record]]:
    """The exclusive interpretations of the spines (such as ``**kern``), and the records.

    Raises:
        ValueError: the text is not a Humdrum file, or a line does not fit its spines.
    """
    kinds: tuple[str, ...] = ()
    columns: list[int] = []  # spine of each column
    records = []
    for line in text.splitlines():
        if not line or line.startswith("!"):
            continue
        tokens = line.split("\t")
        if not kinds:
            if not line.startswith("**"):
                raise ValueError("not a Humdrum file")
            kinds, columns = tuple(tokens), list(range(len(tokens)))
            continue
        if len(tokens) != len(columns):
            raise ValueError("a line does not fit the spines")
        spines: list[list[str]] = [[] for _ in kinds]
        for column, token in zip(columns, tokens, strict=True):
            spines[column].append(token)
        if all(spines):
            records.append(Record(tuple(tuple(spine) for spine in spines)))
        if line.startswith("*"):
            columns = _after_paths(columns, tokens)
    if not kinds:
        raise ValueError("not a Humdrum file")
    return kinds, records


def _after_paths(columns: list[int], tokens: list[str]) -> list[int]:
    """The columns after a line with spine splits (``*^``), joins (``*v``) and ends (``*-``)."""
    out: list[int] = []
    joining = False
    for column, mark in zip(columns, tokens, strict=True):
        if mark in ("*+", "*x"):
            raise ValueError("spines that are added or exchanged are not supported")
        if mark == "*-":
            joining = False
        elif mark == "*v":
            if not (joining and out and out[-1] == column):
                out.append(column)
            joining = True
        else:
            joining = False
            out += [column] * (2 if mark == "*^" else 1)
    return out


def times(records: Iterable[Record], spines: Iterable[int]) -> Iterator[tuple[float, Record]]:
    """Each record with its time in quarter notes, computed from the durations in ``spines``."""
    spines = tuple(spines)
    ends: dict[tuple[int, int], float] = {}
    now = 0.0
    for record in records:
        yield now, record
        if record.is_interpretation or record.is_bar:
            continue
        for spine in spines:
            for index, token in enumerate(record.spines[spine]):
                quarters = duration(token)
                if quarters is not None:
                    ends[spine, index] = now + quarters
            for index in range(len(record.spines[spine]), 9):
                ends.pop((spine, index), None)
        is_grace = any("q" in token for spine in spines for token in record.spines[spine])
        later = [end for end in ends.values() if end > now + 1e-6]
        if later and not is_grace:
            now = min(later)


def duration(token: str) -> float | None:
    """Duration of a token such as ``4.``, ``8`` or ``0`` in quarter notes; None for a grace note or no duration."""
    if "q" in token:
        return None
    match = _RECIP.search(token)
    if not match:
        return None
    number, divisor, dots = match.groups()
    is_breve = not number.strip("0")
    quarters = 4.0 * 2.0 ** len(number) if is_breve else 4.0 * int(divisor or 1) / int(number)
    return quarters * (2.0 - 0.5 ** len(dots))


def pitches(token: str) -> list[int]:
    """MIDI pitches of a ``**kern`` token, several for a chord; empty for rests and null tokens."""
    out = []
    for part in token.split():
        match = _PITCH.search(part)
        if match and "r" not in part and part != ".":
            letters, sign = match[1], match[2] or ""
            octave = len(letters) - 1 if letters[0].islower() else -len(letters)
            out.append(60 + 12 * octave + _STEPS[letters[0].upper()] + sign.count("#") - sign.count("-"))
    return out


def key_of(token: str) -> str | None:
    """The tonic in a key interpretation, such as ``b-`` in ``*b-:`` (lower case: minor); None for other tokens."""
    match = re.fullmatch(r"\*([A-Ga-g][#-]*):", token)
    return match[1] if match else None


def meter_of(token: str) -> float | None:
    """Quarter notes per bar in a time signature such as ``*M6/8``; None for other tokens."""
    match = re.fullmatch(r"\*M(\d+)/(\d+)", token)
    return int(match[1]) * 4.0 / int(match[2]) if match and int(match[2]) else None
