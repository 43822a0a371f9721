"""APEv2 tags at the end of WavPack, Musepack and Monkey's Audio files; an ID3v1 block after the tag stays unchanged.

A key in an ID3v2 tag in front, which some programs read, is updated as a follower. In an MP3, the roles are reversed:
stone writes the ID3v2 tag, and a key in the APE tag is a follower.

See https://wiki.hydrogenaud.io/index.php?title=APEv2_specification.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from stonecli.errors import TagError
from stonecli.tags.edit.bounded import MAX_TAG_BYTES
from stonecli.tags.edit.splice import Span, Splice, contains, file_size, read_at
from stonecli.tags.fields import checked_utf8, followed
from stonecli.tags.formats.id3 import following
from stonecli.tags.formats.sniff import id3v2_end, id3v2_spans
from stonecli.tags.rules import Changes

_MAGIC = b"APETAGEX"
_HAS_HEADER, _IS_HEADER = 1 << 31, 1 << 29
_TEXT_KIND, _KIND = 0, 6  # the kind bits of an item's flags
_MAX_TAG = 1 << 28  # bytes
_KEY, _FOLLOWER = b"initialkey", b"key"


@dataclass
class _Item:
    flags: int
    name: bytes
    value: bytes

    @property
    def raw(self) -> bytes:
        return len(self.value).to_bytes(4, "little") + self.flags.to_bytes(4, "little") + self.name + b"\0" + self.value


@dataclass
class _Tag:
    offset: int
    length: int
    version: bytes
    flags: int
    items: list[_Item]


def splices(file: BinaryIO, container: str, changes: Changes) -> list[Splice]:
    """The splices that make the changes.

    Raises:
        TagError: the audio or the tag is truncated or damaged.
    """
    tag = _find(file)
    _check_audio(file, container, tag.offset)
    old_key = next((item.value.decode("utf-8", "replace") for item in tag.items if item.name.lower() == _KEY), None)
    front = following(file, id3v2_spans(file), changes, old_key)
    for field, text in changes.items():
        if field == "key":
            _set_key(tag, text, old_key)
        else:
            _set(tag, field.encode(), text)
    return [*front, Splice(tag.offset, tag.length, _render(tag))]


def tail(file: BinaryIO) -> Span | None:
    """The span of the APE tag at the end of an MP3; None if there is none that can be changed."""
    tag = _tail(file)
    return Span(tag.offset, tag.length) if tag else None


def tail_texts(file: BinaryIO) -> dict[str, tuple[str, ...]]:
    """The texts of ``initialkey``, ``key`` and ``bpm`` in the APE tag at the end of an MP3, by these names."""
    tag = _tail(file)
    texts: dict[bytes, list[str]] = {_KEY: [], _FOLLOWER: [], b"bpm": []}
    for item in tag.items if tag else ():
        if item.name.lower() in texts and item.flags & _KIND == _TEXT_KIND:
            texts[item.name.lower()] += item.value.decode("utf-8", "replace").split("\0")
    return {name.decode(): tuple(values) for name, values in texts.items()}


def follow_tail(file: BinaryIO, changes: Changes, written: str | None) -> list[Splice]:
    """The splice that updates the keys in the APE tag of an MP3, as followers of a key field that was ``written``."""
    tag = _tail(file)
    if tag is None or "key" not in changes:
        return []
    old = tag.items
    tag.items = _followed(old, (_KEY, _FOLLOWER), changes["key"], written)
    return [] if tag.items == old else [Splice(tag.offset, tag.length, _render(tag))]


def _tail(file: BinaryIO) -> _Tag | None:
    try:
        tag = _find(file, MAX_TAG_BYTES)
    except TagError:
        return None
    return tag if tag.length and tag.offset >= id3v2_end(file) else None


def payload(file: BinaryIO, container: str) -> Iterator[bytes | Span]:
    """Everything before and after the tag, without ID3v2 tags in front.

    Raises:
        TagError: the tag is damaged.
    """
    tag = _find(file)
    start = id3v2_end(file)
    yield Span(start, tag.offset - start)
    end = tag.offset + tag.length
    yield Span(end, file_size(file) - end)


def _render(tag: _Tag) -> bytes:
    """The tag as bytes; ``b""`` without items."""
    body = b"".join(item.raw for item in tag.items)
    if len(body) > _MAX_TAG:
        raise TagError("the APE tag is full")
    if not tag.items:
        return b""
    header = _end(tag, body, _IS_HEADER) if tag.flags & _HAS_HEADER else b""
    return header + body + _end(tag, body, 0)


def _set(tag: _Tag, name: bytes, text: str | None) -> None:
    """Set the first value of the item with this name, ignoring case; its other values stay."""
    index = next((index for index, item in enumerate(tag.items) if item.name.lower() == name), None)
    if index is None:
        if text is not None:
            new_name = name.upper() if name == b"bpm" else name.title()
            tag.items.append(_Item(_TEXT_KIND, new_name, text.encode()))
        return
    item = tag.items[index]
    if item.flags & _KIND != _TEXT_KIND:
        raise TagError("a text item of the APE tag is not text")
    values = item.value.split(b"\0")
    checked_utf8(values[0])
    left = [*([] if text is None else [text.encode()]), *values[1:]]
    if left:
        tag.items[index] = _Item(item.flags & ~_KIND, item.name, b"\0".join(left))
    else:
        del tag.items[index]


def _set_key(tag: _Tag, text: str | None, old_key: str | None) -> None:
    """Replace all key items by one, at the position of the first; None removes all. ``KEY`` is a follower."""
    items: list[_Item] = []
    written = False
    for item in _followed(tag.items, (_FOLLOWER,), text, old_key):
        if item.name.lower() != _KEY:
            items.append(item)
        elif text is not None and not written:
            items.append(_Item(item.flags & ~_KIND, item.name, text.encode()))
            written = True
    if text is not None and not written:
        items.append(_Item(_TEXT_KIND, b"INITIALKEY", text.encode()))
    tag.items = items


def _followed(items: list[_Item], names: tuple[bytes, ...], text: str | None, old_key: str | None) -> list[_Item]:
    result = []
    for item in items:
        if item.name.lower() not in names or item.flags & _KIND != _TEXT_KIND:
            result.append(item)
            continue
        values = item.value.decode("utf-8", "replace").split("\0")
        new = followed(values, text, old_key)
        if new:
            result.append(item if new == values else _Item(item.flags, item.name, "\0".join(new).encode()))
    return result


def _find(file: BinaryIO, limit: int = _MAX_TAG) -> _Tag:
    """The tag at the end of the file, up to ``limit`` bytes; an empty one at the right offset if there is none."""
    end = file_size(file)
    # Look for the footer first: in a tag of a certain length, the letters TAG of APETAGEX are where an ID3v1 block has
    # its magic.
    bare = end >= 32 and read_at(file, end - 32, 8) == _MAGIC
    if not bare and end >= 128 and read_at(file, end - 128, 3) == b"TAG":
        end -= 128
    if end >= 9 and read_at(file, end - 9, 9) == b"LYRICS200":
        raise TagError("lyrics blocks (Lyrics3) are not supported in this kind of file")
    if end < 32 or read_at(file, end - 32, 8) != _MAGIC:
        return _Tag(end, 0, (2000).to_bytes(4, "little"), _HAS_HEADER, [])
    footer = read_at(file, end - 32, 32)
    version, flags = footer[8:12], int.from_bytes(footer[20:24], "little")
    size, count = int.from_bytes(footer[12:16], "little"), int.from_bytes(footer[16:20], "little")
    start = end - size
    if int.from_bytes(version, "little") not in (1000, 2000) or not 32 <= size <= min(end, limit):
        raise TagError("the APE tag is damaged; save its tags with another program first")
    body = read_at(file, start, size - 32)
    if flags & _HAS_HEADER:
        start -= 32
        if start < 0 or read_at(file, start, 8) != _MAGIC:
            raise TagError("the APE tag is damaged; save its tags with another program first")
    if int.from_bytes(version, "little") == 1000:
        flags = 0  # version 1 has no header, and no flags
    if start >= 32 and read_at(file, start - 32, 8) == _MAGIC:
        raise TagError("there is more than one APE tag")
    return _Tag(start, end - start, version, flags & _HAS_HEADER, _items(body, count))


def _items(body: bytes, count: int) -> list[_Item]:
    items = []
    at = 0
    while at < len(body):
        length, flags = int.from_bytes(body[at : at + 4], "little"), int.from_bytes(body[at + 4 : at + 8], "little")
        zero = body.find(b"\0", at + 8)
        if zero < at + 10 or zero + 1 + length > len(body):
            raise TagError("the items of the APE tag are inconsistent")
        items.append(_Item(flags, body[at + 8 : zero], body[zero + 1 : zero + 1 + length]))
        at = zero + 1 + length
    if len(items) != count:
        raise TagError("the items of the APE tag are inconsistent")
    return items


def _end(tag: _Tag, body: bytes, kind: int) -> bytes:
    """The 32 bytes before (``_IS_HEADER``) or after the items."""
    numbers = (len(body) + 32, len(tag.items), tag.flags | kind)
    return _MAGIC + tag.version + b"".join(number.to_bytes(4, "little") for number in numbers) + bytes(8)


def _check_audio(file: BinaryIO, container: str, end: int) -> None:
    """Raise an error if a WavPack file is truncated or damaged; bytes after the last block are allowed.

    The audio of the other formats cannot be checked this way.

    Raises:
        TagError: a block is truncated, or there are other data between blocks.
    """
    if container != "wavpack":
        return
    at = start = id3v2_end(file)
    while at < end:
        header = read_at(file, at, min(8, end - at))
        if len(header) < 8 or header[:4] != b"wvpk":
            if at > start and not contains(file, at, b"wvpk"):
                return
            raise TagError("unexpected data after a WavPack block")
        at += 8 + int.from_bytes(header[4:8], "little")
    if at != end:
        raise TagError("the file is truncated")
