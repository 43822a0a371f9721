"""Locks between processes: on an open file, and on a folder. Both end with the process, however it ends."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

LOCK_NAME = ".lock"  # lock file in a folder; it stays there


def try_lock(file: BinaryIO) -> bool:
    """Lock an open file until it is closed; False if another process, or another descriptor of this one, has locked it.

    On Windows, and on a file system without locks, the result is always True. ``filelock`` is no help here: it opens a
    lock file by path, with permission to write, while this lock belongs to an open music file or to its copy.
    """
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


@contextmanager
def folder_lock(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of a folder of stone's own files; other processes and threads that ask for it wait.

    On a file system without locks, and in a folder that cannot be written to, there is no waiting.

    Raises:
        FileNotFoundError: there is no such folder.
        BlockingIOError: ``wait`` is False, and another process has the lock.
    """
    from filelock import FileLock, Timeout

    if not folder.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
    lock = FileLock(folder / LOCK_NAME)
    try:
        lock.acquire(blocking=wait)
    except Timeout:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(folder)) from None
    except (OSError, NotImplementedError):
        pass
    try:
        yield
    finally:
        lock.release()
