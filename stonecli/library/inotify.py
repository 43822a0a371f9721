"""Watch folders on Linux with inotify: which files have changed, and whether changes were lost.

watchdog does not report that a subfolder cannot be watched because the kernel's limit is reached, and its inotify
modules change with every release. Two functions of the C library are enough.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
import sys
from pathlib import Path
from typing import Any

_CLOSE_WRITE, _MOVED_TO, _CREATE = 0x8, 0x80, 0x100
_OVERFLOW, _IGNORED, _ONLY_FOLDERS, _IS_FOLDER = 0x4000, 0x8000, 0x01000000, 0x40000000
_EVENT = struct.Struct("iIII")  # watch, mask, cookie, length of the name
_READ_BYTES = 64 << 10  # over a thousand events


class Inotify:
    """Watched folders, each without its subfolders. Use it in one thread, and close it at the end.

    Raises:
        OSError: EMFILE if there are too many open files or inotify instances (``fs.inotify.max_user_instances``).
    """

    _libc: ctypes.CDLL
    _descriptor: int
    _prefixes: dict[int, str]  # of the paths in each watched folder
    _poll: Any  # a select.poll, which Windows lacks

    def __init__(self) -> None:
        if sys.platform != "linux":
            raise NotImplementedError("inotify exists on Linux only")
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._checked(self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
        self._prefixes = {}
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)

    def add(self, folder: Path) -> None:
        """Watch what is created in, moved to and written in ``folder``, but not below its subfolders.

        Raises:
            OSError: ENOSPC if the user already has ``fs.inotify.max_user_watches`` watches; others as for a listing.
        """
        mask = _CLOSE_WRITE | _MOVED_TO | _CREATE | _ONLY_FOLDERS
        watch = self._checked(self._libc.inotify_add_watch(self._descriptor, os.fsencode(folder), mask))
        self._prefixes[watch] = path_prefix(folder)  # a folder that was renamed keeps its number

    def read(self, seconds: float) -> tuple[list[tuple[str, bool]], bool]:
        """Read up to about a thousand changes; waits at most ``seconds`` for the first one.

        Returns:
            Paths that were created, moved here or written, each with whether it is a folder; and whether events were
            lost, because the kernel's queue was full or a watched folder was deleted.
        """
        changes: list[tuple[str, bool]] = []
        lost = False
        self._poll.poll(seconds * 1000)
        try:
            data = os.read(self._descriptor, _READ_BYTES)
        except BlockingIOError:
            return changes, lost
        at = 0
        while at < len(data):
            watch, mask, _, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size + length
            if mask & _OVERFLOW:
                lost = True
            elif mask & _IGNORED:
                prefix = self._prefixes.pop(watch, None)
                lost |= prefix is not None and Path(prefix).is_dir()  # it was replaced by another folder
            elif watch in self._prefixes:
                name = os.fsdecode(data[at - length : at].rstrip(b"\0"))
                changes.append((self._prefixes[watch] + name, bool(mask & _IS_FOLDER)))
        return changes, lost

    def close(self) -> None:
        """End all watches."""
        os.close(self._descriptor)

    @staticmethod
    def _checked(result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result


def path_prefix(folder: Path) -> str:
    """The text before the file name in ``str(folder / name)``."""
    return str(folder / "x").removesuffix("x")
