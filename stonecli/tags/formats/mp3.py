"""MP3 files: writes the ID3v2 tag at the start.

An ID3v1 block at the end and an APEv2 tag are not changed, with one exception: some programs read the key from the
APEv2 tag or from a second ID3v2 tag, so a key in one of these is updated as a follower.

A new ID3v2 tag gets the texts of the other tags (:mod:`stonecli.tags.formats.other_tags`).
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
    """Everything after the ID3v2 tags, except an APE tag at the end."""
    start, end = id3v2_end(file), file_size(file)
    tag = tail(file)
    if tag:
        yield Span(start, tag.offset - start)
        start = tag.offset + tag.length
    yield Span(start, end - start)
