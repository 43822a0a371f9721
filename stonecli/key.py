"""Musical keys: their notations, the circle of fifths, and keys that mix.

A key is a tonic (pitch class, C = 0) and a mode. Its Camelot and Open Key codes are computed from its position on the
circle of fifths; only the names of the tonics are tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, assert_never, get_args

Mode = Literal["major", "minor"]
Notation = Literal["camelot", "openkey", "musical", "sharps", "flats"]
KeyRelation = Literal["same", "fifth up", "fifth down", "relative", "parallel", "other"]
Agreement = Literal["same", "relative", "fifth", "parallel", "clash"]

NOTATIONS: tuple[Notation, ...] = get_args(Notation)
AGREEMENTS: tuple[Agreement, ...] = get_args(Agreement)
_AGREEMENTS: dict[KeyRelation, Agreement] = {
    "same": "same",
    "relative": "relative",
    "fifth up": "fifth",
    "fifth down": "fifth",
    "parallel": "parallel",
    "other": "clash",
}

MAJOR_NAMES = ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
"""Default spelling of the major tonics by pitch class (docs/tags.md; ASCII only)."""

MINOR_NAMES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "G#", "A", "Bb", "B")
"""Default spelling of the minor tonics by pitch class."""

SHARP_NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
FLAT_NAMES = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")


@dataclass(frozen=True, order=True)
class Key:
    """One of the 24 keys.

    Attributes:
        tonic: pitch class of the tonic, 0 (C) to 11 (B).
        mode: ``"major"`` or ``"minor"``.

    Raises:
        ValueError: a tonic outside 0..11 or another mode.
    """

    tonic: int
    mode: Mode

    def __post_init__(self) -> None:
        if not 0 <= self.tonic <= 11 or self.mode not in ("major", "minor"):
            raise ValueError(f"no such key: tonic {self.tonic!r}, mode {self.mode!r}")

    def __str__(self) -> str:
        """The short musical spelling, as :attr:`musical`: ``F#m``."""
        return self.musical

    @property
    def index(self) -> int:
        """Index in ``Key.all()``: C major 0 .. B major 11, C minor 12 .. B minor 23."""
        return self.tonic + (12 if self.mode == "minor" else 0)

    @property
    def signature(self) -> int:
        """Pitch class of the major key that shares this key signature, 0..11."""
        return self.tonic if self.mode == "major" else (self.tonic + 3) % 12

    @property
    def wheel(self) -> int:
        """Camelot number, 1..12; neighbors on the circle of fifths differ by one (C major and A minor: 8)."""
        return (7 * self.signature + 7) % 12 + 1

    @property
    def musical(self) -> str:
        """Short musical spelling in ASCII, such as ``F#m`` or ``Db``; valid as ID3 ``TKEY``."""
        return MAJOR_NAMES[self.tonic] if self.mode == "major" else MINOR_NAMES[self.tonic] + "m"

    @property
    def name(self) -> str:
        """Long spelling, such as ``F# minor``."""
        return f"{self.musical.removesuffix('m')} {self.mode}"

    @property
    def camelot(self) -> str:
        """Camelot code: ``1A`` .. ``12A`` minor, ``1B`` .. ``12B`` major."""
        return f"{self.wheel}{'B' if self.mode == 'major' else 'A'}"

    @property
    def open_key(self) -> str:
        """Open Key code: ``1d`` .. ``12d`` major, ``1m`` .. ``12m`` minor; C major is ``1d``."""
        return f"{(self.wheel - 8) % 12 + 1}{'d' if self.mode == 'major' else 'm'}"

    def spelled(self, notation: Notation) -> str:
        """The key in one of the notations, as stone writes it to tags.

        ``sharps`` and ``flats`` are musical spellings with only sharps or only flats: ``G#m`` and ``Abm``.
        """
        if notation == "camelot":
            return self.camelot
        if notation == "openkey":
            return self.open_key
        if notation == "musical":
            return self.musical
        minor = "m" if self.mode == "minor" else ""
        if notation == "sharps":
            return SHARP_NAMES[self.tonic] + minor
        if notation == "flats":
            return FLAT_NAMES[self.tonic] + minor
        assert_never(notation)

    @property
    def relative(self) -> Key:
        """The key with the same signature and the other mode."""
        return _ALL_KEYS[12 + (self.tonic - 3) % 12 if self.mode == "major" else (self.tonic + 3) % 12]

    @property
    def parallel(self) -> Key:
        """The key with the same tonic and the other mode."""
        return _ALL_KEYS[(self.index + 12) % 24]

    def transposed(self, semitones: int) -> Key:
        """This key moved up by ``semitones`` (negative: down)."""
        return _ALL_KEYS[(self.tonic + semitones) % 12 + self.index - self.tonic]

    def neighbors(self) -> tuple[Key, Key, Key]:
        """The keys that mix with this one: relative, a fifth up, a fifth down (Camelot: other letter, +1, -1)."""
        return (self.relative, self.transposed(7), self.transposed(5))

    def relation_to(self, reference: Key) -> KeyRelation:
        """How this key relates to ``reference``: ``fifth up`` if it is the key a fifth above it."""
        if self == reference:
            return "same"
        if self == reference.transposed(7):
            return "fifth up"
        if self == reference.transposed(-7):
            return "fifth down"
        if self == reference.relative:
            return "relative"
        return "parallel" if self == reference.parallel else "other"

    def agreement_with(self, reference: Key) -> Agreement:
        """How far two answers for one track agree: ``fifth`` in either direction, ``clash`` if they are unrelated."""
        return _AGREEMENTS[self.relation_to(reference)]

    @staticmethod
    def all() -> Iterator[Key]:
        """The 24 keys in the order of ``index``."""
        return iter(_ALL_KEYS)

    @staticmethod
    def from_index(index: int) -> Key:
        """The key at ``index`` (0..23) of ``Key.all()``."""
        return _ALL_KEYS[index]

    @staticmethod
    def parse(text: str) -> Key:
        """The key that ``text`` names, in any spelling found in tags.

        Musical spellings (``C#m``, ``Db``, ``A minor``, ``A:min``, ``F-Sharp Minor``; a lower-case letter alone is
        minor, as in Mixxx), Camelot (``8A``, ``08a``), Open Key (``1m``, ``12d``), German names with Dur or Moll
        (``B-Dur`` is B flat major, ``h-moll`` B minor), each optionally followed by a tuning (``A#m +50``), and several
        spellings of the same key (``8A (Am)``, ``F♯/G♭ minor``). Also the JSON block of Mixed In Key, plain or
        in base64. Full-width letters count as plain letters; variation selectors and invisible characters are ignored.

        Raises:
            ValueError: the text names no key, or more than one.
        """
        from stonecli.spelling import key_index  # a local import, because most runs parse nothing

        index = key_index(text)
        if index is None:
            raise ValueError(f"not a key: {text[:40]!r}")
        return _ALL_KEYS[index]


# The methods above return these instances, because constructing a key takes several times as long.
_ALL_KEYS = tuple(Key(tonic, mode) for mode in ("major", "minor") for tonic in range(12))


def parse_or_none(text: str) -> Key | None:
    """The key that ``text`` names, or None if it names no key; see :meth:`Key.parse`."""
    try:
        return Key.parse(text)
    except ValueError:
        return None
