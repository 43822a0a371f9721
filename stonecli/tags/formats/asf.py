"""ASF (WMA): writes the two description objects in the header; see the ASF specification, section 3."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO
from uuid import UUID

from stonecli.errors import TagError
from stonecli.tags.edit.splice import Span, Splice, file_size, read_at
from stonecli.tags.fields import followed
from stonecli.tags.rules import Changes, Field

_HEADER = UUID("75B22630-668E-11CF-A6D9-00AA0062CE6C").bytes_le
_DATA = UUID("75B22636-668E-11CF-A6D9-00AA0062CE6C").bytes_le
_DESCRIPTION = UUID("75B22633-668E-11CF-A6D9-00AA0062CE6C").bytes_le
_EXTENDED = UUID("D2D0A440-E307-11D2-97F0-00A0C95EA850").bytes_le
_EXTENSION = UUID("5FBF03B5-A92E-11CF-8EE3-00C00C205365").bytes_le
_FILE_PROPERTIES = UUID("8CABDCA1-A947-11CF-8EE4-00C00C205365").bytes_le
_PADDING = UUID("1806D474-CADF-4509-A4BA-9AABCB96AAE8").bytes_le
_NEW_PADDING = 1024  # bytes
_MAX_HEADER = 1 << 28  # bytes
_TEXT = 0  # type of an attribute
_DESCRIPTION_INDEX = {
    "title": 0,
    "comment": 3,
}  # in the description object: title, author, copyright, description, rating
_NAMES: dict[Field, str] = {
    "key": "WM/InitialKey",
    "grouping": "WM/ContentGroupDescription",
    "bpm": "WM/BeatsPerMinute",
}
_FOLLOWER = "initialkey"


@dataclass
class _Object:
    guid: bytes
    content: bytes

    @property
    def raw(self) -> bytes:
        return self.guid + (24 + len(self.content)).to_bytes(8, "little") + self.content


def splices(file: BinaryIO, container: str, changes: Changes) -> list[Splice]:
    """The splices that make the changes; they use the padding if it is large enough.

    Raises:
        TagError: the objects do not cover the whole file, or a description is damaged.
    """
    length, reserved, objects = _header(file)
    _check_objects(file, length)
    for field, text in changes.items():
        if field in _DESCRIPTION_INDEX:
            _set_description(objects, _DESCRIPTION_INDEX[field], text)
        else:
            if field == "key":
                _refuse_other_keys(objects)
                _follow_attribute(objects, text)
            _set_attribute(objects, _NAMES[field], text)
    padding = next((index for index, item in enumerate(objects) if item.guid == _PADDING), None)
    if padding is None:
        padding = len(objects)
        objects.append(_Object(_PADDING, b""))
    used = 30 + sum(len(item.raw) for index, item in enumerate(objects) if index != padding)
    room = length - used - 24
    objects[padding] = _Object(_PADDING, bytes(room if room >= 0 else _NEW_PADDING))
    growth = used + len(objects[padding].raw) - length
    _set_file_size(objects, file_size(file), growth)
    body = b"".join(item.raw for item in objects)
    numbers = (30 + len(body)).to_bytes(8, "little") + len(objects).to_bytes(4, "little")
    return [Splice(0, length, _HEADER + numbers + reserved + body)]


def payload(file: BinaryIO, container: str) -> Iterator[bytes | Span]:
    """Everything after the header.

    Raises:
        TagError: the objects do not cover the whole file.
    """
    length, _, _ = _header(file)
    _check_objects(file, length)
    yield Span(length, file_size(file) - length)


def _header(file: BinaryIO) -> tuple[int, bytes, list[_Object]]:
    """Length of the header in bytes, its two reserved bytes, and the objects in it."""
    start = read_at(file, 0, 30)
    length, count = int.from_bytes(start[16:24], "little"), int.from_bytes(start[24:28], "little")
    if not 30 <= length <= min(file_size(file), _MAX_HEADER):
        raise TagError("the ASF header is inconsistent")
    data = read_at(file, 0, length)
    objects = []
    at = 30
    while at < length:
        size = int.from_bytes(data[at + 16 : at + 24], "little")
        if at + 24 > length or size < 24 or at + size > length:
            raise TagError("the ASF header is inconsistent")
        objects.append(_Object(data[at : at + 16], data[at + 24 : at + size]))
        at += size
    if len(objects) != count:
        raise TagError("the ASF header is inconsistent")
    return length, start[28:30], objects


def _check_objects(file: BinaryIO, at: int) -> None:
    """Raise an error if the audio is missing or truncated. Indexes and other data may follow it.

    Raises:
        TagError: the audio is missing or truncated.
    """
    if read_at(file, at, 16) != _DATA:
        raise TagError("no audio follows the ASF header")
    length = int.from_bytes(read_at(file, at + 16, 8), "little")
    if length < 24 or at + length > file_size(file):
        raise TagError("the audio is truncated")


def _set_description(objects: list[_Object], index: int, text: str | None) -> None:
    item = _only(objects, _DESCRIPTION, new=bytes(10))
    lengths = [int.from_bytes(item.content[at : at + 2], "little") for at in range(0, 10, 2)]
    texts = []
    at = 10
    for length in lengths:
        texts.append(item.content[at : at + length])
        at += length
    if at != len(item.content):
        raise TagError("the ASF description is damaged")
    texts[index].decode("utf-16-le")
    texts[index] = b"" if text is None else _zero_ended(text)
    item.content = b"".join(len(text).to_bytes(2, "little") for text in texts) + b"".join(texts)


def _set_attribute(objects: list[_Object], name: str, text: str | None) -> None:
    """Set the first attribute of this name. Its duplicates are removed for the key, and stay for other fields."""
    item = _only(objects, _EXTENDED, new=bytes(2))
    records = _records(item.content)
    indices = [index for index, (title, _, _) in enumerate(records) if title.lower() == name.lower()]
    if name != _NAMES["key"]:
        indices = indices[:1]
        if indices and records[indices[0]][1] != _TEXT:
            raise TagError("a text attribute of the ASF header is not text")
    first = indices[0] if indices else len(records)
    remaining = [record for index, (_, _, record) in enumerate(records) if index not in indices]
    if text is not None:
        remaining.insert(first, _record(name, text))
    item.content = _serialize(remaining)


def _follow_attribute(objects: list[_Object], text: str | None) -> None:
    """Update the keys in attributes named ``INITIALKEY``, which are followers."""
    item = _only(objects, _EXTENDED, new=bytes(2))
    records = _records(item.content)
    written = next((_text(record) for name, _, record in records if name.lower() == _NAMES["key"].lower()), None)
    remaining = []
    for name, kind, record in records:
        if name.lower() == _FOLLOWER and kind == _TEXT:
            values = [_text(record)]
            new = followed(values, text, written)
            remaining += [record] if new == values else [_record(name, value) for value in new]
        else:
            remaining.append(record)
    item.content = _serialize(remaining)


def _refuse_other_keys(objects: list[_Object]) -> None:
    """Raise an error if there is a key in an object that stone does not write.

    Raises:
        TagError: there is one in the metadata library within the header extension.
    """
    for item in objects:
        if item.guid == _EXTENSION:
            upper = (
                item.content.decode("utf-16-le", "replace").upper(),
                item.content[1:].decode("utf-16-le", "replace").upper(),
            )
            if any("INITIALKEY" in text for text in upper):
                raise TagError("the key is in the metadata library of the WMA file, which stone does not write")


def _record(name: str, text: str) -> bytes:
    title, value = _zero_ended(name), _zero_ended(text)
    return len(title).to_bytes(2, "little") + title + bytes(2) + len(value).to_bytes(2, "little") + value


def _text(record: bytes) -> str:
    return record[6 + int.from_bytes(record[:2], "little") :].decode("utf-16-le", "replace").strip("\0")


def _serialize(records: list[bytes]) -> bytes:
    return len(records).to_bytes(2, "little") + b"".join(records)


def _records(content: bytes) -> list[tuple[str, int, bytes]]:
    """Name, type and raw bytes of each attribute."""
    records = []
    at = 2
    while at < len(content):
        name_end = at + 2 + int.from_bytes(content[at : at + 2], "little")
        end = name_end + 4 + int.from_bytes(content[name_end + 2 : name_end + 4], "little")
        if end > len(content):
            raise TagError("the attributes of the ASF header are inconsistent")
        name = content[at + 2 : name_end].decode("utf-16-le").strip("\0")
        records.append((name, int.from_bytes(content[name_end : name_end + 2], "little"), content[at:end]))
        at = end
    if len(records) != int.from_bytes(content[:2], "little"):
        raise TagError("the attributes of the ASF header are inconsistent")
    return records


def _only(objects: list[_Object], guid: bytes, new: bytes) -> _Object:
    found = [item for item in objects if item.guid == guid]
    if len(found) > 1:
        raise TagError("an object of the ASF header is duplicated")
    if not found:
        found = [_Object(guid, new)]
        objects.append(found[0])
    return found[0]


def _set_file_size(objects: list[_Object], old: int, growth: int) -> None:
    """Update the file size in the file properties, if it was correct."""
    for item in objects:
        if item.guid == _FILE_PROPERTIES and int.from_bytes(item.content[16:24], "little") == old:
            item.content = item.content[:16] + (old + growth).to_bytes(8, "little") + item.content[24:]


def _zero_ended(text: str) -> bytes:
    data = text.encode("utf-16-le") + bytes(2)
    if len(data) > 0xFFFF:
        raise TagError("the text is too long for an ASF field")
    return data
