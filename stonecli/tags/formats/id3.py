"""ID3v2 tags as bytes: key, comment, grouping, title and tempo can be set, and every other frame stays unchanged.

The version of a tag does not change, not even v2.2 (its key frame is ``TKE``): nothing is converted, so nothing can be
lost. A new tag is v2.3, and starts with the texts of the file's other tags, since many programs that find an ID3v2 tag
ignore the others. See https://id3.org/id3v2-00, id3v2.3.0 and id3v2.4.0-structure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import BinaryIO

from stonecli.errors import TagError
from stonecli.tags.edit.splice import Span, Splice, read_at
from stonecli.tags.fields import followed
from stonecli.tags.formats.sniff import id3v2_length
from stonecli.tags.rules import Changes, Field

PADDING = 1024  # bytes; added when a tag has to grow, so that the next change fits

_V22_NAMES = {
    b"TKEY": b"TKE",
    b"COMM": b"COM",
    b"TIT1": b"TT1",
    b"TIT2": b"TT2",
    b"TBPM": b"TBP",
    b"GRP1": b"GP1",
    b"TXXX": b"TXX",
}
_TEXT_FRAMES: dict[Field, bytes] = {"title": b"TIT2", "bpm": b"TBPM"}
_FOLLOWERS = ("INITIALKEY", "KEY")  # descriptions of TXXX frames
_FRAME_ID = re.compile(rb"[A-Z0-9]{3}[A-Z0-9 \0]?")  # some programs write v2.2 names to v2.3 tags
_ENCODINGS = ("latin-1", "utf-16", "utf-16-be", "utf-8")
_UNSYNCHRONISED, _EXTENDED, _FOOTER = 0x80, 0x40, 0x10  # flags of the tag's header
_FRAME_UNSYNCHRONISED, _FRAME_DATA_LENGTH = 0x02, 0x01  # flags of a v2.4 frame
_FRAME_UNREADABLE = {3: 0xE0, 4: 0x4C}  # compressed, encrypted, grouped
_MAX_SIZE = (1 << 28) - 1


@dataclass
class _Frame:
    name: bytes
    flags: int
    body: bytes
    raw: bytes


@dataclass
class _Tag:
    version: int = 3
    revision: int = 0
    flags: int = 0
    extended: bytes = b""
    frames: list[_Frame] = field(default_factory=list)
    remains: bytes = b""  # data that some programs leave in the padding
    plain_sizes: bool = False  # v2.4 with sizes that are not synchsafe, as written by old versions of iTunes
    unsynchronised: bool = False


def edit_tag(old: bytes, changes: Changes, others: Mapping[str, str] = MappingProxyType({})) -> bytes:
    """The tag ``old`` (``b""``: no tag) with the changes; of the same length if they fit, ``b""`` if nothing is left.

    Args:
        old: the tag as it is in the file.
        changes: the changes.
        others: texts of other tags of the file, by frame (``formats.other_tags.other_texts``). A new tag gets them. A
            tag that holds nothing else is not needed, and the result is ``b""``.

    Raises:
        TagError: the tag is damaged, or cannot be changed without loss.
    """
    tag = _parse(old) if old else _new_tag(others)
    for name, text in changes.items():
        if name == "key":
            _set_key(tag, text)
        elif name == "comment":
            _set_comment(tag, text)
        else:
            frame_name = _TEXT_FRAMES.get(name) or _grouping_frame(tag)
            _set_text(tag, frame_name, text)
    left = [frame.raw for frame in tag.frames]
    return _render(tag, len(old)) if left and left != [frame.raw for frame in _new_tag(others).frames] else b""


def follow_tag(old: bytes, text: str | None, written: str | None) -> bytes:
    """An additional tag of a file, with all of its keys updated as followers; see :func:`followed`.

    Args:
        old: the tag as it is in the file.
        text: the new key, or None to remove ``written``.
        written: the old text of the file's key field.

    Raises:
        TagError: the tag may hold a key and cannot be changed without loss.
    """
    try:
        tag = _parse(old)
        before = [frame.raw for frame in tag.frames]
        name = _name(tag, b"TKEY")
        for index in reversed(range(len(tag.frames))):
            if tag.frames[index].name == name:
                _follow(tag, index, b"", text, written)
        _follow_described(tag, text, written)
    except TagError:
        if b"TKE" in old or b"TXX" in old:
            raise
        return old  # it cannot be parsed, but does not contain a key
    return old if before == [frame.raw for frame in tag.frames] else _render(tag, len(old))


def following(file: BinaryIO, spans: Sequence[Span], changes: Changes, written: str | None) -> list[Splice]:
    """The splices that update the keys in additional ID3v2 tags, as followers of a key field that was ``written``.

    Raises:
        TagError: such a tag may hold a key and cannot be changed without loss.
    """
    if "key" not in changes:
        return []
    old = [(span, read_at(file, span.offset, span.length)) for span in spans]
    new = [(span, tag, follow_tag(tag, changes["key"], written)) for span, tag in old]
    return [Splice(span.offset, span.length, changed) for span, tag, changed in new if changed != tag]


def key_in(tag: bytes) -> str | None:
    """The first text of the key frame of a tag (``b""``: no tag); None if it has none.

    Raises:
        TagError: the tag is damaged.
    """
    return _first_key(_parse(tag)) if tag else None


def _new_tag(texts: Mapping[str, str]) -> _Tag:
    tag = _Tag()
    for name, text in texts.items():
        if name == "COMM":
            _set_comment(tag, text)
        else:
            _set_text(tag, name.encode(), text)
    return tag


def _set_key(tag: _Tag, text: str | None) -> None:
    """Replace all key frames by one, at the position of the first; None removes all."""
    _follow_described(tag, text, _first_key(tag))
    name = _name(tag, b"TKEY")
    indices = [index for index, frame in enumerate(tag.frames) if frame.name == name]
    remaining = [frame for frame in tag.frames if frame.name != name]
    if text is not None:
        remaining.insert(indices[0] if indices else len(remaining), _frame(tag, name, b"\x00" + text.encode("ascii")))
    tag.frames = remaining


def _first_key(tag: _Tag) -> str | None:
    name = _name(tag, b"TKEY")
    for frame in tag.frames:
        if frame.name == name:
            with suppress(TagError, UnicodeError):
                body = _readable_body(tag, frame)
                return _decode(body[1:], body[0]).split("\0")[0]
            return None
    return None


def _follow_described(tag: _Tag, text: str | None, written: str | None) -> None:
    """Update the keys in ``TXXX:INITIALKEY`` and ``TXXX:KEY``, which are followers."""
    name = _name(tag, b"TXXX")
    for index in reversed(range(len(tag.frames))):
        frame = tag.frames[index]
        if frame.name != name:
            continue
        with suppress(TagError, UnicodeError):  # a damaged frame stays; if it has a key, verifying the copy fails
            body = _readable_body(tag, frame)
            description, _ = _split_at_zero(body[1:], body[0])
            if _decode(description, body[0]).upper() in _FOLLOWERS:
                _follow(tag, index, description + (b"\0" if body[0] in (0, 3) else b"\0\0"), text, written)


def _follow(tag: _Tag, index: int, start: bytes, text: str | None, written: str | None) -> None:
    """Update the values of the text frame at ``index`` as followers; ``start`` is the part of its body before them."""
    body = _readable_body(tag, tag.frames[index])
    values = _decode(body[1 + len(start) :], body[0]).rstrip("\0").split("\0")
    new = followed(values, text, written)
    if not new:
        del tag.frames[index]
    elif new != values:
        data = body[:1] + start + _encode("\0".join(new), body[0])
        tag.frames[index] = _frame(tag, tag.frames[index].name, data)


def _set_text(tag: _Tag, long_name: bytes, text: str | None) -> None:
    name = _name(tag, long_name)
    index = next((index for index, frame in enumerate(tag.frames) if frame.name == name), None)
    if index is None:
        if text is not None:
            encoding = _encoding_for(tag, 0, text)
            tag.frames.append(_frame(tag, name, bytes([encoding]) + _encode(text, encoding)))
        return
    body = _readable_body(tag, tag.frames[index])
    values = _decode(body[1:], body[0]).rstrip("\0").split("\0")
    _put_values(tag, index, body[0], b"", [text, *values[1:]])


def _set_comment(tag: _Tag, text: str | None) -> None:
    """Set the first comment without a description, in any language; a new one is English, like most comments."""
    name = _name(tag, b"COMM")
    for index, frame in enumerate(tag.frames):
        if frame.name != name:
            continue
        body = _readable_body(tag, frame)
        description, value = _split_at_zero(body[4:], body[0])
        if description and _decode(description, body[0]):
            continue
        values = _decode(value, body[0]).rstrip("\0").split("\0")
        _put_values(tag, index, body[0], body[1:4], [text, *values[1:]])
        return
    if text is not None:
        encoding = _encoding_for(tag, 0, text)
        body = bytes([encoding]) + b"eng" + _encode("\0", encoding) + _encode(text, encoding)
        tag.frames.append(_frame(tag, name, body))


def _put_values(tag: _Tag, index: int, encoding: int, language: bytes, values: list[str | None]) -> None:
    """Replace the frame at ``index``, or remove it if no value is left. With a language, it is a comment frame."""
    left = [value for value in values if value is not None]
    if not left:
        del tag.frames[index]
        return
    text = "\0".join(left)
    encoding = _encoding_for(tag, encoding, text)
    description = _encode("\0", encoding) if language else b""
    body = bytes([encoding]) + language + description + _encode(text, encoding)
    tag.frames[index] = _frame(tag, tag.frames[index].name, body)


def _grouping_frame(tag: _Tag) -> bytes:
    """``GRP1`` if the file has one (iTunes, for which ``TIT1`` is the work), otherwise the standard's ``TIT1``."""
    return b"GRP1" if any(frame.name == _name(tag, b"GRP1") for frame in tag.frames) else b"TIT1"


