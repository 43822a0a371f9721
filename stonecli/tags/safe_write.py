"""A file is replaced by a changed copy in one step, or not at all.

The copy is made next to the file under a hidden name (``.stone-*.tmp``), checked, given the file's owner, mode and
extended attributes, flushed to the disk and renamed over it. Whatever goes wrong before the rename, a full disk or the
power included, the file is the old one, byte for byte; after it, the new one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from stonecli.errors import TagError
from stonecli.tags.splice import Splice

PREFIX, SUFFIX = ".stone-", ".tmp"  # of the copy's name; one that is left over after a crash can be deleted

_BLOCK = 1 << 20  # bytes copied at a time
_KERNEL_BLOCK = 1 << 26  # bytes the kernel is asked to copy at a time
_FICLONE = 0x40049409  # Linux: share all blocks of another file until one of the two is written


def refuse_unsafe(status: os.stat_result) -> None:
    """Nothing, if a file with this status may be replaced.

    Raises:
        TagError: it is write-protected (which binds root as well), or has other hard links.
    """
    if not status.st_mode & stat.S_IWUSR:
        raise TagError("the file is read-only")
    if status.st_nlink > 1:
        raise TagError("the file has other hard links, which would keep the old content")


def replace_file(
    path: Path,
    file: BinaryIO,
    before: os.stat_result,
    splices: Sequence[Splice],
    check: Callable[[BinaryIO], None],
    *,
    preserve_mtime: bool = False,
) -> None:
    """Replaces the file at ``path``, open as ``file``, by a copy with the splices made.

    Args:
        path: the file itself, not a symbolic link to it.
        file: the same file, open for reading; closed before the rename.
        before: its status when it was first looked at.
        splices: the changes.
        check: called with the finished copy; raises if it is not right.
        preserve_mtime: keep the old time of modification.

    Raises:
        TagError: the file has changed since ``before``.
        OSError: the copy cannot be written.
    """
    handle, name = tempfile.mkstemp(prefix=PREFIX, suffix=SUFFIX, dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w+b") as copy:
            _write_copy(file, copy, splices)
            copy.flush()
            check(copy)
            _copy_status(path, temporary, before, preserve_mtime=preserve_mtime)
            os.fsync(copy.fileno())
        file.close()
        if not _is_same(path.stat(), before):
            raise TagError("the file was changed by another program meanwhile")
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_directory(path.parent)


def _write_copy(file: BinaryIO, copy: BinaryIO, splices: Sequence[Splice]) -> None:
    ordered = sorted(splices, key=lambda splice: splice.offset)
    in_place = all(splice.length == len(splice.data) for splice in ordered)
    if in_place and _clone(file, copy):
        for splice in ordered:
            copy.seek(splice.offset)
            copy.write(splice.data)
        return
    at = 0
    for splice in ordered:
        if splice.offset < at:
            raise TagError("two changes overlap")  # of a structure that refers to itself
        _copy_range(file, copy, at, splice.offset - at)
        copy.write(splice.data)
        at = splice.offset + splice.length
    _copy_range(file, copy, at, file.seek(0, os.SEEK_END) - at)


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


def _copy_range(file: BinaryIO, copy: BinaryIO, offset: int, length: int) -> None:
    """Appends a range of the file to the copy; by the kernel if it can, which on a network drive is the server."""
    if hasattr(os, "copy_file_range"):
        copy.flush()
        with contextlib.suppress(OSError):
            while done := os.copy_file_range(file.fileno(), copy.fileno(), min(length, _KERNEL_BLOCK), offset):
                offset, length = offset + done, length - done
        copy.seek(0, os.SEEK_END)
    file.seek(offset)
    while length > 0:
        block = file.read(min(_BLOCK, length))
        if not block:
            raise TagError("the file was changed by another program meanwhile")
        copy.write(block)
        length -= len(block)


def _copy_status(path: Path, temporary: Path, before: os.stat_result, *, preserve_mtime: bool) -> None:
    if hasattr(os, "chown"):
        # Only root may give files away; a member of the group can keep the group.
        with contextlib.suppress(OSError):
            os.chown(temporary, -1, before.st_gid)
        with contextlib.suppress(OSError):
            os.chown(temporary, before.st_uid, -1)
    shutil.copystat(path, temporary)
    if not preserve_mtime:
        os.utime(temporary)


def _is_same(now: os.stat_result, before: os.stat_result) -> bool:
    def identity(status: os.stat_result) -> tuple[int, ...]:
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns

    return identity(now) == identity(before)


def _sync_directory(path: Path) -> None:
    """Makes the rename last; a file system that cannot do that has still done the rename, so nothing is raised."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):
        directory = os.open(path, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
