"""A limit on what a tag parser may read from a file, since it holds what it parses in memory several times."""

from __future__ import annotations

from typing import Any, BinaryIO, cast

from stonecli.errors import TagError
from stonecli.tags.edit.splice import file_size, read_at
from stonecli.tags.formats.containers import CONTAINERS

MAX_TAG_BYTES = 64 << 20  # a hundred large pictures; a parser uses four to five times as much memory


def bounded(file: BinaryIO, container: str) -> BinaryIO:
    """A view of ``file`` that raises TagError once more than ``MAX_TAG_BYTES`` were read in total.

    In an Ogg file a parser may read every page to find the last one of a stream, and keeps only the comments. So the
    size of the comments is checked here, and the file itself is returned.

    Raises:
        TagError: the comments of an Ogg file are larger than ``MAX_TAG_BYTES``.
    """
    if CONTAINERS[container].editor_module == "ogg":
        _check_comments(file)
        return file
    return cast(BinaryIO, _Bounded(file))


class _Bounded:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = MAX_TAG_BYTES

    def read(self, size: int = -1) -> bytes:
        # A size in a damaged file may be wrong, so the bytes that exist are counted, not the bytes that are requested.
        data = self._file.read(size if 0 <= size <= self._left else self._left + 1)
        self._left -= len(data)
        if self._left < 0:
            raise too_large()
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _check_comments(file: BinaryIO) -> None:
    """Raise an error if the second packet of the first stream, the comments, is too large.

    A damaged file passes, since the parser reports the damage.
    """
    size, at, length = file_size(file), 0, 0
    serial: bytes | None = None
    while at + 27 <= size:
        head = read_at(file, at, 27)
        segments = read_at(file, at + 27, min(head[26], size - at - 27))
        data = sum(segments)
        if head[:4] != b"OggS" or at + 27 + head[26] + data > size:
            return
        at += 27 + head[26] + data
        if serial is None:
            serial = head[14:18]  # the first packet is alone on its page
        elif head[14:18] == serial:
            length += data
            if length > MAX_TAG_BYTES:
                raise too_large()
            if any(segment < 255 for segment in segments):
                return


def too_large() -> TagError:
    """The error for tags that are too large for a parser."""
    return TagError(f"its tags are larger than {MAX_TAG_BYTES >> 20} MB")
