"""The key as a prefix or suffix of text that belongs to the user: pure functions on strings.

Text is taken for our own if it is exactly one of the spellings that ``Key.spelled`` writes, at the very start and
followed by the separator (prepend), or at the very end and preceded by it (append). So ``"A minor thing"`` is the
user's.

The seven letters ``A`` .. ``G`` are both words and spellings of major keys. In a comment or grouping they count as
ours. In a title (``"E - Motion"``, ``"Plan - B"``) they never do: a stale letter can be seen and removed by hand, a
lost word is lost. A title that starts with just what is to be written is left alone, so a second run never doubles.
For the same reason a whole text that is a spelling is ours in a comment or grouping, never in a title, and a missing
title is not made.

Mixed In Key writes ``4A - Energy 6`` or ``4A - 6`` into comments and groupings: the form of ours, with an energy level
behind it. So a spelling in front of an energy level is Mixed In Key's and is never replaced. Where a text begins with
an energy level alone (``Energy 6``), we write ``8A | Energy 6``, so that our own spelling can be told from theirs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from stonecli.errors import TagError
from stonecli.key import NOTATIONS, Key
from stonecli.spelling import parse_plain
from stonecli.tags.rules import Field, WriteMode

SEPARATOR = " - "
ENERGY_SEPARATOR = " | "  # between our spelling and an energy level of Mixed In Key
_ENERGY = re.compile(r"(?:Energy )?(?:10|[1-9])(?= - |\s*[|/,;]|\s*\Z)", re.ASCII | re.IGNORECASE)

OWN_SPELLINGS = frozenset(key.spelled(notation) for key in Key.all() for notation in NOTATIONS)
"""Every text that this program writes for a key."""

_AMBIGUOUS_IN_TITLE = frozenset("ABCDEFG")


def checked_utf8(data: bytes) -> bytes:
    """``data``, if it is UTF-8: what has been read with replacement characters must not be written back.

    Raises:
        TagError: it is not.
    """
    try:
        data.decode()
    except UnicodeDecodeError:
        raise TagError("the text is not UTF-8 and would be lost") from None
    return data


def followed(values: Sequence[str], text: str | None, written: str | None) -> list[str]:
    """The values of a field that follows the key field, where it is there: each plain key among them becomes ``text``.

    With None for ``text``, those that say what the key field said (``written``) go: so this program leaves the two.
    """
    if text is None:
        return [value for value in values if value != written]
    return [text if parse_plain(value) else value for value in values]


def with_key(text: str | None, spelling: str, field: Field, mode: WriteMode) -> str | None:
    """``text`` with the key in it, in place of what we wrote there before; None stays None only for a title."""
    if mode == "replace":
        return spelling
    if not text or not text.strip():
        return text if field == "title" else spelling
    if mode == "prepend":
        if text.startswith(spelling + SEPARATOR):
            return text
        rest = without_key(text, field, mode)
        if rest is None:
            return spelling
        separator = ENERGY_SEPARATOR if field != "title" and _ENERGY.match(rest) else SEPARATOR
        return spelling + separator + rest
    if text.endswith(SEPARATOR + spelling):
        return text
    rest = without_key(text, field, mode)
    return spelling if rest is None else rest + SEPARATOR + spelling


def without_key(text: str | None, field: Field, mode: WriteMode) -> str | None:
    """``text`` without what we wrote there in this mode; None if nothing else was in it."""
    if text is None:
        return None
    own = OWN_SPELLINGS - _AMBIGUOUS_IN_TITLE if field == "title" else OWN_SPELLINGS
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
