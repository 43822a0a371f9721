"""Where the results of ``stone tag --output`` are appended: NDJSON or a folder of Parquet files, by the name."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from stonecli.library.locations import Seen
from stonecli.output.resumable import ResumableLog


class Results(Protocol):
    """An output to which records are appended, and the paths that it contains already.

    Attributes:
        seen: the paths and URLs that have a record.
        statuses: the statuses of the records of earlier runs.
    """

    seen: Seen
    statuses: set[str]

    def write(self, record: dict[str, Any]) -> None:
        """Append a record of ``records.tag_record``; it is written when this returns, even if the program ends then."""


def results_at(path: Path, *, bpm: bool = False) -> AbstractContextManager[Results]:
    """A context manager that appends to ``path``: a folder of Parquet files if it ends in ``.parquet``, else NDJSON.

    With ``bpm``, the records have a tempo.

    Raises:
        OutputError: pyarrow, which Parquet needs, is not installed.
    """
    if path.suffix.lower() == ".parquet":
        from stonecli.output.parquet import ParquetFolder

        return ParquetFolder(path, bpm=bpm)
    return ResumableLog(path, bpm=bpm)
