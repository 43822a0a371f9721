"""MP3 files: the ID3v2 tag at the start. ID3v1 and APEv2 blocks at the end are left as they are.

Some files have a second ID3v2 tag behind the first, and some programs read it: a key that is there follows the first.

They are read where a new tag is made (:mod:`stonecli.tags.other_tags`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from stonecli.tags.id3 import edit_tag, following, key_in
from stonecli.tags.other_tags import other_texts
from stonecli.tags.rules import Changes
from stonecli.tags.sniff import id3v2_end, id3v2_spans
from stonecli.tags.splice import Span, Splice, file_size, read_at


def splices(file: BinaryIO, container: str, changes: Changes) -> list[Splice]:
    """The splices that make the changes.

    Raises:
        TagError: the tag cannot be changed without loss.
    """
    spans = id3v2_spans(file)
    old = read_at(file, 0, spans[0].length) if spans else b""
    new = [Splice(0, len(old), edit_tag(old, changes, other_texts(file, container)))]
    return [*new, *following(file, spans[1:], changes, key_in(old))]


def payload(file: BinaryIO, container: str) -> Iterator[bytes | Span]:
    """Everything after the ID3v2 tags."""
    length = id3v2_end(file)
    yield Span(length, file_size(file) - length)
