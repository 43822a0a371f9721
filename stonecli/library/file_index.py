"""Values by file, found by any path that leads to the file (:class:`FileIndex`)."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar

Value = TypeVar("Value")


class FileIndex(Generic[Value]):
    """Values by file. Symbolic links are followed, in the paths of the index as well as in those that are looked up.

    It can be pickled.

    Args:
        values: each with the path of its file; the first one of a path counts.
    """

    def __init__(self, values: Iterable[tuple[Path, Value]] = ()) -> None:
        self._by_path: dict[str, tuple[Path, Value]] = {}
        for path, value in values:
            self._by_path.setdefault(normalized(path), (path, value))

    def get(self, path: Path) -> Value | None:
        """The value for the file at a path; None if there is none."""
        if not self._by_path:
            return None
        found = self._by_path.get(normalized(path))
        return found[1] if found else self._by_real_path.get(_real(path))

    @cached_property
    def _by_real_path(self) -> dict[str, Value]:
        """The values by path without links; only needed if a path is not found as it is spelled."""
        found: dict[str, Value] = {}
        for path, value in self._by_path.values():
            found.setdefault(_real(path), value)
        return found


def normalized(path: Path) -> str:
    """The absolute path, equal for spellings that differ in accents, and on Windows in case."""
    return os.path.normcase(unicodedata.normalize("NFC", os.path.normpath(path.absolute())))


def _real(path: Path) -> str:
    """The :func:`normalized` path without links."""
    return normalized(Path(os.path.realpath(path))) if "\0" not in str(path) else str(path)
