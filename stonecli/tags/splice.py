"""A change to a file as data: which bytes go, which come.

Every container module answers with a list of these. The rest of the file is not theirs to touch: what no splice names
is the same byte for byte afterwards. A splice together with the bytes it takes out is all that is needed to go back.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import BinaryIO

from stonecli.errors import TagError


@dataclass(frozen=True)
class Splice:
    """``length`` bytes at ``offset`` of the old file become ``data``."""

    offset: int
    length: int
    data: bytes


@dataclass(frozen=True)
class Span:
    """``length`` bytes at ``offset`` of a file, not read yet."""

    offset: int
    length: int


def file_size(file: BinaryIO) -> int:
    """Size of an open file in bytes."""
    return file.seek(0, os.SEEK_END)


def read_at(file: BinaryIO, offset: int, length: int) -> bytes:
    """Exactly ``length`` bytes from ``offset``.

    Raises:
        TagError: the file ends before.
    """
    file.seek(offset)
    data = file.read(length) if length else b""
    if len(data) != length:
        raise TagError("the file is cut short")
    return data
