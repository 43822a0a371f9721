"""A file is replaced by a changed copy in one step, or not at all.

The copy is made next to the file under a hidden name (``.stone-*.tmp``), checked while it is made, given the file's
owner, mode and extended attributes, flushed to the disk and renamed over it. Whatever goes wrong before the rename, a
full disk or the power included, the file is the old one, byte for byte; after it, the new one. A copy that a crash
leaves behind is cleaned by the next run (:func:`remove_leftovers`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, TypeAlias

from stonecli.errors import TagError
from stonecli.library import TEMPORARY_PREFIX as PREFIX
from stonecli.library import TEMPORARY_SUFFIX as SUFFIX
from stonecli.tags.checked_copy import checked_copy
from stonecli.tags.digest import Digest
from stonecli.tags.splice import Kept, Splice, both_ways, file_size, is_spliced
from stonecli.tags.undo import Undo, places_after, places_before, whole_digest

CHANGED_MEANWHILE = "the file was changed by another program meanwhile"

_NAME = re.compile(re.escape(PREFIX) + "[a-z0-9_]{8}" + re.escape(SUFFIX))  # of the copy, as mkstemp makes them
_LEAST_AGE = 60.0  # seconds without a change, before a copy counts as left over


Journal: TypeAlias = Callable[[Path, Undo], AbstractContextManager[None]]
"""Makes a record that is on the disk when the context is entered, and takes it back if an error leaves it."""


def refuse_unsafe(path: Path, status: os.stat_result) -> None:
    """Nothing, if the file at ``path``, which has this status, may be replaced.

    Raises:
        TagError: it is write-protected (which binds root as well), the user may not write it (the right to write its
            folder is enough to replace it, and not meant), or it has other hard links.
    """
    if not status.st_mode & stat.S_IWUSR:
        raise TagError("the file is read-only")
    if not os.access(path, os.W_OK):
        raise TagError("the file is not yours to write")
    if status.st_nlink > 1:
        raise TagError("the file has other hard links, which would keep the old content")


def check_writable(path: Path) -> None:
    """Nothing, if the file at ``path``, or that the link there leads to, seems to be one that may be replaced.

    Raises:
        TagError: :func:`refuse_unsafe` refuses it, or no copy can be made in its folder.
        OSError: it cannot be looked at.
    """
    target = Path(os.path.realpath(path))
    refuse_unsafe(target, target.stat())
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise TagError(os.strerror(errno.EACCES))  # as the attempt would say


def refuse_changed(now: os.stat_result, before: os.stat_result) -> None:
    """Nothing, if a file with this status is still what it was when it had the other.

    Raises:
        TagError: it is another, or was written since.
    """

    def identity(status: os.stat_result) -> tuple[int, ...]:
        # A tag written in place, with the time set back, shows in this alone. Windows has another time by this name.
        changed = status.st_ctime_ns if os.name == "posix" else 0
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, changed

    if identity(now) != identity(before):
        raise TagError(CHANGED_MEANWHILE)


def replace_file(
    path: Path,
    file: BinaryIO,
    before: os.stat_result,
    splices: Sequence[Splice],
    check: Callable[[BinaryIO, Sequence[Kept]], None],
    *,
    preserve_mtime: bool = False,
    journal: Journal | None = None,
) -> None:
    """Replaces the file at ``path``, open as ``file``, by a copy with the splices made.

    Args:
        path: the file itself, not a symbolic link to it.
        file: the same file, open for reading; closed before the rename.
        before: its status when it was first looked at.
        splices: the changes.
        check: called with the finished copy, and with the ranges that were read back from it and found to be those of
            the file; raises if the copy is not right.
        preserve_mtime: keep the old time of modification.
        journal: gets the record of how to go back, before the rename.

    Raises:
        TagError: the file has changed since ``before``, its owner or group could not be kept, or another run is writing
            it.
        OSError: the copy cannot be written.
    """
    if not _lock(file):
        raise TagError("another run is writing the file")
    handle, name = tempfile.mkstemp(prefix=PREFIX, suffix=SUFFIX, dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w+b") as copy, ThreadPoolExecutor(1) as beside:
            _lock(copy)  # so that no other run takes it for a leftover
            there, back = both_ways(file, splices)
            rest = Digest() if journal else None
            known = checked_copy(file, copy, there, rest)
            _copy_status(path, temporary, before, preserve_mtime=preserve_mtime)
            flushed = beside.submit(os.fsync, copy.fileno())  # while the tags are read back and the journal is written
            if known is None or not is_spliced(copy, file, splices, known):
                refuse_changed(path.stat(), before)
                raise TagError("the bytes of the copy are not those that were written")
            check(copy, known)
            record = _undo(file, copy, back, known, rest) if rest else None
            if os.name == "posix":
                _rename(temporary, path, before, flushed, journal, record)
        if os.name != "posix":  # Windows renames no open file, and has no locks that would have to be held on to
            file.close()
            _rename(temporary, path, before, flushed, journal, record)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_directory(path.parent)


def remove_leftovers(paths: Iterable[Path]) -> int:
    """The number of files removed: those of ``paths`` that a run which is no more has left behind.

    What is not named as our copies are, is no regular file, was changed in the last minute, or is held by a process
    that lives, stays. Nothing is raised: what cannot be removed now may be the next time.
    """
    removed = 0
    for path in paths:
        with contextlib.suppress(OSError):
            status = path.lstat()
            last_change = max(status.st_mtime, status.st_ctime)
            is_ours = _NAME.fullmatch(path.name) and stat.S_ISREG(status.st_mode)
            if not is_ours or time.time() - last_change < _LEAST_AGE:
                continue
            with path.open("rb") as file:
                if not _lock(file):
                    continue
                if os.name == "posix":
                    path.unlink()
            path.unlink(missing_ok=True)  # on Windows this fails where a process has it open, which is what we want
            removed += 1
    return removed


def _rename(
    temporary: Path,
    path: Path,
    before: os.stat_result,
    flushed: Future[None],
    journal: Journal | None,
    record: Undo | None,
) -> None:
    recorded = journal(path, record) if journal and record else contextlib.nullcontext()
    with recorded:
        flushed.result()
        refuse_changed(path.stat(), before)
        temporary.replace(path)


def _undo(file: BinaryIO, copy: BinaryIO, back: Sequence[Splice], known: Sequence[Kept], rest: Digest) -> Undo:
    """The record of how to go back, which has been tried: it leads to the file, byte for byte."""
    if not is_spliced(file, copy, back, [Kept(same.new, same.old, same.length) for same in known]):
        raise TagError("the change could not be taken back")
    before = file_size(file), whole_digest(rest, file, places_before(back))
    after = file_size(copy), whole_digest(rest, copy, places_after(back))
    return Undo(before, after, tuple(back))


def _lock(file: BinaryIO) -> bool:
    """False if another process, or another run in this one, holds the file; where locks are unknown, nobody does."""
    if sys.platform == "win32" or os.name != "posix":
        return True
    import fcntl

    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _copy_status(path: Path, temporary: Path, before: os.stat_result, *, preserve_mtime: bool) -> None:
    if hasattr(os, "chown"):
        # Only root may give files away; a member of the group can keep the group.
        with contextlib.suppress(OSError):
            os.chown(temporary, -1, before.st_gid)
        with contextlib.suppress(OSError):
            os.chown(temporary, before.st_uid, -1)
    # Compared as the system shows them: a share that gives all files one owner gives it to the copy as well.
    now = temporary.stat()
    if (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
        raise TagError("the file would change its owner or group")
    shutil.copystat(path, temporary)
    if not preserve_mtime:
        os.utime(temporary)


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