def _name(tag: _Tag, name: bytes) -> bytes:
    return _V22_NAMES[name] if tag.version == 2 else name


def _readable_body(tag: _Tag, frame: _Frame) -> bytes:
    if frame.flags & _FRAME_UNREADABLE.get(tag.version, 0):
        raise TagError("a text frame is compressed or encrypted")
    body = frame.body
    if tag.version == 4 and frame.flags & _FRAME_DATA_LENGTH:
        body = body[4:]  # without the data length indicator
    if tag.version == 4 and (frame.flags & _FRAME_UNSYNCHRONISED or tag.flags & _UNSYNCHRONISED):
        body = body.replace(b"\xff\x00", b"\xff")
    if not body or body[0] >= len(_ENCODINGS):
        raise TagError("a text frame is damaged")
    return body


def _split_at_zero(data: bytes, encoding: int) -> tuple[bytes, bytes]:
    """The parts before and after the first NUL character; without one, the second part is empty."""
    if encoding in (0, 3):
        before, _, after = data.partition(b"\0")
        return before, after
    for at in range(0, len(data) - 1, 2):
        if data[at : at + 2] == b"\0\0":
            return data[:at], data[at + 2 :]
    raise TagError("a text frame is damaged")


def _decode(data: bytes, encoding: int) -> str:
    if encoding == 1:
        # Each value may carry its own byte order mark; an odd last byte is half of a terminator.
        return data[: len(data) & ~1].decode("utf-16").replace("\ufeff", "")
    return data.decode(_ENCODINGS[encoding])


