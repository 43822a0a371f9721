"""A music file that is opened once: for its tags, its content hash, the checks of its audio, and the write.

On a network share every open and every read of the status is a round trip. So functions on one file take either a path
or a :class:`MusicFile`, and each step passes the open file on to the next. ``benchmarks/file_calls.py`` counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias

from stonecli.errors import TagError

CHANGED_MEANWHILE = "another program changed the file in the meantime; run stone again"


@dataclass(eq=False)
class MusicFile:
    """A music file that is open for reading.

    Attributes:
        path: the path as it was given.
        target: the same file with all symbolic links resolved: what a write replaces.
        file: open for reading; at any offset.
        status: status of the file when it was opened; after stone has replaced the file, that of the new one.
    """

    path: Path
    target: Path
    file: BinaryIO
    status: os.stat_result

    @property
    def fingerprint(self) -> str:
        """Size, times and inode of ``status``, as text."""
        return stat_fingerprint(self.status)

    def is_changed(self) -> bool:
        """Whether the file at the path was replaced, written or removed since it was opened."""
        try:
            return _identity(self.path.stat()) != _identity(self.status)
        except OSError:
            return True


Source: TypeAlias = str | os.PathLike[str] | MusicFile
"""The path of a music file, or the open file."""


@contextmanager
def opened(source: Source) -> Iterator[MusicFile]:
    """The music file at a path, open until the end of the block; a :class:`MusicFile` is passed through.

    A pipe or a device is not opened, since that could block forever.

    Raises:
        TagError: there is no file at the path.
        OSError: the file cannot be opened.
    """
    if isinstance(source, MusicFile):
        source.file.seek(0, os.SEEK_END)  # empties its buffer: another program may have written to the file since
        yield source
        return
    path = Path(source)
    if not path.is_file():
        raise TagError("not a file" if path.exists() else "no such file or folder")
    target = Path(os.path.realpath(path))
    with target.open("rb") as file:
        yield MusicFile(path, target, file, os.fstat(file.fileno()))


def stat_fingerprint(status: os.stat_result) -> str:
    """Size, times and inode of a file with this status, as text."""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"


def refuse_changed(now: os.stat_result, before: os.stat_result) -> None:
    """Raise an error if the status ``now`` of a file shows that it was changed since the status ``before`` was read.

    Raises:
        TagError: it is another file, or was written since.
    """
    if _identity(now) != _identity(before):
        raise TagError(CHANGED_MEANWHILE)


def _identity(status: os.stat_result) -> tuple[int, ...]:
    # Only the time of change shows a write in place after which the modification time was reset. On Windows, it is the
    # time of creation.
    changed = status.st_ctime_ns if os.name == "posix" else 0
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, changed
