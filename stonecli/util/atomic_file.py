"""Atomic write: a temporary file is written in the same folder and then renamed, so no reader sees half a file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from stonecli.errors import naming


@contextmanager
def atomic_text_file(path: Path) -> Iterator[TextIO]:
    """A UTF-8 text file for writing that replaces ``path`` at the end of the block, and never after an error.

    Raises:
        OSError: it cannot be written.
    """
    with (
        atomic_file(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="\n") as file,
    ):
        yield file


@contextmanager
def atomic_file(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """The path of an empty temporary file that replaces ``path`` at the end of the block; after an error it is deleted.

    Args:
        path: the file to write.
        durable: whether to flush the file to the disk before the rename and the rename after it, for files that are not
            easily made again.

    Raises:
        OSError: it cannot be created, written, flushed or renamed; the error names ``path`` unless it names another.
    """
    temporary = create_temporary(path)
    try:
        yield temporary
        if durable:
            with naming(path), temporary.open("rb+") as file:
                os.fsync(file.fileno())
        publish(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, temporary, str(temporary)):  # a write names no file
            error.filename = str(path)
        raise
    if durable and os.name == "posix":
        with suppress(OSError):  # a file system that cannot flush folders
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def create_temporary(path: Path) -> Path:
    """Create an empty hidden file in the folder of ``path``.

    Raises:
        OSError: it cannot be created; the error names ``path``, which the user knows.
    """
    with naming(path):
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:50]}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
    return Path(name)


def publish(temporary: Path, path: Path) -> None:
    """Replace ``path`` by ``temporary``, with the permissions of a new file.

    Raises:
        OSError: it cannot be renamed; the error names ``path``.
    """
    with naming(path):
        with suppress(OSError):  # a share with a fixed mode for all files
            temporary.chmod(0o666 & ~umask())
        temporary.replace(path)


def remove_if_empty(path: Path) -> None:
    """Delete a file that was created to append to it, if nothing could be written. Errors are ignored."""
    with suppress(OSError):  # Windows cannot delete open files
        if not path.stat().st_size:
            path.unlink()


def umask() -> int:
    """The process's umask; ``mkstemp`` does not use it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
