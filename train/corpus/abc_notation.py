"""Parses tunes in ABC notation: the subset that the folk corpora use.

Supported are notes, lengths, ties, tuplets, broken rhythm, bar accidentals and chord names in quotes. Repeats are
played once; grace notes and decorations are ignored. Tunes that change their key or have several voices are rejected.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction

from stonecli.key import Key, Mode
from stonecli_train.corpus.harmony import ChordName, parse_symbol, pitch_class
from stonecli_train.corpus.score import Chord, Note, Passage, Skipped

_MODES: dict[str, tuple[Mode, int]] = {  # first three letters -> mode by its third, fifths relative to major
    "": ("major", 0), "maj": ("major", 0), "ion": ("major", 0), "m": ("minor", -3), "min": ("minor", -3),
    "aeo": ("minor", -3), "mix": ("major", -1), "dor": ("minor", -2), "phr": ("minor", -4), "lyd": ("major", 1),
}  # fmt: skip
_SHARPS = "FCGDAEB"
_TOKEN = re.compile(
    r"""(?P<chord>"[^"]*") | (?P<skip>\{[^}]*\}|![^!]*!|\\|\+(?=\[)|[~.uvHLMOPRSTJnkr]) | (?P<field>\[[A-Za-z]:[^\]]*\])
      | (?P<tuplet>\(\d(?::\d*)*) | (?P<slur>[()]) | (?P<tie>-) | (?P<broken>[<>]+)
      | (?P<bar>:*\|+[:\d\]]*|\[\d|::+|\|\]|:+\|?)
      | (?P<open>\[) | (?P<close>\](?P<closelength>[\d/]*))
      | (?P<note>(?P<sign>\^{1,2}|_{1,2}|=)?(?P<letter>[A-Ga-gzxZ])(?P<octave>[,']*)(?P<length>\d*/*\d*))""",
    re.VERBOSE,
)  # fmt: skip


def read_tunes(text: str, source: str, origin: str, skipped: Skipped) -> Iterator[Passage]:
    """The tunes of an ABC file; tunes that cannot be read are counted in ``skipped``."""
    for tune in re.split(r"(?m)^(?=X:)", text):
        if not tune.startswith("X:"):
            continue
        try:
            yield read_tune(tune, source, origin)
        except (ValueError, ZeroDivisionError) as error:
            skipped[f"{source}: {str(error).split(':')[0]}"] += 1


def parse_key(text: str) -> tuple[Key, int]:
    """Key, with the mode by its third, and number of sharps (negative: flats) of a ``K:`` field like ``A Mixolydian``.

    Raises:
        ValueError: the field is not a key.
    """
    match = re.match(r"\s*([A-G])([#b]?)\s*([A-Za-z]*)", text)
    if not match:
        raise ValueError(f"not a key: {text[:20]!r}")
    name = match[3].lower()
    word = name if name == "m" else name[:3]
    if word not in _MODES:
        raise ValueError(f"not a key: {text[:20]!r}")
    mode, fifths = _MODES[word]
    tonic = pitch_class(match[1] + match[2])
    index = _SHARPS.index(match[1]) - 1 + (7 if match[2] == "#" else -7 if match[2] == "b" else 0)
    return Key(tonic, mode), index + fifths


def read_tune(text: str, source: str, origin: str) -> Passage:
    """The passage of one tune, whose text starts with ``X:``.

    Raises:
        ValueError: the tune cannot be read, changes its key, or is too short.
    """
    fields, body = _fields_and_body(text)
    key, sharps = parse_key(fields["K"])
    bar = _bar_length(fields.get("M", "C"))
    unit = Fraction(4) * Fraction(fields["L"]) if "L" in fields else Fraction(1, 2)
    notes, names, length, first_bar = _Scanner(sharps, unit, bar).scan(body)
    if length < 16 or len(notes) < 16:
        raise ValueError("too short")
    ends = [start for start, _ in names[1:]] + [length] * bool(names)
    chords = [
        name.at(start, end - start)
        for (start, name), end in zip(names, ends, strict=True)
        if name is not None and end > start
    ]
    return Passage(
        keys=((0.0, key),),
        length=length,
        source=source,
        origin=f"{origin}: {fields.get('T', '')[:60]}",
        chords=tuple(chords),
        melody=tuple(notes),
        beats_per_bar=3 if bar in (3, Fraction(9, 4), Fraction(9, 2)) else 4 if bar.denominator == 1 else 3,
        bar_start=first_bar,
    )


def _fields_and_body(text: str) -> tuple[dict[str, str], str]:
    """The fields of the header by letter, and the music that follows it, as one line.

    Raises:
        ValueError: the tune has no key, changes its key, or has several voices.
    """
    fields: dict[str, str] = {}
    body: list[str] = []
    for raw in text.splitlines():
        line = raw.partition("%")[0].strip()
        if re.match(r"[A-Za-z+]:", line) and not line.startswith("|"):
            name, value = line[0], line[2:].strip()
            if name == "K" and "K" in fields and value and value != fields["K"]:
                raise ValueError("the key changes")
            if name == "V" and body:
                raise ValueError("more than one voice")
            fields.setdefault(name, value)
        elif line and "K" in fields:
            body.append(line)
    if "K" not in fields:
        raise ValueError("no key")
    return fields, " ".join(body)


def _bar_length(meter: str) -> Fraction:
    """The length of a bar in quarter notes for a value of the field ``M``.

    Raises:
        ValueError: the meter is unknown.
    """
    if meter in ("C", "C|"):
        return Fraction(4)
    match = re.match(r"(\d+)/(\d+)", meter)
    if not match:
        raise ValueError("unknown meter")
    return Fraction(4 * int(match[1]), int(match[2]))


class _Scanner:
    """Reads the music of one tune; see :meth:`scan`."""

    def __init__(self, sharps: int, unit: Fraction, bar: Fraction) -> None:
        self._signature = dict.fromkeys(_SHARPS[: max(0, sharps)], 1)
        self._signature |= dict.fromkeys(_SHARPS[::-1][: max(0, -sharps)], -1)
        self._unit = unit
        self._bar = bar
        self._accidentals: dict[str, int] = {}
        self._now = Fraction(0)
        self._notes: list[Note] = []
        self._chords: list[tuple[float, ChordName | None]] = []
        self._factor = Fraction(1)  # of the next note, by broken rhythm
        self._tuplet: tuple[int, Fraction] = (0, Fraction(1))  # remaining notes, factor
        self._last: tuple[int, Fraction] = (0, Fraction(0))  # index of the last event's first note, and its length
        self._tied = False
        self._group: list[int] | None = None  # pitches inside [ ]
        self._group_length = Fraction(0)
        self._first_bar: Fraction | None = None

    def scan(self, body: str) -> tuple[list[Note], list[tuple[float, ChordName | None]], float, float]:
        """Notes, chord names with their beats, the length in beats, and the beat of the first bar line."""
        index = 0
        while index < len(body):
            match = _TOKEN.match(body, index)
            if not match:
                if not body[index].isspace() and body[index] not in '`*&y$;#@?"':
                    raise ValueError(f"unreadable: {body[index : index + 8]!r}")
                index += 1
                continue
            index = match.end()
            self._read_token(match)
        length = float(self._now)
        return self._notes, self._chords, length, float(self._first_bar or 0) % float(self._bar)

    def _read_token(self, match: re.Match[str]) -> None:
        kind = match.lastgroup
        if match["chord"]:
            name = match["chord"].strip('"').strip()
            with suppress(ValueError):  # annotations such as "Fine" are in quotes too
                self._chords.append((float(self._now), parse_symbol(name)))
        elif match["tuplet"]:
            numbers = [int(number) if number else 0 for number in match["tuplet"][1:].split(":")]
            count = numbers[0]
            into = numbers[1] if len(numbers) > 1 and numbers[1] else {2: 3, 3: 2, 4: 3, 6: 2, 8: 3}.get(count, 2)
            self._tuplet = (numbers[2] if len(numbers) > 2 and numbers[2] else count, Fraction(into, count))
        elif match["broken"]:
            self._break(match["broken"])
        elif match["tie"]:
            self._tied = True
        elif match["bar"]:
            self._accidentals.clear()
            if self._first_bar is None:
                self._first_bar = self._now
        elif match["open"]:
            self._group, self._group_length = [], Fraction(0)
        elif match["close"]:
            if self._group is not None:
                pitches, self._group = self._group, None
                self._add(pitches, self._group_length * _length(match["closelength"] or ""))
        elif match["note"]:
            self._note(match)
        elif kind == "field" and match["field"][1] == "K":
            raise ValueError("the key changes")

    def _note(self, match: re.Match[str]) -> None:
        letter, length = match["letter"], _length(match["length"]) * self._unit
        if letter == "Z":
            length = self._bar
        pitches = []
        if letter in "ABCDEFGabcdefg":
            name = letter.upper()
            if match["sign"]:
                self._accidentals[name] = match["sign"].count("^") - match["sign"].count("_")
            sign = self._accidentals.get(name, self._signature.get(name, 0))
            octave = match["octave"].count("'") - match["octave"].count(",") + letter.islower()
            pitches.append(60 + pitch_class(name) + sign + 12 * octave)
        if self._group is not None:
            self._group += pitches
            self._group_length = max(self._group_length, length)
        else:
            self._add(pitches, length)

    def _add(self, pitches: list[int], length: Fraction) -> None:
        length *= self._factor
        self._factor = Fraction(1)
        left, factor = self._tuplet
        if left:
            length *= factor
            self._tuplet = (left - 1, factor)
        first = self._last[0]
        tied = self._notes[first:] if self._tied else []
        self._tied = False
        if tied and pitches and {note.pitch for note in tied} == set(pitches):
            self._notes[first:] = [
                Note(note.start, float(Fraction(note.duration).limit_denominator(960) + length), note.pitch)
                for note in tied
            ]
        else:
            self._last = (len(self._notes), length)
            self._notes += [Note(float(self._now), float(length), pitch) for pitch in pitches]
        self._now += length

    def _break(self, marks: str) -> None:
        """Broken rhythm: ``a>b`` lengthens the previous note by half and shortens the next one, ``a<b`` vice versa."""
        change = 1 - Fraction(1, 2 ** len(marks))
        first, length = self._last
        before, self._factor = (1 + change, 1 - change) if marks[0] == ">" else (1 - change, 1 + change)
        self._notes[first:] = [Note(note.start, float(length * before), note.pitch) for note in self._notes[first:]]
        self._now += length * (before - 1)
        self._last = (first, length * before)


def _length(text: str) -> Fraction:
    """The factor of a note length such as ``3/2``, ``/``, ``//`` or ``4``; 1 for an empty text."""
    if not text:
        return Fraction(1)
    head, slashes, tail = text.partition("/")
    numerator = int(head or 1)
    if not slashes:
        return Fraction(numerator)
    extra = tail.count("/")
    digits = tail.replace("/", "")
    return Fraction(numerator, int(digits) if digits else 2 ** (1 + extra))


def has_chords(passage: Passage) -> bool:
    """Whether chord names cover most of the tune."""
    covered = sum(chord.duration for chord in passage.chords)
    return covered > 0.7 * passage.length


def starts_or_ends_on_tonic(chords: tuple[Chord, ...], key: Key) -> bool:
    """Whether the last chord, or the first one, is the tonic triad of ``key``."""
    third = 4 if key.mode == "major" else 3
    return any(chord.root == key.tonic and third in chord.intervals for chord in (chords[0], chords[-1]))
