"""The digest of earlier versions, to verify their undo records and to find their cached results.

The bytes go into SHA-256, except chunks of at least 1 MiB, which are nearly all of a recording. Those are divided into
rows of 8192 numbers of 64 bits. Each column is hashed on its own (add the next number, multiply by a constant, mix the
halves), and the columns go into SHA-256 in the end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from stonecli.tags.edit.digest import Bytes

LENGTH = 32  # bytes of a digest
LONG = 1 << 20  # bytes; longer chunks are hashed by columns
ROW = 1 << 16  # bytes
_FACTOR = 0x9E3779B97F4A7C15


class OldDigest:
    """A digest that can be extended."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def copy(self) -> OldDigest:
        """An independent copy."""
        other = OldDigest()
        other._hash = self._hash.copy()
        return other

    def digest(self) -> bytes:
        """The digest of everything that was added: 32 bytes."""
        return self._hash.digest()

    def add(self, data: Bytes) -> None:
        """Add a few bytes."""
        self._hash.update(data)

    def add_chunk(self, blocks: Iterable[Bytes], length: int) -> int:
        """Add a chunk of ``length`` bytes in blocks of whole rows, and return how many bytes there were."""
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
                np.bitwise_xor(columns, np.right_shift(columns, half, out=spare), out=columns)
            self._hash.update(block[whole:])
        self._hash.update(columns.tobytes())
        self._hash.update(count.to_bytes(8))
        return count
