"""Write records to a folder of Parquet files, which data tools read as one table and the next run appends to.

The folder contains ``part-00000.parquet`` and so on, each written atomically. Records that do not fill a part yet are
in ``_pending.ndjson``, which data tools skip because of its name, so no record is lost if the program ends. Needs
pyarrow (extra ``parquet``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from stonecli.errors import OutputError, naming
from stonecli.library.locations import Seen
from stonecli.output.resumable import ResumableLog
from stonecli.util.atomic_file import atomic_file
from stonecli.util.installation import how_to_install
from stonecli.util.text import escaped, unescaped

if TYPE_CHECKING:
    import pyarrow

ROWS = 8192  # per part
_PENDING = "_pending.ndjson"
_PART = re.compile(r"part-(\d{5,9})\.parquet")


class ParquetFolder:
    """A context manager with :meth:`write`; its exit writes the last part.

    Raises:
        OutputError: pyarrow is not installed, the folder has other files, or rows without the tempo that is
            wanted now, or another run is writing to it.
        OSError: the folder cannot be read or written.
    """

    def __init__(self, path: Path, *, rows: int = ROWS, bpm: bool = False) -> None:
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise OutputError(f"Parquet needs pyarrow; {how_to_install('parquet')}") from None
        self._path = path
        self._rows = rows
        self._bpm = self._wants_bpm = bpm
        self.seen = Seen()
        self.statuses: set[str] = set()

    def __enter__(self) -> ParquetFolder:
        is_new = not self._path.exists()
        self._path.mkdir(exist_ok=True)
        with ExitStack() as stack:
            if is_new:
                stack.callback(self._remove_if_empty)
            self._log = stack.enter_context(ResumableLog(self._path / _PENDING))
            for rest in self._path.glob(".part-*.tmp"):
                rest.unlink()
            # Like data tools, skip the ._part-00000.parquet files that macOS writes on other file systems.
            parts = sorted(part for part in self._path.glob("*.parquet") if not part.name.startswith((".", "_")))
            self._next = 1 + max((int(match[1]) for part in parts if (match := _PART.fullmatch(part.name))), default=-1)
            for part in parts:
                self._read_part(part)
            # The program may have ended after writing a part and before clearing the log; skip the duplicates.
            self.statuses |= self._log.statuses
            self._pending = [record for record in self._log.records() if self.seen.add(record["path"])]
            self._stack = stack.pop_all()
        return self

    def write(self, record: dict[str, Any]) -> None:
        """Add a record; it is in the folder when this returns."""
        self._log.write(record)
        self._pending.append(record)
        if len(self._pending) >= self._rows:
            self._make_part()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._stack:
            if self._pending:
                self._make_part()
            with suppress(OSError):  # Windows cannot delete open files
                (self._path / _PENDING).unlink()

    def _remove_if_empty(self) -> None:
        with suppress(OSError):  # not empty
            self._path.rmdir()

    def _read_part(self, part: Path) -> None:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile

        try:
            # Opened by Python, because pyarrow fails at names that are not UTF-8.
            with part.open("rb") as source, ParquetFile(source) as file:
                has_bpm = "bpm" in file.schema_arrow.names
                for batch in file.iter_batches(columns=["path", "status"]):
                    for path in batch.column("path").to_pylist():
                        self.seen.add(unescaped(path))
                    self.statuses.update(map(str, batch.column("status").unique().to_pylist()))
        except (ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # errors of damaged files have no errno
                raise
            raise OutputError(f"{part}: not a table of stone tag; move it away") from error
        if self._wants_bpm and not has_bpm:  # data tools take the columns of the first part for those of all
            raise OutputError(f"{self._path}: its rows were saved without --bpm; choose another name")
        self._bpm |= has_bpm

    def _make_part(self) -> None:
        from pyarrow import Table
        from pyarrow.parquet import write_table

        table = Table.from_pylist([_values(record) for record in self._pending], schema(bpm=self._bpm))
        part = self._path / f"part-{self._next:05}.parquet"
        with naming(part), atomic_file(part, durable=True) as temporary, temporary.open("wb") as file:
            write_table(table, file, compression="zstd")
        self._next += 1
        self._log.clear()
        self._pending = []


def schema(*, bpm: bool = False) -> pyarrow.Schema:
    """The columns, named and nested like the JSON of ``stone tag`` (docs/formats.md)."""
    import pyarrow as pa

    key = pa.struct([(name, pa.string()) for name in ("musical", "camelot", "open_key")])
    segment = pa.struct([("start", pa.float64()), ("end", pa.float64()), ("key", key), ("confidence", pa.float64())])
    columns = {
        "path": pa.string(),
        "key": key,
        "confidence": pa.float64(),
        "alternatives": pa.list_(pa.struct([("key", key), ("probability", pa.float64())])),
        "tuning_cents": pa.float64(),
        "duration": pa.float64(),
        "segments": pa.list_(segment),
        "first_key": key,
        "last_key": key,
        "other_name": key,
        "tuning_confidence": pa.float64(),
        "model": pa.string(),
        "error": pa.string(),
        "old_key": pa.string(),
        "status": pa.string(),
        "detected_key": key,
        "tag_key": key,
        "relation": pa.string(),
    }
    if bpm:
        numbers = [(name, pa.float64()) for name in ("bpm", "confidence", "alternative", "stability")]
        columns["tempo"] = pa.struct([*numbers, ("steady", pa.bool_())])
        columns |= {"bpm": pa.float64(), "old_bpm": pa.string()}
    return pa.schema(columns.items(), metadata={"stone": "1"})


def _values(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with text escaped as in CSV, because Parquet requires valid UTF-8."""
    return {name: escaped(value) if isinstance(value, str) else value for name, value in record.items()}
