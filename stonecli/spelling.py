"""Parse the spellings of keys that programs write to tags.

A text is a key only if every part of it is a spelling of that key, so ``Am I wrong`` is not a key. Time and memory are
bounded for any text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

_Mode: TypeAlias = Literal["major", "minor"]

_LETTERS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_GERMAN_LETTERS = _LETTERS | {"B": 10, "H": 11}
_ACCIDENTALS = {"": 0, "#": 1, "sharp": 1, "is": 1, "##": 2, "b": -1, "flat": -1, "es": -1, "s": -1, "bb": -2}
_MODES: dict[str, _Mode] = {
    "maj": "major",
    "major": "major",
    "ionian": "major",
    "dur": "major",
    "m": "minor",
    "min": "minor",
    "minor": "minor",
    "aeolian": "minor",
    "moll": "minor",
}
_GERMAN_MODES = ("dur", "moll")
_INVALID = "invalid"  # an accidental that does not exist for its letter
_SOFT = " \t\r\n\f\v_-"  # allowed within a spelling

# One spelling of a key, followed by the end of the text or by a separator.
_END = r"(?![^\s()\[\]/\\|,;:=_+-])"
_WHEEL = re.compile(rf"0?(1[0-2]|[1-9])\s*([abdm]){_END}", re.ASCII | re.IGNORECASE)
_MUSICAL = re.compile(
    r"([a-h])(##?|♭♭|b|♭|is|es|s|[\s_-]*(?:sharp|flat))?"
    rf"(?:[\s:_-]*(maj|min|major|minor|ionian|aeolian|dur|moll|m)\.?)?{_END}",
    re.ASCII | re.IGNORECASE,
)
_TUNING = re.compile(
    r"(?:[\s(\[]+[+-]|[\s(\[]*[+-]\s*(?=\d\d|\d(?:[.,]\d{1,2})?\s*c))"  # not "-6" alone, which is ambiguous
    rf"(\d{{1,3}})(?:[.,]\d{{1,2}})?\s*(?:cts?|cents?)?{_END}",
    re.ASCII | re.IGNORECASE,
)
_OPENING = re.compile(r"[\s(\[]*", re.ASCII)
_BETWEEN = re.compile(r"[\s()\[\]]*[/\\|,;:=_-]?[\s()\[\]]*", re.ASCII)
_CLOSING = re.compile(r"[\s)\]]*", re.ASCII)
_MAX_CENTS = 100

_NO_KEY = {"", "o", "-", "--", "0", "?", "all", "off", "off key", "no key", "atonal", "invalid"}
_NO_KEY |= {"none", "null", "nil", "n/a", "na", "unknown", "undefined"}
_REPLACED = str.maketrans({"♯": "#", "𝄪": "##", "𝄫": "♭♭", "−": "-", "‐": "-", "‑": "-", "–": "-", "—": "-", "±": "+"})
_ORDINALS = ("ª", "º")  # NFKC converts them to letters, but "8ª" is Spanish for "eighth"
_MAX_SPELLING = 80  # characters; a longer text is not a key
_MAX_TEXT = 4096  # characters, because tags are untrusted; any block of Mixed In Key is shorter


def key_index(text: str) -> int | None:
    """The ``Key.index`` of the key that ``text`` names; None if it names no key, or several. See ``Key.parse``."""
    index = plain_key_index(text)
    if index is None and (inner := _mixed_in_key_text(text)) is not None:
        index = plain_key_index(inner)
    return index


def plain_key_index(text: str) -> int | None:
    """As :func:`key_index`, but without the JSON blocks of Mixed In Key."""
    if len(text) > _MAX_TEXT:
        return None
    spelling = _normalized(text)
    if len(spelling) > _MAX_SPELLING:
        return None
    indices = set(_resolved(_spellings(spelling)))
    return indices.pop() if len(indices) == 1 else None


def says_no_key(text: str) -> bool:
    """Whether ``text`` is blank or one of the texts that programs write for "no key", such as ``o`` or ``INVALID``."""
    if len(text) > _MAX_TEXT:
        return False
    inner = _mixed_in_key_text(text)
    spelling = _normalized(text if inner is None else inner).lower()
    return spelling in _NO_KEY


@dataclass(frozen=True)
class _Spelling:
    """One spelling in a text: ``name`` is the note without its mode; ``mode`` is None if it is not given."""

    name: str
    tonic: int
    mode: _Mode | None


def _normalized(text: str) -> str:
    """``text`` normalized: NFKC, without invisible characters, with ``#`` for sharps and ``-`` for dashes."""
    text = text.strip()
    if text.isascii():
        return text
    import unicodedata  # a local import, because nearly all texts are ASCII and stone must start fast

    if any(char in text for char in _ORDINALS):
        return text
    text = unicodedata.normalize("NFKC", text).translate(_REPLACED)
    return "".join(
        char for char in text if unicodedata.category(char) != "Cf" and not _is_variation_selector(char)
    ).strip()


