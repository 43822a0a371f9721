"""The digest of files and audio: XXH3 with 128 bits, which is faster than reading the file.

It detects every accidental change. It is not cryptographic, and does not need to be: undo restores tags and leaves the
audio as it is, and the result cache belongs to the user, so nobody gains by two files with the same digest.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, Self, TypeAlias

import xxhash

Bytes: TypeAlias = bytes | bytearray | memoryview

BLOCK = 1 << 18  # bytes; ranges are read in blocks of this size, so that two of them fit into the CPU cache


class AnyDigest(Protocol):
    """The functions that :class:`Digest` and the digest of earlier versions share."""

    def add(self, data: Bytes) -> None:
        """Add a few bytes."""

    def add_chunk(self, blocks: Iterable[Bytes], length: int) -> int:
        """Add a range of ``length`` bytes in blocks, and return how many bytes there were."""

    def copy(self) -> Self:
        """An independent copy."""

    def digest(self) -> bytes:
        """The digest of everything that was added."""


class Digest:
    """A digest that can be extended. Bytes count by their value and order, not by how they were divided."""

    def __init__(self) -> None:
        self._hash = xxhash.xxh3_128()

    def add(self, data: Bytes) -> None:
        """Add a few bytes."""
        self._hash.update(data)

    def add_chunk(self, blocks: Iterable[Bytes], length: int) -> int:
        """Add a range of ``length`` bytes in blocks, and return how many bytes there were."""
        count = 0
        for block in blocks:
            self._hash.update(block)
            count += len(block)
        return count

    def copy(self) -> Digest:
        """An independent copy."""
        other = Digest()
        other._hash = self._hash.copy()
        return other

    def digest(self) -> bytes:
        """The digest of everything that was added: 16 bytes."""
        return self._hash.digest()
