"""Write records to the file of ``--output``: CSV, JSON or NDJSON, depending on its extension.

The file appears only when the run ends, so a reader never sees half a file. A run that does not finish never replaces a
file: its rows, if there are any, are saved only where there was none.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from stonecli.errors import naming
from stonecli.output import TABLE_SUFFIXES
from stonecli.output.records import BPM_COLUMNS, CSV_COLUMNS, tag_row
from stonecli.util.atomic_file import create_temporary, publish
from stonecli.util.csv_text import csv_cells, csv_line


class OutputFile:
    """A context manager with :meth:`write`; its exit replaces the file, or, after an error, only creates it.

    No file is created after an error without any records, nor if a record could not be written.

    Args:
        path: .csv, .json (one array) or .ndjson (one object per line).
        bpm: whether the records have a tempo.

    Attributes:
        is_unfinished: whether the run was interrupted, so that an existing file must stay. True after an error, too.

    Raises:
        ValueError: the path has another extension.
        OSError: the file cannot be written.
    """

    def __init__(self, path: Path, *, bpm: bool = False) -> None:
        self._format = path.suffix.lower()
        if self._format not in TABLE_SUFFIXES:
            raise ValueError(f"--output must end in {', '.join(TABLE_SUFFIXES)}, not {path.suffix or 'nothing'!r}")
        self._path = path
        self._count = 0
        self._is_incomplete = False  # a row was not written
        self.is_unfinished = False
        self._columns = (*CSV_COLUMNS, *BPM_COLUMNS) if bpm else CSV_COLUMNS

    def __enter__(self) -> OutputFile:
        self._temporary = create_temporary(self._path)
        self._file: TextIO = self._temporary.open("w", encoding="utf-8", newline="")
        if self._format == ".csv":
            self._file.write(csv_line(self._columns))
        return self

    def write(self, record: dict[str, Any]) -> None:
        """Add one record of ``records.tag_record``."""
        try:
            with naming(self._path):
                self._file.write(self._text(record))
        except OSError:
            self._is_incomplete = True
            raise
        self._count += 1

    def _text(self, record: dict[str, Any]) -> str:
        if self._format == ".csv":
            return csv_line(csv_cells(tag_row(record), self._columns))
        if self._format == ".ndjson":
            return json.dumps(record) + "\n"
        return ("[\n" if self._count == 0 else ",\n") + json.dumps(record)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            with naming(self._path), self._file:
                if self._format == ".json":
                    self._file.write("\n]\n" if self._count else "[]\n")
        except OSError:
            self._is_incomplete = True
            raise
        finally:
            self.is_unfinished |= self._is_incomplete or error is not None
            if self._is_incomplete or (self.is_unfinished and (not self._count or self._path.exists())):
                self._temporary.unlink()
            else:
                publish(self._temporary, self._path)
