"""Write records to NDJSON that is always complete, and that the next run appends to."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from stonecli.errors import OutputError, naming
from stonecli.library.locations import Seen
from stonecli.util.atomic_file import remove_if_empty
from stonecli.util.locks import try_lock

_RECORD_START = b'{"path"'


class ResumableLog:
    """A context manager with :meth:`write`: one object per line, each written at once.

    Existing records are kept. An incomplete last line, after a crash or a power failure, is removed. A new file without
    records, for instance on a full disk, is deleted at the end.

    Args:
        path: the file.
        bpm: whether the new records have a tempo; then the existing ones must have one, too.

    Raises:
        OutputError: the file has other content, or records without the tempo, or another run is writing to it.
        OSError: the file cannot be read or written.
    """

    def __init__(self, path: Path, *, bpm: bool = False) -> None:
        self._path = path
        self._bpm = bpm
        self.seen = Seen()
        self.statuses: set[str] = set()

    def __enter__(self) -> ResumableLog:
        self._is_new = not self._path.exists()
        self._file: BinaryIO = self._path.open("a+b", buffering=0)
        try:
            _lock(self._file, self._path)
            for record in self.records():
                if self._bpm and "bpm" not in record:
                    raise OutputError(f"{self._path}: its records were saved without --bpm; choose another name")
                self.seen.add(record["path"])
                self.statuses.add(str(record.get("status")))
        except BaseException:
            self._file.close()
            raise
        return self

    def records(self) -> Iterator[dict[str, Any]]:
        """The existing records, one by one; truncates an incomplete last line."""
        self._file.seek(0)
        complete = 0  # bytes
        with open(os.dup(self._file.fileno()), "rb") as reader:  # noqa: PTH123 (a buffer for lines)
            for number, line in enumerate(reader, 1):
                if not line.endswith(b"\n"):
                    if not (line.startswith(_RECORD_START) or _RECORD_START.startswith(line) or not line.strip(b"\0")):
                        raise OutputError(
                            f"{self._path}: its last line is not a record of stone tag; move the file away"
                        )
                    break
                yield self._record(line, number)
                complete += len(line)
        if complete < os.fstat(self._file.fileno()).st_size:
            self._file.truncate(complete)
        self._file.seek(0, os.SEEK_END)

    def write(self, record: dict[str, Any]) -> None:
        """Append a record; it is in the file when this returns. After an error, nothing of it is."""
        line = memoryview(json.dumps(record).encode() + b"\n")
        complete = os.fstat(self._file.fileno()).st_size
        with naming(self._path):
            try:
                while line:
                    line = line[self._file.write(line) or 0 :]
            except OSError:
                self._file.truncate(complete)
                raise

    def clear(self) -> None:
        """Remove all records, after they were stored elsewhere."""
        self._file.truncate(0)

    def sync(self) -> None:
        """Flush to disk, so that the records survive a power failure."""
        os.fsync(self._file.fileno())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with naming(self._path), self._file:
            if self._is_new:  # before it is closed, because then another run may write to it
                remove_if_empty(self._path)
            self.sync()

    def _record(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            record = json.loads(line)
            if isinstance(record, dict) and isinstance(record["path"], str):
                return record
        except (ValueError, KeyError, RecursionError):
            pass
        raise OutputError(f"{self._path}: line {number} is not a record of stone tag; move the file away")


def _lock(file: BinaryIO, path: Path) -> None:
    """Lock the file until it is closed; raise if another run has locked it. Windows has no such locks."""
    if not try_lock(file):
        raise OutputError(f"{path}: another run is writing to it")
