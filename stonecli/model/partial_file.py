"""What has arrived of a download so far, kept in the cache folder from one run of stone to the next."""

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
    """The first bytes of the file at an address, and what the server called it; to be used as a context manager.

    Attributes:
        size: how many bytes are there.
        validator: the ETag or date of the file that they are of; None where the server gave neither.
        total: how many there will be, where the server has said it.
        is_taken: whether another process has it open; then it is not to be used.
    """

    def __init__(self, url: str) -> None:
        name = hashlib.sha256(url.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        folder = cache_folder() / "downloads"
        self._path, self._record = folder / f"{name}.part", folder / f"{name}.json"
        self.size = 0
        self.total: int | None = None
        self.validator: str | None = None
        self.is_taken = False

    def __enter__(self) -> PartialFile:
        make_private_folder(self._path.parent.parent)
        self._path.parent.mkdir(mode=0o700, exist_ok=True)
        self._file: BinaryIO = self._path.open("ab+")
        self.is_taken = not try_lock(self._file) or not self._is_still_there()
        self.size = self._file.seek(0, os.SEEK_END)
        if self.size:
            self.validator = self._recorded()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        is_worthless = not self.size and not self.is_taken and not self._file.closed
        if is_worthless and os.name != "nt":  # while it is locked, so that nobody else has begun to fill it
            self._unlink()
        with naming(self._path):
            self._file.close()
        if is_worthless and os.name == "nt":  # where what is open cannot be removed
            self._unlink()

    def append(self, block: bytes) -> None:
        """Add what has arrived."""
        with naming(self._path):
            self._file.write(block)
        self.size += len(block)

    def clear(self, validator: str | None = None) -> None:
        """Begin anew, with a file that the server calls ``validator``."""
        self._file.truncate(0)
        self.size = 0
        self.validator = validator
        with naming(self._record):
            self._record.write_text(json.dumps({"validator": validator}), "utf-8")

    def read(self) -> bytes:
        """All that is there."""
        with naming(self._path):
            self._file.flush()
        self._file.seek(0)
        return self._file.read()

    def remove(self) -> None:
        """Keep nothing: the download is finished."""
        self._record.unlink(missing_ok=True)
        if os.name == "nt":  # where what is open cannot be removed
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
        """False where the process that had the lock before has finished and removed the file."""
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())
        except FileNotFoundError:
            return False
