"""Vorbis comments as bytes: the list of ``NAME=value`` in FLAC and in every Ogg codec.

Entries that do not change are never decoded and encoded again, so the case of names and invalid UTF-8 are preserved.
"""

from __future__ import annotations

from stonecli.errors import TagError
from stonecli.tags.fields import checked_utf8, followed
from stonecli.tags.rules import Changes

_KEY = b"INITIALKEY"
_FOLLOWERS = (b"KEY", b"INITIAL_KEY")


def edit_comments(data: bytes, changes: Changes) -> tuple[bytes, bytes]:
    """The comments at the start of ``data`` with the changes, and the bytes of ``data`` that follow them.

    There is one ``INITIALKEY`` afterwards. A ``KEY`` or ``INITIAL_KEY`` with a plain key is updated, but never created.

    Raises:
        TagError: the comments are damaged, or text to be changed is not UTF-8.
    """
    vendor, entries, rest = _parse(data)
    for field, text in changes.items():
        if field == "key":
            entries = _with_key(entries, text)
        elif field == "comment":
            has_comment = any(_name(entry) == b"COMMENT" for entry in entries)
            has_description = any(_name(entry) == b"DESCRIPTION" for entry in entries)
            name = b"DESCRIPTION" if has_description and not has_comment else b"COMMENT"
            entries = _with_text(entries, name, text)
        else:
            entries = _with_text(entries, field.upper().encode(), text)
    return _serialize(vendor, entries), rest


def follow_comments(data: bytes, text: str | None, written: str | None) -> bytes:
    """A second comment block, with all of its key fields updated as followers; see :func:`followed`.

    Raises:
        TagError: the comments are damaged.
    """
    vendor, entries, rest = _parse(data)
    return _serialize(vendor, _followed(entries, (_KEY, *_FOLLOWERS), text, written)) + rest


def key_in(data: bytes) -> str | None:
    """The first ``INITIALKEY`` of the comments at the start of ``data``.

    Raises:
        TagError: the comments are damaged.
    """
    return _first_key(_parse(data)[1])


def _with_key(entries: list[bytes], text: str | None) -> list[bytes]:
    result = []
    written = False
    for entry in _followed(entries, _FOLLOWERS, text, _first_key(entries)):
        if _name(entry) != _KEY:
            result.append(entry)
        elif text is not None and not written:
            result.append(_renewed(entry, text))
            written = True
    if text is not None and not written:
        result.append(b"INITIALKEY=" + text.encode("ascii"))
    return result


def _followed(entries: list[bytes], names: tuple[bytes, ...], text: str | None, written: str | None) -> list[bytes]:
    result = []
    for entry in entries:
        if _name(entry) not in names:
            result.append(entry)
            continue
        value = _value(entry).decode("utf-8", "replace")
        new = followed([value], text, written)
        if new:
            result.append(entry if new == [value] else _renewed(entry, new[0]))
    return result


def _renewed(entry: bytes, text: str) -> bytes:
    return entry.partition(b"=")[0] + b"=" + text.encode("ascii")


def _first_key(entries: list[bytes]) -> str | None:
    return next((_value(entry).decode("utf-8", "replace") for entry in entries if _name(entry) == _KEY), None)


def _serialize(vendor: bytes, entries: list[bytes]) -> bytes:
    return _sized(vendor) + len(entries).to_bytes(4, "little") + b"".join(map(_sized, entries))


def _with_text(entries: list[bytes], name: bytes, text: str | None) -> list[bytes]:
    index = next((index for index, entry in enumerate(entries) if _name(entry) == name), None)
    if index is None:
        return entries if text is None else [*entries, name + b"=" + text.encode()]
    checked_utf8(_value(entries[index]))
    new = [] if text is None else [entries[index].partition(b"=")[0] + b"=" + text.encode()]
    return entries[:index] + new + entries[index + 1 :]


def _parse(data: bytes) -> tuple[bytes, list[bytes], bytes]:
    vendor, at = _take(data, 0)
    count = int.from_bytes(data[at : at + 4], "little")
    at += 4
    if at > len(data) or count > len(data) // 4:
        raise TagError("the Vorbis comments are damaged; save its tags with another program first")
    entries = []
    for _ in range(count):
        entry, at = _take(data, at)
        entries.append(entry)
    return vendor, entries, data[at:]


def _take(data: bytes, at: int) -> tuple[bytes, int]:
    start = at + 4
    end = start + int.from_bytes(data[at:start], "little")
    if start > len(data) or end > len(data):
        raise TagError("the Vorbis comments are damaged; save its tags with another program first")
    return data[start:end], end


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(4, "little") + data


def _name(entry: bytes) -> bytes:
    return entry.partition(b"=")[0].upper()


def _value(entry: bytes) -> bytes:
    return entry.partition(b"=")[2]
