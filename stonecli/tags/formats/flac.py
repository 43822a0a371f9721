"""FLAC: writes the first comment block among the metadata blocks; see RFC 9639, section 8.

Some files have a second comment block, or an ID3v2 tag in front, and some programs read those. A key in one of these is
updated as a follower.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from stonecli.errors import TagError
from stonecli.tags.edit.splice import Span, Splice, file_size, read_at
from stonecli.tags.formats.id3 import following
from stonecli.tags.formats.sniff import id3v2_end, id3v2_spans
from stonecli.tags.formats.vorbis import edit_comments, follow_comments, key_in
from stonecli.tags.rules import Changes

_PADDING, _COMMENTS = 1, 4
_NEW_PADDING = 1024  # bytes
_MAX_BLOCK = (1 << 24) - 1
_EMPTY_COMMENTS = (5).to_bytes(4, "little") + b"stone" + bytes(4)


def splices(file: BinaryIO, container: str, changes: Changes) -> list[Splice]:
    """The splices that make the changes; they use the padding if it is large enough.

    Raises:
        TagError: the blocks do not lead to the audio, or the comments are damaged.
    """
    start, end, blocks = _blocks(file)
    result: list[tuple[int, bytes]] = []
    commented = False
    old_key = None
    for kind, span in blocks:
        content = read_at(file, span.offset, span.length)
        if kind == _COMMENTS and not commented:
            old_key = key_in(content)
            content, rest = edit_comments(content, changes)
            if rest.strip(b"\0"):
                raise TagError("the comment block contains other data")
            commented = True
        elif kind == _COMMENTS and "key" in changes:
            content = follow_comments(content, changes["key"], old_key)
        result.append((kind, content))
    if not commented:
        result.insert(1, (_COMMENTS, edit_comments(_EMPTY_COMMENTS, changes)[0]))
    new = Splice(start, end - start, _render(result, room=end - start))
    return [*following(file, id3v2_spans(file), changes, old_key), new]


def payload(file: BinaryIO, container: str) -> Iterator[bytes | Span]:
    """The audio frames and every block except comments and padding; without ID3 tags in front.

    Raises:
        TagError: the blocks do not lead to the audio.
    """
    start, end, blocks = _blocks(file)
    yield Span(start - 4, 4)
    for kind, span in blocks:
        if kind not in (_PADDING, _COMMENTS):
            yield bytes([kind])
            yield span
    yield Span(end, file_size(file) - end)


def _blocks(file: BinaryIO) -> tuple[int, int, list[tuple[int, Span]]]:
    """Start and end offset of the blocks, and kind and content span of each block."""
    start = id3v2_end(file) + 4
    blocks = []
    at = start
    last = False
    while not last:
        header = read_at(file, at, 4)
        last, kind, length = bool(header[0] & 0x80), header[0] & 0x7F, int.from_bytes(header[1:])
        blocks.append((kind, Span(at + 4, length)))
        at += 4 + length
    if blocks[0][0] != 0 or blocks[0][1].length != 34:
        raise TagError("the first FLAC block is not STREAMINFO")
    # After a block with a wrong size, as some programs write for pictures over 16 MiB, no frame follows.
    sync = read_at(file, at, 2)
    if sync[0] != 0xFF or sync[1] & 0xFE != 0xF8:
        raise TagError("the FLAC blocks do not lead to the audio")
    return start, at, blocks


def _render(blocks: list[tuple[int, bytes]], room: int) -> bytes:
    """The blocks as bytes, ``room`` bytes long if the size of the largest padding block can be adjusted accordingly."""
    paddings = [index for index, (kind, _) in enumerate(blocks) if kind == _PADDING]
    index = max(paddings, key=lambda index: len(blocks[index][1]), default=len(blocks))
    others = sum(4 + len(content) for at, (_, content) in enumerate(blocks) if at != index)
    left = room - others
    if left == 0:
        blocks = blocks[:index] + blocks[index + 1 :]
    else:
        length = left - 4 if 0 <= left - 4 <= _MAX_BLOCK else _NEW_PADDING
        blocks = [*blocks[:index], (_PADDING, bytes(length)), *blocks[index + 1 :]]
    data = bytearray()
    for at, (kind, content) in enumerate(blocks):
        if len(content) > _MAX_BLOCK:
            raise TagError("the comment block is full")
        flag = 0x80 if at == len(blocks) - 1 else 0
        data += bytes([flag | kind]) + len(content).to_bytes(3) + content
    return bytes(data)