def _encode(text: str, encoding: int) -> bytes:
    if encoding == 1:
        return b"\xff\xfe" + text.encode("utf-16-le")
    return text.encode(_ENCODINGS[encoding])


def _encoding_for(tag: _Tag, wanted: int, text: str) -> int:
    """The encoding of the old frame if it can encode the text, otherwise the Unicode encoding of the tag's version."""
    if wanted:
        return wanted
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return 3 if tag.version == 4 else 1
    return 0


def _frame(tag: _Tag, name: bytes, body: bytes) -> _Frame:
    flags = 0
    written = body
    if tag.version == 4 and tag.flags & _UNSYNCHRONISED:
        written = _unsynchronise(body)
        flags = _FRAME_UNSYNCHRONISED if written != body else 0
    if tag.version == 2:
        raw = name + len(written).to_bytes(3) + written
    else:
        plain = tag.version == 3 or tag.plain_sizes
        size = len(written).to_bytes(4) if plain else _synchsafe(len(written))
        raw = name + size + flags.to_bytes(2) + written
    return _Frame(name, flags, written, raw)


def _parse(data: bytes) -> _Tag:
    if id3v2_length(data) != len(data):
        raise TagError("the ID3 tag is damaged; save its tags with another program first")
    tag = _Tag(version=data[3], revision=data[4], flags=data[5])
    if tag.version not in (2, 3, 4):
        raise TagError("an ID3 tag of an unknown version")
    if tag.version == 2 and tag.flags & _EXTENDED:
        raise TagError("the ID3v2.2 tag is compressed")
    body = data[10 : len(data) - (10 if tag.version == 4 and tag.flags & _FOOTER else 0)]
    tag.unsynchronised = tag.version < 4 and bool(tag.flags & _UNSYNCHRONISED)
    if tag.unsynchronised:
        body = body.replace(b"\xff\x00", b"\xff")
    if tag.flags & _EXTENDED:
        body = _take_extended_header(tag, body)
    split = _split_frames(body, tag.version, plain=tag.version == 3)
    if tag.version == 4 and (split is None or split[1].strip(b"\0")):
        tag.plain_sizes = True
        split = _split_frames(body, tag.version, plain=True)
    if split is None or (tag.version == 4 and split[1].strip(b"\0")):
        raise TagError("the frames of the ID3 tag are inconsistent")
    tag.frames = split[0]
    tag.remains = split[1] if split[1].strip(b"\0") else b""
    return tag


