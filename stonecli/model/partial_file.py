"""A partial download, kept in the cache folder between runs of stone."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from types import TracebackType
from typing import BinaryIO

from stonecli.errors import naming
from stonecli.util.app_dirs import cache_folder, make_private_folder
from stonecli.util.locks import try_lock


class PartialFile:
    """The downloaded part of the file at a URL and its validator, as a context manager.

    Attributes:
        size: number of bytes downloaded.
        validator: ETag or modification date of the file; None if the server sent neither.
        total: size of the complete file; None if the server did not declare it.
        is_locked: whether another process has locked it; then it must not be used.
    """

    def __init__(self, url: str) -> None:
        name = hashlib.sha256(url.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        folder = cache_folder() / "downloads"
        self._path, self._record = folder / f"{name}.part", folder / f"{name}.json"
        self.size = 0
        self.total: int | None = None
        self.validator: str | None = None
        self.is_locked = False

    def __enter__(self) -> PartialFile:
        make_private_folder(self._path.parent.parent)
        self._path.parent.mkdir(mode=0o700, exist_ok=True)
        self._file: BinaryIO = self._path.open("ab+")
        self.is_locked = not try_lock(self._file) or not self._is_still_there()
        self.size = self._file.seek(0, os.SEEK_END)
        if self.size:
            self.validator = self._recorded()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        is_removable = not self.size and not self.is_locked and not self._file.closed
        if is_removable and os.name != "nt":  # while it is locked, so that no other process writes to it
            self._unlink()
        with naming(self._path):
            self._file.close()
        if is_removable and os.name == "nt":  # an open file cannot be removed on Windows
            self._unlink()

    def append(self, block: bytes) -> None:
        """Append downloaded bytes."""
        with naming(self._path):
            self._file.write(block)
        self.size += len(block)

    def clear(self, validator: str | None = None) -> None:
        """Discard all bytes, and start the download of the file with this validator."""
        self._file.truncate(0)
        self.size = 0
        self.validator = validator
        with naming(self._record):
            self._record.write_text(json.dumps({"validator": validator}), "utf-8")

    def read(self) -> bytes:
        """All bytes downloaded so far."""
        with naming(self._path):
            self._file.flush()
        self._file.seek(0)
        return self._file.read()

    def remove(self) -> None:
        """Remove the file and its record after a complete download."""
        self._record.unlink(missing_ok=True)
        if os.name == "nt":  # an open file cannot be removed on Windows
            self._file.close()
        self._path.unlink(missing_ok=True)

    def _unlink(self) -> None:
        for path in (self._record, self._path):
            with suppress(OSError):
                path.unlink()

    def _recorded(self) -> str | None:
        try:
            validator = json.loads(self._record.read_text("utf-8"))["validator"]
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return None
        return validator if isinstance(validator, str) and validator.isprintable() else None

    def _is_still_there(self) -> bool:
        """False if the process that had the lock before has finished and removed the file."""
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())
        except FileNotFoundError:
            return False
