"""MP3 files: the ID3v2 tag at the start. ID3v1 and APEv2 blocks at the end are left as they are.

They are read where a new tag is made (:mod:`stonecli.tags.other_tags`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from stonecli.tags.id3 import edit_tag
from stonecli.tags.other_tags import other_texts
from stonecli.tags.rules import Changes
from stonecli.tags.sniff import id3v2_length
from stonecli.tags.splice import Span, Splice, file_size, read_at


def splices(file: BinaryIO, container: str, changes: Changes) -> list[Splice]:
    """The splices that make the changes.

    Raises:
        TagError: the tag cannot be changed without loss.
    """
    length = _tag_length(file)
    return [Splice(0, length, edit_tag(read_at(file, 0, length), changes, other_texts(file, container)))]


def payload(file: BinaryIO, container: str) -> Iterator[bytes | Span]:
    """Everything after the first ID3v2 tag."""
    length = _tag_length(file)
    yield Span(length, file_size(file) - length)


def _tag_length(file: BinaryIO) -> int:
    file.seek(0)
    return id3v2_length(file.read(10))
