"""Tags of any size do not fill the memory."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from stonecli.errors import TagError
from stonecli.key import Key
from stonecli.tags import read_tags, write_key
from stonecli.tags.edit.bounded import MAX_TAG_BYTES
from stonecli.tags.formats.ogg import _sealed
from stonecli.tags.track_info import TrackInfo, read_info

TOO_MUCH = MAX_TAG_BYTES + (1 << 20)
Song = Callable[..., Path]


def id3(size: int) -> bytes:
    """The head of an ID3v2.3 tag with one picture, whose ``size`` bytes are to follow."""
    length = size + 10
    return (
        b"ID3\3\0\0" + bytes(length >> shift & 0x7F for shift in (21, 14, 7, 0)) + b"APIC" + struct.pack(">IH", size, 0)
    )


def mp3(content: bytes, size: int) -> list[bytes | int]:
    return [id3(size), size, content]


def wav(content: bytes, size: int) -> list[bytes | int]:
    chunk = id3(size)
    head = b"RIFF" + struct.pack("<I", len(content) + len(chunk) + size) + content[8:]
    return [head, b"id3 " + struct.pack("<I", len(chunk) + size), chunk, size]


def flac(content: bytes, size: int) -> list[bytes | int]:
    count, most = 0, (1 << 24) - 1
    blocks: list[bytes | int] = []
    while count < size:
        blocks += [b"\2" + most.to_bytes(3), most]  # of some application
        count += most
    stream_info = 4 + 4 + 34
    return [content[:4] + bytes([content[4] & 0x7F]) + content[5:stream_info], *blocks, content[stream_info:]]


def m4a(content: bytes, size: int) -> list[bytes | int]:
    """A comment of that many bytes in the only list of items; the atoms before it are unchanged."""
    start = content.index(b"moov") - 4
    moov = content[start : start + int.from_bytes(content[start : start + 4])]
    assert content.endswith(moov)
    old = moov.index(b"udta") - 4
    moov = moov[:old] + moov[old + int.from_bytes(moov[old : old + 4]) :]
    heads = [b"udta", b"meta\0\0\0\0", b"ilst", b"\xa9cmt", b"data" + struct.pack(">II", 1, 0)]
    total = size
    parts: list[bytes] = []
    for head in reversed(heads):
        total += 4 + len(head)
        parts.insert(0, total.to_bytes(4) + head)
    return [content[:start], (len(moov) + total).to_bytes(4) + moov[4:], *parts, size]


def ape(content: bytes, size: int) -> list[bytes | int]:
    item = struct.pack("<II", size, 2) + b"COVER\0"
    end = b"APETAGEX" + struct.pack("<IIII8x", 2000, len(item) + size + 32, 1, 0)
    return [content[: content.index(b"APETAGEX")], item, size, end]


def ogg(content: bytes, size: int) -> list[bytes | int]:
    first = 27 + content[26] + sum(content[27 : 27 + content[26]])
    head = b"OggS\0\0" + bytes(8) + content[14:18]
    pages = [
        _sealed(head + struct.pack("<I", number) + bytes(4) + b"\xff" + b"\xff" * 255, bytes(255 * 255))
        for number in range(1, 3 + size // (255 * 255))
    ]
    return [content[:first], *pages, content[first:]]


MAKERS = {"mp3": mp3, "wav 16 bit": wav, "flac": flac, "m4a aac": m4a, "wavpack": ape, "ogg vorbis": ogg, "opus": ogg}


def written(path: Path, parts: list[bytes | int]) -> Path:
    """The file of these parts; a number is a hole of that many bytes, which takes no space on the disk."""
    with path.open("wb") as file:
        for part in parts:
            if isinstance(part, int):
                file.truncate(file.tell() + part)
                file.seek(part, 1)
            else:
                file.write(part)
    return path


@pytest.mark.parametrize("container", MAKERS)
def test_tags_that_are_too_large_are_refused(song: Song, container: str) -> None:
    path = song(container)
    written(path, MAKERS[container](path.read_bytes(), TOO_MUCH))
    before = path.stat()
    with pytest.raises(TagError, match="larger than 64 MB"):
        read_tags(path)
    with pytest.raises(TagError, match="larger than 64 MB"):
        write_key(path, Key.parse("Am"))
    assert read_info(path) == TrackInfo()
    assert (path.stat().st_mtime_ns, path.stat().st_size) == (before.st_mtime_ns, before.st_size)


@pytest.mark.parametrize("container", ["mp3", "wav 16 bit", "flac", "wavpack"])
def test_large_pictures_are_not_read(song: Song, container: str) -> None:
    path = song(container)
    written(path, MAKERS[container](path.read_bytes(), 4 << 20))
    assert write_key(path, Key.parse("Am"))
    assert read_tags(path).key == Key.parse("Am")


def test_a_size_is_not_believed(song: Song) -> None:
    path = song("mp3")
    path.write_bytes(id3(200 << 20) + path.read_bytes())
    with pytest.raises(TagError, match="nothing follows"):
        write_key(path, Key.parse("Am"))
