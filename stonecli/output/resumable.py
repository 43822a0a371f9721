"""Records -> NDJSON that is complete at every moment, and that a later run goes on with."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol

from stonecli.errors import OutputError, naming
from stonecli.remote.locations import Seen
from stonecli.util.locks import try_lock

_BEGINNING = b'{"path"'  # of every record


class Results(Protocol):
    """Where records go as they come, and which places are there already.

    Attributes:
        seen: the places that have a record.
        statuses: that the records which were there have.
    """

    seen: Seen
    statuses: set[str]

    def write(self, record: dict[str, Any]) -> None:
        """Adds a record of ``records.tag_record``; it is there when this returns, whatever happens to the program."""


def results_at(path: Path) -> AbstractContextManager[Results]:
    """A context manager of what goes on with ``path``: a folder where it ends in ``.parquet``, else NDJSON.

    Raises:
        OutputError: pyarrow, which the first needs, is not installed.
    """
    if path.suffix.lower() == ".parquet":
        from stonecli.output.parquet import ParquetFolder

        return ParquetFolder(path)
    return ResumableLog(path)


class ResumableLog:
    """A context manager with :meth:`write`: an object a line, each written at once.

    What is there stays. A last line that was cut off, by a kill or a power cut, is taken away.

    Raises:
        OutputError: what is there is no such file, or another run is writing to it.
        OSError: it cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.seen = Seen()
        self.statuses: set[str] = set()

    def __enter__(self) -> ResumableLog:
        self._file: BinaryIO = self._path.open("a+b", buffering=0)
        try:
            _lock(self._file, self._path)
            for record in self.records():
                self.seen.add(record["path"])
                self.statuses.add(str(record.get("status")))
        except BaseException:
            self._file.close()
            raise
        return self

    def records(self) -> Iterator[dict[str, Any]]:
        """The records that are there, one by one; a torn end is cut off."""
        self._file.seek(0)
        whole = 0
        with open(os.dup(self._file.fileno()), "rb") as reader:  # noqa: PTH123 (a buffer for lines)
            for number, line in enumerate(reader, 1):
                if not line.endswith(b"\n"):
                    if not (line.startswith(_BEGINNING) or _BEGINNING.startswith(line) or not line.strip(b"\0")):
                        raise OutputError(f"{self._path}: its end is no record of stone tag; move it away")
                    break
                yield self._record(line, number)
                whole += len(line)
        if whole < os.fstat(self._file.fileno()).st_size:
            self._file.truncate(whole)
        self._file.seek(0, os.SEEK_END)

    def write(self, record: dict[str, Any]) -> None:
        """Adds a record; it is in the file when this returns."""
        line = memoryview(json.dumps(record).encode() + b"\n")
        with naming(self._path):
            while line:
                line = line[self._file.write(line) or 0 :]

    def clear(self) -> None:
        """Takes all records out, which are somewhere else now."""
        self._file.truncate(0)

    def sync(self) -> None:
        """What was written withstands a power cut."""
        os.fsync(self._file.fileno())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with naming(self._path), self._file:
            self.sync()

    def _record(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            record = json.loads(line)
            if isinstance(record, dict) and isinstance(record["path"], str):
                return record
        except (ValueError, KeyError, RecursionError):
            pass
        raise OutputError(f"{self._path}: line {number} is no record of stone tag; move the file away")


def _lock(file: BinaryIO, path: Path) -> None:
    """Nothing, if no other run holds the file; it is held until it is closed. Windows has no such locks."""
    if not try_lock(file):
        raise OutputError(f"{path}: another run is writing to it")
