"""MP3 files: the ID3v2 tag at the start. An ID3v1 block at the end is left as it is, and so is an APEv2 tag.

But some programs read a second ID3v2 tag behind the first, or the APEv2 tag: a key that is there follows the first tag.

They are read where a new tag is made (:mod:`stonecli.tags.formats.other_tags`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from stonecli.tags.edit.splice import Span, Splice, file_size, read_at
from stonecli.tags.formats.apev2 import follow_tail, tail
from stonecli.tags.formats.id3 import edit_tag, following, key_in
from stonecli.tags.formats.other_tags import other_texts
from stonecli.tags.formats.sniff import id3v2_end, id3v2_spans
from stonecli.tags.rules import Changes


def splices(file: BinaryIO, container: str, changes: Changes) -> list[Splice]:
    """The splices that make the changes.

    Raises:
        TagError: the tag cannot be changed without loss.
    """
    spans = id3v2_spans(file)
    old = read_at(file, 0, spans[0].length) if spans else b""
    new = [Splice(0, len(old), edit_tag(old, changes, other_texts(file, container)))]
    old_key = key_in(old) if "key" in changes else None
    return [*new, *following(file, spans[1:], changes, old_key), *follow_tail(file, changes, old_key)]


def payload(file: BinaryIO, container: str) -> Iterator[bytes | Span]:
    """Everything after the ID3v2 tags but an APE tag at the end."""
    start, end = id3v2_end(file), file_size(file)
    tag = tail(file)
    if tag:
        yield Span(start, tag.offset - start)
        start = tag.offset + tag.length
    yield Span(start, end - start)
