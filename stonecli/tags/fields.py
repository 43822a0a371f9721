"""The key as a prefix or suffix of the user's text: pure functions on strings.

A part of a text counts as written by stone if it is exactly one of the spellings of ``Key.spelled``, at the start of
the text and followed by the separator (prepend), or at the end and preceded by the separator (append). So
``"A minor thing"`` is the user's text.

The letters ``A`` to ``G`` are both words and spellings of major keys. In a comment or grouping (``"A - Side"``) they
count as written by stone only if the key field of the file says that key, and in a title (``"E - Motion"``,
``"Plan - B"``) never: the user can see and remove an outdated letter, but a deleted word is lost. A text that starts
with exactly what would be written is not changed, so a second run never writes it twice. For the same reason, a text
that consists of one spelling counts as ours in a comment or grouping, but never in a title, and a missing title is not
created.

Mixed In Key writes ``4A - Energy 6`` or ``4A - 6`` to comments and groupings: our form, followed by an energy level. So
a spelling in front of an energy level belongs to Mixed In Key and is never replaced. If a text starts with an energy
level alone (``Energy 6``), stone writes ``8A | Energy 6``, to tell its own spelling from theirs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from stonecli.errors import TagError
from stonecli.key import NOTATIONS, Key
from stonecli.spelling import plain_key_index
from stonecli.tags.rules import Field, WriteMode

SEPARATOR = " - "
ENERGY_SEPARATOR = " | "  # between our spelling and an energy level of Mixed In Key
_ENERGY = re.compile(r"(?:Energy )?(?:10|[1-9])(?= - |\s*[|/,;]|\s*\Z)", re.ASCII | re.IGNORECASE)

OWN_SPELLINGS = frozenset(key.spelled(notation) for key in Key.all() for notation in NOTATIONS)
"""Every text that stone writes for a key."""

_LETTERS = frozenset(spelling for spelling in OWN_SPELLINGS if len(spelling) == 1)  # these are words, too


def checked_utf8(data: bytes) -> bytes:
    """``data``, if it is valid UTF-8: text that was read with replacement characters must not be written back.

    Raises:
        TagError: ``data`` is not valid UTF-8.
    """
    try:
        data.decode()
    except UnicodeDecodeError:
        raise TagError("the text is not UTF-8, and writing it would lose it") from None
    return data


def followed(values: Sequence[str], text: str | None, written: str | None) -> list[str]:
    """The new values of a follower, an additional key field that is updated but never created.

    Each plain key among the values becomes ``text``. With None for ``text``, the values that are equal to the value of
    the key field (``written``) are removed, since stone leaves both fields equal.
    """
    if text is None:
        return [value for value in values if value != written]
    return [value if plain_key_index(value) is None else text for value in values]


def with_key(text: str | None, spelling: str, field: Field, mode: WriteMode, current: Key | None = None) -> str | None:
    """``text`` with the key added, instead of a key that stone wrote before; a missing title stays None.

    ``current`` is the key in the key field of the file, None if there is none.
    """
    if mode == "replace":
        return spelling
    if not text or not text.strip():
        return text if field == "title" else spelling
    own = _own_spellings(field, current) | ({spelling} if field != "title" else set())
    if mode == "prepend":
        if text.startswith(spelling + SEPARATOR):
            return text
        rest = _without(text, field, mode, own)
        if rest is None:
            return spelling
        separator = ENERGY_SEPARATOR if field != "title" and _ENERGY.match(rest) else SEPARATOR
        return spelling + separator + rest
    if text.endswith(SEPARATOR + spelling):
        return text
    rest = _without(text, field, mode, own)
    return spelling if rest is None else rest + SEPARATOR + spelling


def without_key(text: str | None, field: Field, mode: WriteMode, current: Key | None = None) -> str | None:
    """``text`` without the key that stone wrote in this mode; None if there was no other text.

    ``current`` is the key in the key field of the file, None if there is none.
    """
    return None if text is None else _without(text, field, mode, _own_spellings(field, current))


def written_spelling(text: str | None, field: Field, mode: WriteMode, current: Key | None = None) -> str | None:
    """The part of ``text`` that writing a key in this mode replaces, without its separator; None if it only adds one.

    ``current`` is the key in the key field of the file, None if there is none.
    """
    rest = without_key(text, field, mode, current)
    if text is None or (rest == text and mode != "replace"):
        return None
    if rest is None or rest == text:
        return text
    part = text.removesuffix(rest) if mode == "prepend" else text.removeprefix(rest)
    return part.removesuffix(SEPARATOR).removesuffix(ENERGY_SEPARATOR).removeprefix(SEPARATOR)


def _own_spellings(field: Field, current: Key | None) -> frozenset[str]:
    """The texts that count as written by stone."""
    own = OWN_SPELLINGS - _LETTERS
    return own if current is None or field == "title" else own | {current.spelled(notation) for notation in NOTATIONS}


def _without(text: str, field: Field, mode: WriteMode, own: frozenset[str]) -> str | None:
    if field != "title" and text in own:
        return None
    if mode == "prepend":
        for between in (SEPARATOR, ENERGY_SEPARATOR):
            head, _, rest = text.partition(between)
            has_energy = field != "title" and _ENERGY.match(rest)
            if rest and head in own and bool(has_energy) == (between == ENERGY_SEPARATOR):
                return rest
        return text
    if mode == "append":
        rest, separator, tail = text.rpartition(SEPARATOR)
        return rest if separator and rest and tail in own else text
    return text
