"""A lock on an open file, held until it is closed or the process ends, however it ends."""

from __future__ import annotations

import os
import sys
from typing import BinaryIO


def take_lock(file: BinaryIO) -> bool:
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