def _is_variation_selector(char: str) -> bool:
    return "\ufe00" <= char <= "\ufe0f" or "\U000e0100" <= char <= "\U000e01ef"


def _spellings(text: str) -> list[_Spelling]:
    """The spellings of keys in ``text``; empty if it contains anything else."""
    found: list[_Spelling] = []
    at = _end_of(_OPENING, text, 0)
    while True:
        spelling, at = _spelling_at(text, at)
        if spelling is None:
            return []
        found.append(spelling)
        at = _after_tuning(text, at)
        closed = _end_of(_CLOSING, text, at)
        if closed == len(text):
            return found
        between = _end_of(_BETWEEN, text, at)
        if between == at:
            return []
        at = between


def _spelling_at(text: str, at: int) -> tuple[_Spelling | None, int]:
    """The spelling that starts at index ``at``, and the index of its end."""
    if match := _WHEEL.match(text, at):
        return _from_wheel(int(match[1]), match[2].upper()), match.end()
    if match := _MUSICAL.match(text, at):
        return _from_names(match[1], match[2] or "", match[3] or ""), match.end()
    return None, at


def _from_wheel(number: int, letter: str) -> _Spelling:
    camelot_number = number if letter in "AB" else (number + 6) % 12 + 1
    signature = (camelot_number - 8) * 7 % 12  # 7 is its own inverse modulo 12
    is_major = letter in "BD"
    return _Spelling("", signature if is_major else (signature - 3) % 12, "major" if is_major else "minor")


def _from_names(letter: str, accidental: str, mode_name: str) -> _Spelling | None:
    """The spelling of these three parts; None if the combination is invalid."""
    note, mode_text = letter.upper(), mode_name.lower()
    symbol = accidental.strip(_SOFT).lower().replace("♭", "b")
    if accidental == "B" and len(mode_name) < 3:  # "EB MINOR" is E flat minor, but "EB" and "EBM" are ambiguous
        return None
    if mode_text in _GERMAN_MODES:
        symbol = _german_accidental(note, symbol)
        tonic = _GERMAN_LETTERS.get(note, 0)
    else:
        symbol = _INVALID if note == "H" or symbol == "s" or (note, symbol) == ("B", "is") else symbol
        tonic = _LETTERS.get(note, 0)
    if symbol == _INVALID:
        return None
    mode: _Mode | None = "major" if mode_name == "M" else _MODES.get(mode_text)
    if mode is None and letter.islower():
        mode = "minor"
    return _Spelling(note + symbol, (tonic + _ACCIDENTALS[symbol]) % 12, mode)


def _german_accidental(note: str, accidental: str) -> str:
    """The accidental of a German name, in which B alone is B flat; ``Bb`` is read as the same note."""
    if note == "B":
        return "" if accidental in ("", "b", "flat") else _INVALID
    if note == "H":
        return accidental if accidental in ("", "is") else _INVALID
    return _INVALID if accidental == "s" and note not in "AE" else accidental


def _resolved(spellings: list[_Spelling]) -> Iterator[int]:
    """The ``Key.index`` of each spelling; in ``F♯/G♭ minor``, the mode applies to both names of the note."""
    for index, spelling in enumerate(spellings):
        mode = spelling.mode
        if mode is None and index + 1 < len(spellings):
            following = spellings[index + 1]
            if following.name and following.name != spelling.name and following.tonic == spelling.tonic:
                mode = following.mode
        yield spelling.tonic + (12 if mode == "minor" else 0)


def _after_tuning(text: str, at: int) -> int:
    """The end of the tuning in cents that starts at ``at``; ``at`` if there is none."""
    match = _TUNING.match(text, at)
    return match.end() if match and int(match[1]) <= _MAX_CENTS else at


def _end_of(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at


def _mixed_in_key_text(text: str) -> str | None:
    """The text of the key in a Mixed In Key block, e.g. ``{"algorithm":94,"key":"5A","source":"mixedinkey"}``.

    The block may be encoded in base64. None if ``text`` is not such a block.
    """
    block_text = text.strip()
    if len(text) > _MAX_TEXT or len(block_text) < len('{"key":""}'):
        return None
    if not block_text.startswith("{"):
        import base64
        import binascii

        try:
            block_text = base64.b64decode(block_text, validate=True).decode("utf-8").strip()
        except (binascii.Error, ValueError):
            return None
    if not block_text.startswith("{"):
        return None
    import json

    try:
        block = json.loads(block_text)
    except (ValueError, RecursionError):
        return None
    inner = block.get("key") if isinstance(block, dict) else None
    return inner if isinstance(inner, str) else None
