"""A copy of a file with changes made, of which every block is read back while it is made.

It takes one pass: a block of the file is read, written, read back from the copy, compared with what was read, and
hashed, all while it is in the processor's own memory. The system is told meanwhile to put on the disk what has been
checked, so that little is left to wait for at the end.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from io import BufferedRandom
from typing import BinaryIO, cast

from stonecli.tags.edit.digest import BLOCK, ROW, Digest
from stonecli.tags.edit.splice import Kept, Splice, file_size, ordered, same_blocks

_FICLONE = 0x40049409  # Linux: share all blocks of another file until one of the two is written
_PIECE = 1 << 25  # bytes of the copy that are sent to the disk at a time: with fewer ext4 makes the writes wait


def checked_copy(
    file: BinaryIO, copy: BufferedRandom, splices: Sequence[Splice], digest: Digest | None = None
) -> list[Kept] | None:
    """What the splices leave, in order, read back from the copy and found the same; None if it is not.

    Where the file system can share blocks and nothing moves, it makes the copy, which is read and compared as well.
    What the splices bring is written, and not read back.

    Args:
        file: open for reading.
        copy: open for reading and writing, and empty.
        splices: the changes, which hold only what differs (:func:`stonecli.tags.edit.splice.both_ways`).
        digest: gets each stretch that is the same.

    Raises:
        TagError: two splices overlap.
        OSError: the copy cannot be written, or one of the two cannot be read.
    """
    changes = ordered(splices)
    raw = cast("BinaryIO", copy.raw)  # a buffer would cut up the blocks, and could answer for the file system
    is_cloned = all(splice.length == len(splice.data) for splice in changes) and _clone(file, raw)
    parts = []
    at = growth = 0
    for splice in [*changes, Splice(file_size(file), 0, b"")]:
        if splice.offset > at:
            part = Kept(at, at + growth, splice.offset - at)
            same = same_blocks(file, part.old, raw, part.new, part.length) if is_cloned else _copied(file, raw, part)
            if (digest.add_stretch(same, part.length) if digest else sum(map(len, same))) != part.length:
                return None
            parts.append(part)
        raw.seek(splice.offset + growth)
        _write(raw, splice.data)
        at = splice.offset + splice.length
        growth += len(splice.data) - splice.length
    copy.seek(0, os.SEEK_END)  # the buffer has seen nothing of what went past it
    return parts


def _clone(file: BinaryIO, copy: BinaryIO) -> bool:
    """Whether the file system has made the copy without copying (Btrfs, XFS, bcachefs)."""
    if not sys.platform.startswith("linux"):
        return False
    import fcntl

    try:
        fcntl.ioctl(copy.fileno(), _FICLONE, file.fileno())
    except OSError:
        return False
    return True


def _copied(file: BinaryIO, copy: BinaryIO, part: Kept) -> Iterator[memoryview]:
    """What has been written to the copy and read back the same, in whole rows of a digest, up to where it is not.

    Each of the memoryviews is overwritten by the next one.
    """
    data = bytearray(min(ROW + BLOCK, part.length))
    back = memoryview(bytearray(min(BLOCK, part.length)))
    view = memoryview(data)
    file.seek(part.old)
    at, end = part.new, part.new + part.length
    waiting = 0  # bytes at the start of ``data`` that make no row yet
    while at < end:
        size = min(BLOCK - at % BLOCK, end - at)  # blocks that begin where the system's do cost it a quarter less
        filled = waiting + size
        if file.readinto(view[waiting:filled]) != size:  # type: ignore[attr-defined]
            return
        copy.seek(at)
        _write(copy, view[waiting:filled])
        copy.seek(at)
        # Comparing memoryviews with == is fifty times as slow.
        is_there = copy.readinto(back[:size]) == size  # type: ignore[attr-defined]
        if not is_there or not data.startswith(back[:size], waiting):
            return
        _begin_writing(copy, at, at + size)
        at += size
        whole = filled if at == end else filled // ROW * ROW
        if whole:
            yield view[:whole]
        waiting = filled - whole
        view[:waiting] = view[whole:filled]


def _write(copy: BinaryIO, data: bytes | memoryview) -> None:
    """Writes all of it; an almost full disk takes a part at first."""
    left = memoryview(data)
    while left:
        left = left[copy.write(left) :]


def _begin_writing(copy: BinaryIO, before: int, now: int) -> None:
    """Lets the system begin to put on the disk all whole pieces that the copy has ``now`` and had not ``before``.

    Linux does so when it is told that they are not needed in memory. It is a hint: errors come up in the flush.
    """
    start, end = before // _PIECE * _PIECE, now // _PIECE * _PIECE
    if start < end and hasattr(os, "posix_fadvise"):
        not_needed = os.POSIX_FADV_DONTNEED  # type: ignore[attr-defined,unused-ignore]  # where the function is
        with contextlib.suppress(OSError):
            os.posix_fadvise(copy.fileno(), start, end - start, not_needed)
