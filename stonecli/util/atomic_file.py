"""A file that is written beside its place and put there when it is whole, so that a reader never meets half of it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from stonecli.errors import naming


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """A text file for writing, UTF-8, that replaces ``path`` at the end; after an error, what was there is still there.

    Raises:
        OSError: it cannot be written.
    """
    with (
        temporary_file(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="\n") as file,
    ):
        yield file


@contextmanager
def temporary_file(path: Path) -> Iterator[Path]:
    """An empty file beside ``path``, to be filled, that replaces it at the end; after an error it is gone.

    Raises:
        OSError: it cannot be made or put in place.
    """
    temporary = make_temporary(path)
    try:
        yield temporary
        put_in_place(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def make_temporary(path: Path) -> Path:
    """An empty file beside ``path``, hidden.

    Raises:
        OSError: it cannot be made; it names ``path``, which the user knows.
    """
    with naming(path):
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:50]}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
    return Path(name)


def put_in_place(temporary: Path, path: Path) -> None:
    """Replace ``path`` by ``temporary``, with the permissions of a new file.

    Raises:
        OSError: as above.
    """
    with naming(path):
        with suppress(OSError):  # a share that gives all files one mode
            temporary.chmod(0o666 & ~umask())
        temporary.replace(path)


def umask() -> int:
    """The process's mask for the permissions of new files; mkstemp goes by its own."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
