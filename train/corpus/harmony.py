"""Parses chord names into root, intervals and bass: Harte's syntax, lead sheet symbols and roman numerals."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stonecli.key import Mode
from stonecli_train.corpus.score import SCALES, Chord

_LETTERS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_PITCH = re.compile(r"([A-G])([#b♯♭+-]*)")
_STEPS = {1: 0, 2: 2, 3: 4, 4: 5, 5: 7, 6: 9, 7: 11, 9: 14, 11: 17, 13: 21}

QUALITIES: dict[str, tuple[int, ...]] = {
    "maj": (0, 4, 7), "min": (0, 3, 7), "dim": (0, 3, 6), "aug": (0, 4, 8), "5": (0, 7), "1": (0,),
    "sus4": (0, 5, 7), "sus2": (0, 2, 7), "maj6": (0, 4, 7, 9), "min6": (0, 3, 7, 9),
    "7": (0, 4, 7, 10), "maj7": (0, 4, 7, 11), "min7": (0, 3, 7, 10), "minmaj7": (0, 3, 7, 11),
    "hdim7": (0, 3, 6, 10), "dim7": (0, 3, 6, 9), "aug7": (0, 4, 8, 10), "9": (0, 4, 7, 10, 14),
    "maj9": (0, 4, 7, 11, 14), "min9": (0, 3, 7, 10, 14), "11": (0, 7, 10, 14, 17), "min11": (0, 3, 7, 10, 14, 17),
    "13": (0, 4, 7, 10, 14, 21), "maj13": (0, 4, 7, 11, 14, 21), "min13": (0, 3, 7, 10, 14, 21),
    "maj11": (0, 4, 7, 11, 14), "6": (0, 4, 7, 9), "": (0, 4, 7),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ChordName:
    """A chord without a time: pitch class of the root, semitones above it, pitch class of the bass."""

    root: int
    intervals: tuple[int, ...]
    bass: int

    def at(self, start: float, duration: float) -> Chord:
        """The chord from ``start`` for ``duration`` beats."""
        return Chord(start, duration, self.root, self.intervals, self.bass)


def pitch_class(name: str) -> int:
    """Pitch class of a note name such as ``C#``, ``Bb``, ``E-`` (Humdrum's flat) or ``f+`` (Nottingham's sharp).

    Raises:
        ValueError: ``name`` is not a note.
    """
    match = _PITCH.fullmatch(name[:1].upper() + name[1:])
    if not match:
        raise ValueError(f"not a note: {name[:20]!r}")
    sharps = sum(match[2].count(sign) for sign in "#♯+")
    flats = sum(match[2].count(sign) for sign in "b♭-")
    return (_LETTERS[match[1]] + sharps - flats) % 12


def parse_harte(text: str) -> ChordName | None:
    """The chord in the syntax of Harte et al. (ISMIR 2005), such as ``B-:min7/b3``; None for ``N`` (no chord).

    Raises:
        ValueError: ``text`` is not a chord of this syntax.
    """
    if text in ("N", "X"):
        return None
    above, _, below = text.partition("/")
    root_name, _, quality = above.partition(":")
    root = pitch_class(root_name)
    name, _, extra = quality.partition("(")
    if name not in QUALITIES:
        raise ValueError(f"not a chord: {text[:20]!r}")
    intervals = list(QUALITIES[name]) if name or not extra else [0]
    for degree in filter(None, extra.rstrip(")").split(",")):
        if degree.startswith("*"):
            intervals = [value for value in intervals if value % 12 != _degree(degree[1:]) % 12]
        elif _degree(degree) not in intervals:
            intervals.append(_degree(degree))
    return ChordName(root, tuple(intervals), (root + (_degree(below) if below else 0)) % 12)


def _degree(text: str) -> int:
    match = re.fullmatch(r"([b#]*)(\d+)", text)
    if not match or int(match[2]) not in _STEPS:
        raise ValueError(f"not a degree: {text[:20]!r}")
    return _STEPS[int(match[2])] + match[1].count("#") - match[1].count("b")


# Lead sheet suffixes: the first match wins; the rest of the text is alterations.
_SYMBOLS: tuple[tuple[str, str], ...] = (
    (r"m7b5|min7b5|h7?|ø7?", "hdim7"), (r"dim7|o7|07|°7", "dim7"), (r"dim|o|0|°|d(?!im)", "dim"),
    (r"mmaj7|m\(maj7\)|mM7|minmaj7", "minmaj7"), (r"aug7|\+7|7#5", "aug7"), (r"maug", "min"), (r"aug|\+", "aug"),
    (r"maj13|M13", "maj13"), (r"maj9|M9", "maj9"), (r"maj7|M7|\^7?|maj(?=#)", "maj7"), (r"maj6|M6", "maj6"),
    (r"(?:min|m|-)13", "min13"), (r"(?:min|m|-)11", "min11"), (r"(?:min|m|-)9", "min9"), (r"(?:min|m|-)7", "min7"),
    (r"(?:min|m|-)6", "min6"), (r"min|m(?!aj)|-", "min"), (r"maj|M", "maj"),
    (r"13", "13"), (r"11", "11"), (r"9", "9"), (r"7", "7"), (r"69|6", "maj6"), (r"sus2", "sus2"), (r"5", "5"),
)  # fmt: skip
_ALTERATIONS = re.compile(r"add9|sus4?|alt|[b#](?:5|6|9|11|13)|9|6")


def parse_symbol(text: str) -> ChordName | None:
    """The chord of a lead sheet symbol such as ``Fm7b5``, ``G7/b`` or ``Bbmaj7#11``; None for ``NC``.

    A chord in brackets after it is an alternative, and ignored.

    Raises:
        ValueError: ``text`` is not a chord of this syntax.
    """
    text = re.sub(r"\(.*?\)?$", "", text.strip()).strip() if text.strip()[:1] != "(" else text.strip().strip("()")
    if text.upper() in ("NC", "N.C.", "N"):
        return None
    above, _, below = text.replace("m/maj7", "mmaj7").partition("/")
    match = _PITCH.match(above)
    if not match:
        raise ValueError(f"not a chord: {text[:20]!r}")
    name = above[: match.end()]
    if name.endswith(("-", "+")):  # minor or augmented here, not an accidental
        name = name[:-1]
    root, rest = pitch_class(name), above[len(name) :]
    intervals: tuple[int, ...] = (0, 4, 7)
    for pattern, quality in _SYMBOLS:
        if match := re.match(pattern, rest):
            intervals, rest = QUALITIES[quality], rest[match.end() :]
            break
    intervals = _altered(intervals, rest, text)
    return ChordName(root, intervals, pitch_class(below.strip()) if below.strip() else root)


def _altered(intervals: tuple[int, ...], rest: str, text: str) -> tuple[int, ...]:
    values = list(intervals)
    while rest:
        match = _ALTERATIONS.match(rest)
        if not match:
            raise ValueError(f"not a chord: {text[:20]!r}")
        rest = rest[match.end() :]
        mark = match[0]
        if mark.startswith("sus"):
            values = [5 if value in (3, 4) else value for value in values]
        elif mark == "alt":
            values = [0, 4, 8, 10, 15]
        elif mark in ("b5", "#5"):
            values = [_degree(mark) if value == 7 else value for value in values]
        else:
            values.append(_degree(mark.removeprefix("add")))
    return tuple(dict.fromkeys(values))


_NUMERALS = ("I", "II", "III", "IV", "V", "VI", "VII")
_ROMAN = re.compile(r"([b#]*)(VII|VI|IV|V|III|II|I|vii|vi|iv|v|iii|ii|i)(.*)")
_FIGURES: dict[str, tuple[int, int]] = {  # figured bass -> (number of notes in the chord, inversion)
    "": (3, 0), "6": (3, 1), "63": (3, 1), "64": (3, 2), "7": (4, 0), "65": (4, 1), "43": (4, 2), "42": (4, 3),
    "2": (4, 3), "9": (5, 0), "53": (3, 0),
}  # fmt: skip


def parse_roman(text: str, tonic: int, mode: Mode) -> ChordName:
    """The chord of a roman numeral in a key: ``V65``, ``bVII``, ``iio6``, ``V7/V``, ``vii/o7``.

    Degrees without an accidental are those of the major or natural minor scale, but a leading-tone chord in minor
    (``viio``) has the raised seventh as its root. Degrees with an accidental are relative to the major scale, as usual
    in popular music. Sevenths are those of the scale, but that of ``V7`` is always minor; ``maj7`` forces a major one.

    Raises:
        ValueError: ``text`` is not a roman numeral of this syntax.
    """
    text = text.replace("ø", "/o").replace("°", "o")
    head, _, of = text.replace("/o", "ø").partition("/")
    if of:
        target = parse_roman(of, tonic, mode)
        return parse_roman(head.replace("ø", "/o"), target.root, "minor" if 3 in target.intervals else "major")
    match = _ROMAN.fullmatch(head)
    if not match:
        raise ValueError(f"not a roman numeral: {text[:20]!r}")
    accidental, numeral, rest = match.groups()
    step, is_minor = _NUMERALS.index(numeral.upper()), numeral.islower()
    third_fifth = (3, 7) if is_minor else (4, 7)
    is_half_diminished = rest.startswith("ø")
    if rest[:1] in ("o", "ø", "+"):
        third_fifth = (4, 8) if rest[0] == "+" else (3, 6)
    diminished, rest = third_fifth == (3, 6), rest.lstrip("oø+")
    degree = SCALES["major" if accidental else mode][step]
    if not accidental and mode == "minor" and step == 6 and (is_minor or diminished):
        degree = 11
    root = (tonic + degree + accidental.count("#") - accidental.count("b")) % 12
    is_major_seventh = rest.startswith("maj")
    rest = rest.removeprefix("maj").replace("/", "")
    if rest in ("sus4", "sus2"):
        return ChordName(root, QUALITIES[rest], root)
    if rest == "add9":
        return ChordName(root, (0, *third_fifth, 14), root)
    if rest == "5":
        return ChordName(root, (0, 7), root)
    if rest not in _FIGURES:
        raise ValueError(f"not a roman numeral: {text[:20]!r}")
    count, inversion = _FIGURES[rest]
    intervals = [0, *third_fifth]
    if count >= 4:
        intervals.append(_seventh(root, tonic, mode, third_fifth, is_half_diminished, is_major_seventh))
    if count == 5:
        intervals.append(14)
    return ChordName(root, tuple(intervals), (root + intervals[inversion]) % 12)


def _seventh(
    root: int, tonic: int, mode: Mode, third_fifth: tuple[int, int], half_diminished: bool, major: bool
) -> int:
    if major:
        return 11
    if third_fifth == (3, 6):
        return 10 if half_diminished else 9
    if third_fifth[0] == 3:
        return 10
    degree = (root - tonic) % 12
    in_scale = (degree + 11) % 12 in SCALES[mode] and degree not in (7, 10)
    return 11 if in_scale and third_fifth == (4, 7) else 10
