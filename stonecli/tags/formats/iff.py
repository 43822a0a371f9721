"""WAV (RIFF, little-endian) and AIFF (FORM, big-endian): writes the ID3v2 tag in a chunk of its own.

A file is only written if its chunks cover all bytes up to the size in its header. Bytes after that stay unchanged,
unless they look like a chunk: then the size is wrong, and the file is refused. A chunk of odd size is followed by a pad
byte, which is counted in the size of the file but not in that of the chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal

from stonecli.errors import TagError
from stonecli.tags.edit.splice import Span, Splice, file_size, read_at
from stonecli.tags.formats.id3 import edit_tag
from stonecli.tags.formats.other_tags import other_texts
from stonecli.tags.formats.sniff import id3v2_length
from stonecli.tags.rules import Changes

_MAX_SIZE = 0xFFFFFFFF
_TAG_NAMES = {"wav": (b"id3 ", b"ID3 "), "aiff": (b"ID3 ",)}
_REQUIRED = {"wav": (b"fmt ", b"data"), "aiff": (b"COMM", b"SSND")}


@dataclass(frozen=True)
class _Chunk:
    name: bytes
    offset: int  # of its header
    size: int  # of its content
    end: int  # after the pad byte, if there is one

    @property
    def content(self) -> int:
        return self.offset + 8


def splices(file: BinaryIO, container: str, changes: Changes) -> list[Splice]:
    """The splices that make the changes.

    Raises:
        TagError: the chunks do not cover the whole file, or the tag cannot be changed without loss.
    """
    chunks, size = _chunks(file, container)
    order = _order(container)
    tag = next((chunk for chunk in chunks if chunk.name in _TAG_NAMES[container]), None)
    others = other_texts(file, container)
    if tag is None:
        new = edit_tag(b"", changes, others)
        pad = b"\0" * (size % 2)  # the last chunk is odd and lacks its pad byte
        change = Splice(size, 0, pad + _chunk(_TAG_NAMES[container][0], new, order) if new else b"")
    else:
        content = read_at(file, tag.content, tag.size)
        length = id3v2_length(content)
        if content[length:].strip(b"\0"):
            raise TagError("the ID3 chunk contains other data")
        new = edit_tag(content[:length], changes, others)
        if len(new) == length:
            return [Splice(tag.content, length, new)]
        change = Splice(tag.offset, tag.end - tag.offset, _chunk(tag.name, new, order) if new else b"")
    new_size = size - change.length + len(change.data)
    if new_size - 8 > _MAX_SIZE:
        raise TagError("the file would grow over 4 GiB")
    return [Splice(4, 4, (new_size - 8).to_bytes(4, order)), change]


def payload(file: BinaryIO, container: str) -> Iterator[bytes | Span]:
    """Every chunk except the tag, and the bytes after the last one.

    Raises:
        TagError: the chunks do not cover the whole file.
    """
    yield read_at(file, 8, 4)
    chunks, end = _chunks(file, container)
    for chunk in chunks:
        if chunk.name not in _TAG_NAMES[container]:
            yield chunk.name
            yield Span(chunk.content, chunk.size)
    if end < file_size(file):
        yield Span(end, file_size(file) - end)


def _chunks(file: BinaryIO, container: str) -> tuple[list[_Chunk], int]:
    """The chunks, and the end offset of the last one."""
    order = _order(container)
    size = file_size(file)
    end = 8 + int.from_bytes(read_at(file, 4, 4), order)
    if end > size or _is_chunk(file, end, order):
        raise TagError("the size in the header is not the size of the file")
    if not (end % 2 and end + 1 == size):  # some writers do not count the pad byte of the last chunk
        size = end
    chunks = []
    at = 12
    while at < end:
        header = read_at(file, at, 8)
        name, length = header[:4], int.from_bytes(header[4:], order)
        if not all(0x20 <= byte <= 0x7E for byte in name):
            raise TagError("unexpected data after a chunk")
        if at + 8 + length > size:
            raise TagError("a chunk is larger than the file")
        next_at = min(at + 8 + length + length % 2, size)
        chunks.append(_Chunk(name, at, length, next_at))
        at = next_at
    if at != size:
        raise TagError("the chunks do not cover the whole file")
    names = [chunk.name for chunk in chunks]
    if any(names.count(name) != 1 for name in _REQUIRED[container]):
        raise TagError("a required chunk is missing or duplicated")
    if sum(name in _TAG_NAMES[container] for name in names) > 1:
        raise TagError("there is more than one ID3 chunk")
    return chunks, size


def _is_chunk(file: BinaryIO, at: int, order: Literal["little", "big"]) -> bool:
    """Whether there seems to be a whole chunk at ``at``, or one byte later after a pad byte."""
    size = file_size(file)
    for start in (at, at + 1):
        if start + 8 <= size:
            header = read_at(file, start, 8)
            is_named = all(0x20 <= byte <= 0x7E for byte in header[:4])
            if is_named and start + 8 + int.from_bytes(header[4:], order) <= size:
                return True
    return False


def _order(container: str) -> Literal["little", "big"]:
    return "little" if container == "wav" else "big"


def _chunk(name: bytes, content: bytes, order: Literal["little", "big"]) -> bytes:
    return name + len(content).to_bytes(4, order) + content + b"\0" * (len(content) % 2)
