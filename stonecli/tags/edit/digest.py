"""What a file is known by: every byte of it counts, and 200 MB cost little more than reading them.

The bytes go into SHA-256, but for long stretches, which are nearly all of a recording. Those are taken as rows of 8192
numbers of 64 bits, one above the other. Each column is hashed on its own (plus the next number, times a constant, its
halves mixed), all of them at once, and the columns then go into SHA-256. Whatever changes a file is seen: where one
number differs, always; where more do, but for a chance of 2^-64 or so. Two files with the same digest can be made on
purpose. Nobody would gain by it: undo puts tags back and leaves the audio as it is, and the cache is the user's own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TypeAlias

Bytes: TypeAlias = bytes | bytearray | memoryview

BLOCK = 1 << 18  # bytes that a stretch is read by: twice that fits a processor's own memory
LONG = 1 << 20  # bytes of a stretch that is hashed by columns
ROW = 1 << 16  # bytes
_FACTOR = 0x9E3779B97F4A7C15  # odd, so that no difference is lost


class Digest:
    """A digest that is not complete yet."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def copy(self) -> Digest:
        """The same, which goes on alone."""
        other = Digest()
        other._hash = self._hash.copy()
        return other

    def digest(self) -> bytes:
        """Of all that was added: 32 bytes."""
        return self._hash.digest()

    def add(self, data: Bytes) -> None:
        """A few bytes."""
        self._hash.update(data)

    def add_chunk(self, blocks: Iterable[Bytes], length: int) -> int:
        """A stretch of ``length`` bytes, which come in blocks of whole rows, such as :data:`BLOCK`; how many came."""
        count = 0
        if length < LONG:
            for block in blocks:
                self._hash.update(block)
                count += len(block)
            return count
        import numpy as np

        columns, spare = np.zeros((2, ROW // 8), np.uint64)
        factor, half = np.uint64(_FACTOR), np.uint64(32)
        for block in blocks:
            count += len(block)
            whole = len(block) // ROW * ROW
            for row in np.frombuffer(block[:whole], np.uint64).reshape(-1, ROW // 8):
                np.add(columns, row, out=columns)
                np.multiply(columns, factor, out=columns)
                # A product carries differences up only; this brings them down.
                np.bitwise_xor(columns, np.right_shift(columns, half, out=spare), out=columns)
            self._hash.update(block[whole:])
        self._hash.update(columns.tobytes())
        self._hash.update(count.to_bytes(8))
        return count
