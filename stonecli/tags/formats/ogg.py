"""Ogg Vorbis, Opus, Ogg FLAC and Speex: writes the comment packet, the second one of the first stream; see RFC 3533.

If the new packet is as long as the old one, or its padding can be adjusted, the layout of the pages does not change.
Otherwise the packets are divided into pages again, and if the number of pages changes, all later pages of the stream
get a new sequence number and checksum.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from stonecli.errors import TagError
from stonecli.tags.edit.splice import Span, Splice, contains, file_size, read_at
from stonecli.tags.formats.vorbis import edit_comments
from stonecli.tags.rules import Changes

_PREFIX = {"ogg vorbis": b"\x03vorbis", "opus": b"OpusTags", "ogg flac": b"\x04", "speex": b""}
_CONTINUED, _FIRST, _LAST = 1, 2, 4  # flags of a page
_UNFINISHED = b"\xff" * 8  # position of a page on which no packet ends
_NEW_PADDING = 512  # bytes
_BIT_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True)
class _Page:
    offset: int
    head: bytes  # 27 bytes and the segment table
    data: bytes

    @property
    def flags(self) -> int:
        return self.head[5]

    @property
    def position(self) -> bytes:
        return self.head[6:14]

    @property
    def serial(self) -> bytes:
        return self.head[14:18]

    @property
    def number(self) -> int:
        return int.from_bytes(self.head[18:22], "little")

    @property
    def segments(self) -> bytes:
        return self.head[27:]

    @property
    def length(self) -> int:
        return len(self.head) + len(self.data)


def splices(file: BinaryIO, container: str, changes: Changes) -> list[Splice]:
    """The splices that make the changes.

    Raises:
        TagError: a page is damaged or truncated, or the second packet is not the comments.
    """
    pages = _comment_pages(file)
    packets = _packets(pages)
    new_packet = _edit_packet(packets[0], container, changes)
    if len(new_packet) == len(packets[0]):
        data = b"".join([new_packet, *packets[1:]])
        result = []
        for page in pages:
            part, data = data[: len(page.data)], data[len(page.data) :]
            result.append(Splice(page.offset, page.length, _sealed(page.head, part)))
        return result
    new_pages = _lay_out([new_packet, *packets[1:]], pages)
    result = [Splice(pages[0].offset, pages[0].length, b"".join(new_pages))]
    result += [Splice(page.offset, page.length, b"") for page in pages[1:]]
    added = len(new_pages) - len(pages)
    if added:
        result += _renumbered(file, pages[-1], added)
    return result


def payload(file: BinaryIO, container: str) -> Iterator[bytes | Span]:
    """Every packet except the comments, and the page layout of all pages after the header packets.

    Raises:
        TagError: a page is damaged or truncated.
    """
    comment_pages = _comment_pages(file)
    skipped = {page.offset for page in comment_pages}
    yield from _packets(comment_pages)[1:]
    end = 0
    for page in _pages(file, 0):
        end = page.offset + page.length
        if page.offset not in skipped:
            yield page.head[4:18] + page.head[26:]  # without sequence number and checksum
            yield page.data
    if end < file_size(file):
        yield Span(end, file_size(file) - end)


def _pages(file: BinaryIO, at: int) -> Iterator[_Page]:
    """The pages from ``at`` to the last one, with verified checksums; bytes after the last stream are ignored.

    Raises:
        TagError: a page is damaged or truncated, or there are other data between pages.
    """
    size = file_size(file)
    is_at_end = False
    while at < size:
        if read_at(file, at, min(5, size - at)) != b"OggS\0":
            if is_at_end and not contains(file, at, b"OggS"):
                return
            raise TagError("unexpected data after an Ogg page")
        head = read_at(file, at, 27)
        head += read_at(file, at + 27, head[26])
        page = _Page(at, head, read_at(file, at + len(head), sum(head[27:])))
        if _sealed(head, page.data) != head + page.data:
            raise TagError("an Ogg page fails its checksum")
        is_at_end = page.flags & _LAST != 0
        yield page
        at += page.length


def _comment_pages(file: BinaryIO) -> list[_Page]:
    """The pages of the first stream from the start of the comment packet to the next page that ends with a packet."""
    all_pages = _pages(file, 0)
    first = next(all_pages, None)
    if first is None or not first.flags & _FIRST or first.segments.count(255) or len(first.segments) != 1:
        raise TagError("the first Ogg page does not contain exactly the first packet")
    found: list[_Page] = []
    for page in all_pages:
        if page.serial != first.serial:
            continue
        if bool(page.flags & _CONTINUED) != bool(found) or not page.segments:
            raise TagError("an Ogg packet is interrupted")
        if page.position not in (bytes(8), _UNFINISHED):
            raise TagError("audio shares a page with the Ogg comments")
        found.append(page)
        if page.segments[-1] < 255:
            return found
    raise TagError("the Ogg comments are truncated")


def _packets(pages: list[_Page]) -> list[bytes]:
    packets = []
    packet = bytearray()
    for page in pages:
        at = 0
        for length in page.segments:
            packet += page.data[at : at + length]
            at += length
            if length < 255:
                packets.append(bytes(packet))
                packet.clear()
    return packets


def _edit_packet(packet: bytes, container: str, changes: Changes) -> bytes:
    prefix = _PREFIX[container]
    if container == "ogg flac":
        if len(packet) < 4 or packet[0] & 0x7F != 4 or int.from_bytes(packet[1:4]) != len(packet) - 4:
            raise TagError("the second Ogg packet is not the comments")
        comments, rest = edit_comments(packet[4:], changes)
        if len(comments) + len(rest) >= 1 << 24:
            raise TagError("the comment block is full")
        return packet[:1] + (len(comments) + len(rest)).to_bytes(3) + comments + rest
    if not packet.startswith(prefix):
        raise TagError("the second Ogg packet is not the comments")
    comments, rest = edit_comments(packet[len(prefix) :], changes)
    if container == "speex" or (container == "opus" and rest and rest[0] & 1):
        return prefix + comments + rest  # the rest is data, not padding
    remaining = rest[:1] if container == "ogg vorbis" else b""  # the framing bit
    if rest[len(remaining) :].strip(b"\0"):
        return prefix + comments + rest
    left = len(packet) - len(prefix) - len(comments) - len(remaining)
    return prefix + comments + remaining + bytes(left if left >= 0 else _NEW_PADDING)


def _lay_out(packets: list[bytes], old: list[_Page]) -> list[bytes]:
    """The packets on as few pages as possible, with sequence numbers from that of the first old page on."""
    segments: list[tuple[int, bytes]] = []
    for packet in packets:
        segments += [(255, packet[at : at + 255]) for at in range(0, len(packet) - 254, 255)]
        segments.append((len(packet) % 255, packet[len(packet) - len(packet) % 255 :]))
    pages: list[bytes] = []
    continued = False
    for start in range(0, len(segments), 255):
        part = segments[start : start + 255]
        number = old[0].number + len(pages)
        lengths = bytes(length for length, _ in part)
        flags = old[0].flags & ~(_CONTINUED | _FIRST) | (_CONTINUED if continued else 0)
        position = bytes(8) if min(lengths) < 255 else _UNFINISHED
        head = b"OggS\0" + bytes([flags]) + position + old[0].serial
        head += (number & 0xFFFFFFFF).to_bytes(4, "little") + bytes(4) + bytes([len(lengths)]) + lengths
        pages.append(_sealed(head, b"".join(data for _, data in part)))
        continued = lengths[-1] == 255
    return pages


def _renumbered(file: BinaryIO, last: _Page, added: int) -> Iterator[Splice]:
    """The splices for new sequence numbers and checksums of the later pages of the stream, but not of a chained one."""
    for page in _pages(file, last.offset + last.length):
        if page.serial != last.serial:
            continue
        if page.flags & _FIRST:
            return
        number = (page.number + added & 0xFFFFFFFF).to_bytes(4, "little")
        yield Splice(page.offset + 18, 8, _sealed(page.head[:18] + number + page.head[22:], page.data)[18:26])


def _sealed(head: bytes, data: bytes) -> bytes:
    """The page with its checksum: CRC-32 with polynomial 0x04c11db7, not reflected, without inversion."""
    page = head[:22] + bytes(4) + head[26:] + data
    # zlib has the reflected CRC: reverse the bits of all bytes, and undo its inversions.
    crc = zlib.crc32(page.translate(_BIT_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return head[:22] + int(f"{crc:032b}"[::-1], 2).to_bytes(4, "little") + head[26:] + data