def _take_extended_header(tag: _Tag, body: bytes) -> bytes:
    """The body after the extended header, which stays unchanged; one with a checksum of the frames is refused."""
    if len(body) < 10:
        raise TagError("the ID3 tag is damaged; save its tags with another program first")
    if tag.version == 3:
        length = 4 + int.from_bytes(body[:4])
        if length != 10 or body[4] & 0x80:
            raise TagError("an ID3 extended header with a checksum is not supported")
    else:
        length = _from_synchsafe(body[:4])
        if length < 6 or body[4] != 1 or body[5] & 0x20:
            raise TagError("an ID3 extended header with a checksum is not supported")
    tag.extended = body[:length]
    return body[length:]


def _split_frames(body: bytes, version: int, plain: bool) -> tuple[list[_Frame], bytes] | None:
    """The frames and the padding; None if the frames are inconsistent with this interpretation of their sizes."""
    head = 6 if version == 2 else 10
    frames = []
    at = 0
    while at < len(body) and body[at]:
        name = body[at : at + (3 if version == 2 else 4)]
        if not _FRAME_ID.fullmatch(name) or at + head > len(body):
            return None
        size_field = body[at + 3 : at + 6] if version == 2 else body[at + 4 : at + 8]
        if not plain and version == 4 and any(byte & 0x80 for byte in size_field):
            return None
        size = _from_synchsafe(size_field) if version == 4 and not plain else int.from_bytes(size_field)
        end = at + head + size
        if end > len(body):
            return None
        flags = 0 if version == 2 else int.from_bytes(body[at + 8 : at + 10])
        frames.append(_Frame(name, flags, body[at + head : end], body[at:end]))
        at = end
    return frames, body[at:]


def _render(tag: _Tag, room: int) -> bytes:
    """The tag as bytes, padded to ``room`` bytes if it fits; a tag with a footer or remains has no padding."""
    body = tag.extended + b"".join(frame.raw for frame in tag.frames) + tag.remains
    footer = tag.version == 4 and bool(tag.flags & _FOOTER)
    written = _unsynchronise(body) if tag.unsynchronised else body
    padding = 0
    if not footer and not tag.remains:
        padding = room - 10 - len(written) if 10 + len(written) <= room else PADDING
    if tag.extended and tag.version == 3:
        body = body[:6] + padding.to_bytes(4) + body[10:]
        written = _unsynchronise(body) if tag.unsynchronised else body
    size = len(written) + padding
    if size > _MAX_SIZE:
        raise TagError("the ID3 tag is full")
    rest = bytes([tag.version, tag.revision, tag.flags]) + _synchsafe(size)
    return b"ID3" + rest + written + b"\0" * padding + (b"3DI" + rest if footer else b"")


def _unsynchronise(data: bytes) -> bytes:
    return re.sub(rb"\xff(?=[\xe0-\xff\x00]|\Z)", b"\xff\x00", data)


def _synchsafe(number: int) -> bytes:
    return bytes(number >> shift & 0x7F for shift in (21, 14, 7, 0))


def _from_synchsafe(data: bytes) -> int:
    return data[0] << 21 | data[1] << 14 | data[2] << 7 | data[3]
