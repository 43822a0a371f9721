"""Reads the tags that are not ID3v2 in an MP3, WAV or AIFF file, so that a new ID3v2 tag gets their texts.

Many programs read only the first kind of tag in a file: if the new ID3v2 tag had only the key, they would no longer
find the title in an ID3v1 block. The other tags are only read, and nothing in them is trusted: damaged or overlong
entries are ignored. (mutagen returns the part of a damaged APE tag before the damage, refuses a tag that is not UTF-8,
and reads neither INFO lists nor the text chunks of AIFF.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import BinaryIO, Literal

from stonecli.tags.edit.splice import file_size, read_at
from stonecli.tags.formats.containers import CONTAINERS

_MAX_TEXT = 1 << 16  # bytes
_MAX_ITEMS = 1000  # of an APE tag
_MAX_CHUNKS = 10_000  # of a file or a list
_APE_MAGIC = b"APETAGEX"

_APE = {
    b"title": "TIT2",
    b"artist": "TPE1",
    b"album artist": "TPE2",
    b"album": "TALB",
    b"composer": "TCOM",
    b"year": "TYER",
    b"track": "TRCK",
    b"disc": "TPOS",
    b"genre": "TCON",
    b"bpm": "TBPM",
    b"comment": "COMM",
}
_INFO = {
    b"INAM": "TIT2",
    b"IART": "TPE1",
    b"IPRD": "TALB",
    b"ICRD": "TYER",
    b"ITRK": "TRCK",
    b"IGNR": "TCON",
    b"ICMT": "COMM",
}
_AIFF = {b"NAME": "TIT2", b"AUTH": "TPE1", b"ANNO": "COMM"}
_ORDER = ("TIT2", "TPE1", "TPE2", "TALB", "TCOM", "TYER", "TDAT", "TRCK", "TPOS", "TCON", "TBPM", "COMM")


def other_texts(file: BinaryIO, container: str) -> dict[str, str]:
    """The texts of the tags that are not ID3v2, by the name of the ID3v2.3 frame with that meaning, in frame order.

    Args:
        file: open for reading.
        container: one with ID3v2 tags; its editor module is ``mp3`` or ``iff``.

    Raises:
        OSError: the file cannot be read. Damage raises nothing.
    """
    if CONTAINERS[container].editor_module == "mp3":
        # The APE tag takes precedence, since the ID3v1 block truncates texts.
        texts = _id3v1(file) | _named(_ape_items(file), _APE)
    elif container == "wav":
        texts = _named(_info_items(file), _INFO)
    else:
        texts = _named(_chunk_texts(file, 12, file_size(file), "big", _AIFF), _AIFF)
    return {name: texts[name] for name in _ORDER if name in texts}


def _named(items: Mapping[bytes, bytes], names: Mapping[bytes, str]) -> dict[str, str]:
    texts = {name: text for item, name in names.items() if (text := _decoded(items.get(item, b"")))}
    date = re.match(r"([0-9]{4})(?:-([0-9]{2})-([0-9]{2}))?", texts.pop("TYER", ""))
    if date:
        texts["TYER"] = date[1]
        if date[2]:
            texts["TDAT"] = date[3] + date[2]  # v2.3 has year and day in two frames
    return texts


def _decoded(data: bytes) -> str:
    """The text. Several values are joined by ``/``, the separator of ID3v2.3 for artists."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = data.decode("latin-1")  # old programs wrote the encoding of their system
    return "/".join(filter(None, (part.strip(" \t\r\n\ufeff") for part in text.split("\0"))))


def _id3v1(file: BinaryIO) -> dict[str, str]:
    """The texts of the ID3v1 block at the end of an MP3 file."""
    end = file_size(file)
    block = read_at(file, end - 128, 128) if end >= 128 else b""
    # In a file that ends with the footer of an APE tag, these 3 bytes may belong to APETAGEX, the magic of its header.
    if block[:3] != b"TAG" or block[96:104] == _APE_MAGIC:
        return {}
    fields = {"TIT2": block[3:33], "TPE1": block[33:63], "TALB": block[63:93], "TYER": block[93:97]}
    fields["COMM"] = block[97:127] if block[125] or not block[126] else block[97:125]  # v1.1 has a track number
    texts = {name: field.partition(b"\0")[0].decode("latin-1").strip() for name, field in fields.items()}
    if not re.fullmatch("[0-9]{4}", texts["TYER"]):
        del texts["TYER"]
    if block[126] and not block[125]:
        texts["TRCK"] = str(block[126])
    from mutagen.id3 import TCON  # imported here, because only old files need it

    if block[127] < len(TCON.GENRES):
        texts["TCON"] = TCON.GENRES[block[127]]
    return {name: text for name, text in texts.items() if text}


def _ape_items(file: BinaryIO) -> dict[bytes, bytes]:
    """The texts of the APE tag at the end of a file, or before an ID3v1 block, by name in lower case."""
    size = file_size(file)
    for end in (size, size - 128):
        footer = read_at(file, end - 32, 32) if end >= 32 else b""
        if footer[:8] == _APE_MAGIC:
            break
    else:
        return {}
    version, tag_size, count = (int.from_bytes(footer[at : at + 4], "little") for at in (8, 12, 16))
    at, stop = end - tag_size, end - 32
    if not 0 <= at <= stop or count > _MAX_ITEMS:
        return {}
    items: dict[bytes, bytes] = {}
    for _ in range(count):
        head = read_at(file, at, min(8 + 256, stop - at))
        length, flags = int.from_bytes(head[:4], "little"), int.from_bytes(head[4:8], "little")
        name, zero, _ = head[8:].partition(b"\0")
        start = at + 8 + len(name) + 1
        at = start + length
        if not zero or at > stop:
            return {}
        is_text = version == 1000 or not flags & 6  # the first version has no flags
        if is_text and length <= _MAX_TEXT:
            items.setdefault(name.lower(), read_at(file, start, length))
    return items


def _info_items(file: BinaryIO) -> dict[bytes, bytes]:
    """The texts of the first INFO list of a WAV file, by name."""
    for name, start, length in _chunks(file, 12, file_size(file), "little"):
        if name == b"LIST" and length >= 4 and read_at(file, start, 4) == b"INFO":
            return _chunk_texts(file, start + 4, start + length, "little", _INFO)
    return {}


def _chunk_texts(
    file: BinaryIO, at: int, end: int, order: Literal["little", "big"], names: Mapping[bytes, str]
) -> dict[bytes, bytes]:
    """The text of the first chunk of each of these names, up to its first NUL."""
    texts: dict[bytes, bytes] = {}
    for name, start, length in _chunks(file, at, end, order):
        if name in names and name not in texts and length <= _MAX_TEXT:
            texts[name] = read_at(file, start, length).partition(b"\0")[0]
    return texts


def _chunks(file: BinaryIO, at: int, end: int, order: Literal["little", "big"]) -> Iterator[tuple[bytes, int, int]]:
    """Name, content offset and content length of each chunk between two offsets, up to the first damaged chunk."""
    for _ in range(_MAX_CHUNKS):
        if at + 8 > end:
            return
        header = read_at(file, at, 8)
        length = int.from_bytes(header[4:], order)
        if at + 8 + length > end:
            return
        yield header[:4], at + 8, length
        at += 8 + length + length % 2
