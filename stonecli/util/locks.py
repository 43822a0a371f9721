"""A lock on an open file, held until it is closed or the process ends, however it ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


def try_lock(file: BinaryIO) -> bool:
    """False if another process, or another opener in this one, holds the file; where locks are unknown, nobody does."""
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
def folder_lock(folder: Path) -> Iterator[None]:
    """While open, others that ask for the same folder wait; where locks are unknown, nobody does.

    Raises:
        OSError: there is no such folder.
    """
    if sys.platform == "win32" or os.name != "posix":
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
