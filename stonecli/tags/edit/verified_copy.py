"""Copies a file with splices applied, and reads every block back while copying.

It takes one pass: each block is read, written, read back from the copy, compared and hashed while it is in the CPU
cache. Verified blocks are sent to the disk meanwhile, so that the final flush is short.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from io import BufferedRandom
from typing import BinaryIO, cast

from stonecli.tags.edit.digest import BLOCK, Digest
from stonecli.tags.edit.splice import Splice, UnchangedRange, file_size, ordered, same_blocks

_FICLONE = 0x40049409  # Linux ioctl: share all blocks with another file (copy on write)
_WRITEBACK_BYTES = (
    1 << 25
)  # bytes of the copy that are sent to the disk at a time: with fewer ext4 makes the writes wait


def verified_copy(
    file: BinaryIO, copy: BufferedRandom, splices: Sequence[Splice], digest: Digest | None = None
) -> list[UnchangedRange] | None:
    """The unchanged ranges, sorted, which were read back from the copy; None if one of them differs.

    Where the file system can clone files and no bytes move, the clone is read and compared as well. The data of the
    splices is written, but not read back.

    Args:
        file: open for reading.
        copy: open for reading and writing, and empty.
        splices: minimal splices (:func:`stonecli.tags.edit.splice.forward_and_inverse`).
        digest: updated with each unchanged range.

    Raises:
        TagError: two splices overlap.
        OSError: the copy cannot be written, or one of the two cannot be read.
    """
    changes = ordered(splices)
    raw = cast("BinaryIO", copy.raw)  # a buffer would split the blocks, and a read could be answered from the buffer
    is_cloned = all(splice.length == len(splice.data) for splice in changes) and _clone(file, raw)
    parts = []
    at = growth = 0
    for splice in [*changes, Splice(file_size(file), 0, b"")]:
        if splice.offset > at:
            part = UnchangedRange(at, at + growth, splice.offset - at)
            same = same_blocks(file, part.old, raw, part.new, part.length) if is_cloned else _copied(file, raw, part)
            if (digest.add_chunk(same, part.length) if digest else sum(map(len, same))) != part.length:
                return None
            parts.append(part)
        raw.seek(splice.offset + growth)
        _write(raw, splice.data)
        at = splice.offset + splice.length
        growth += len(splice.data) - splice.length
    copy.seek(0, os.SEEK_END)  # so that the buffer notices the bytes that were written to the raw file
    return parts


def _clone(file: BinaryIO, copy: BinaryIO) -> bool:
    """Whether the file system cloned the file (Btrfs, XFS, bcachefs)."""
    if not sys.platform.startswith("linux"):
        return False
    import fcntl

    try:
        fcntl.ioctl(copy.fileno(), _FICLONE, file.fileno())
    except OSError:
        return False
    return True


def _copied(file: BinaryIO, copy: BinaryIO, part: UnchangedRange) -> Iterator[memoryview]:
    """Copies a range and yields its blocks once they were read back; ends at a difference.

    Each memoryview is valid until the next one is requested.
    """
    data = bytearray(min(BLOCK, part.length))
    view, back = memoryview(data), memoryview(bytearray(len(data)))
    file.seek(part.old)
    at, end = part.new, part.new + part.length
    while at < end:
        size = min(BLOCK - at % BLOCK, end - at)  # aligned writes take a quarter less time
        if file.readinto(view[:size]) != size:  # type: ignore[attr-defined]
            return
        copy.seek(at)
        _write(copy, view[:size])
        copy.seek(at)
        # bytearray.startswith, because comparing memoryviews with == is fifty times slower.
        is_there = copy.readinto(back[:size]) == size  # type: ignore[attr-defined]
        if not is_there or not data.startswith(back[:size]):
            return
        _start_writeback(copy, at, at + size)
        at += size
        yield view[:size]


def _write(copy: BinaryIO, data: bytes | memoryview) -> None:
    """Writes all of ``data``; an almost full disk accepts only a part of it per call."""
    left = memoryview(data)
    while left:
        left = left[copy.write(left) :]


def _start_writeback(copy: BinaryIO, before: int, now: int) -> None:
    """Starts writeback of the whole portions between the sizes ``before`` and ``now`` of the copy.

    Linux starts it for pages that are declared as not needed. It is a hint: errors are reported by the final flush.
    """
    start, end = before // _WRITEBACK_BYTES * _WRITEBACK_BYTES, now // _WRITEBACK_BYTES * _WRITEBACK_BYTES
    if start < end and hasattr(os, "posix_fadvise"):
        not_needed = os.POSIX_FADV_DONTNEED  # type: ignore[attr-defined,unused-ignore]  # where the function is
        with contextlib.suppress(OSError):
            os.posix_fadvise(copy.fileno(), start, end - start, not_needed)
