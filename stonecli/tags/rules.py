"""The values that go in and out of ``stonecli.tags``: rules for writing a key, and the key tags of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast, get_args

from stonecli.key import NOTATIONS, Key, Notation
from stonecli.spelling import says_no_key

Field = Literal["key", "comment", "grouping", "title", "bpm"]
WriteMode = Literal["replace", "prepend", "append"]

FIELDS: tuple[Field, ...] = ("key", "comment", "grouping", "title")  # that a key can be written to
MODES: tuple[WriteMode, ...] = get_args(WriteMode)

Changes: TypeAlias = Mapping[Field, str | None]
"""New text by field; None removes the field. Fields that are not named stay unchanged."""


@dataclass(frozen=True)
class FieldRule:
    """One field to write the key to.

    Attributes:
        field: the field.
        notation: the notation of the key in this field.
        mode: what happens to the text of the field; has no effect for ``key``, which is always replaced.
    """

    field: Field = "key"
    notation: Notation = "camelot"
    mode: WriteMode = "replace"


@dataclass(frozen=True)
class KeyTags:
    """The key tags of a file.

    Attributes:
        container: container of the file by its content, such as ``"mp3"`` or ``"ogg vorbis"``.
        text: raw text of the first key field that says more than "no key", or else of the first key field; None if
            there is none. Untrusted.
        key: the key that ``text`` names; None if there is no text or it names no key.
        bpm_text: raw text of the first tempo field that says more than "no tempo", or else of the first tempo field;
            None if there is none. Untrusted.
        other_key: another key in the fields that stone writes or updates, although ``key`` counts. None if all of them
            name the same key.
    """

    container: str
    text: str | None
    key: Key | None
    bpm_text: str | None = None
    other_key: Key | None = None

    @property
    def is_unreadable(self) -> bool:
        """Whether there is a text that neither names a key nor means "no key" (``o``, ``INVALID``)."""
        return self.key is None and self.text is not None and not says_no_key(self.text)


def check_rules(rules: Sequence[FieldRule]) -> None:
    """Raise an error if the rules are invalid.

    Raises:
        ValueError: a rule would replace a title.
    """
    if any(rule.field == "title" and rule.mode == "replace" for rule in rules):
        raise ValueError("a title is never replaced by a key: use prepend or append")


def parse_rules(fields: Sequence[str], notation: Notation, mode: WriteMode) -> tuple[FieldRule, ...]:
    """The rules for texts such as ``key`` and ``comment=camelot``; without ``=``, the notation is ``notation``.

    Raises:
        ValueError: there is no such field or notation, or a field is given twice.
    """
    rules: list[FieldRule] = []
    for text in fields:
        name, equals, own = text.partition("=")
        if name not in FIELDS:
            raise ValueError(f"must be one of {', '.join(FIELDS)}, not {name!r}")
        if (wanted := own if equals else notation) not in NOTATIONS:
            raise ValueError(f"must have one of the notations {', '.join(NOTATIONS)}, not {wanted!r}")
        if any(rule.field == name for rule in rules):  # the second would overwrite the first
            raise ValueError(f"must not name {name!r} twice")
        rules.append(FieldRule(name, cast(Notation, own) if equals else notation, "replace" if name == "key" else mode))
    return tuple(rules)
