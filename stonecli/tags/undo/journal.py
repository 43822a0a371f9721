"""The undo journal: a database with a record of every change, written before the change is made.

It is one SQLite file in the user's state folder. A record holds the splices that undo the change, with the old bytes
(only those that differ), and the size and digest of the whole file before and after: a file with another digest was
changed since, and is not touched. Records are committed with ``synchronous=FULL``, so that neither kill -9 nor a power
failure leaves a changed file without a record. A record without a change does no harm: the file is then in the state
"before".

Every update of the journal is one statement or one transaction, so an interrupt leaves nothing half done.
"""

from __future__ import annotations

import functools
import os
import sqlite3
import struct
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stonecli.errors import JournalError, TagError, reason
from stonecli.tags.edit.splice import Splice
from stonecli.tags.undo.record import Undo
from stonecli.util.app_dirs import ADVICE, make_private_database, make_private_folder, state_folder

FILE_NAME = "undo.sqlite3"
MAX_AGE_SECONDS = 365 * 86400.0  # older runs are deleted
MAX_RECORD_BYTES = 512 << 20  # total size of the records; beyond it, the oldest runs are deleted
_EMPTY_RUN_SECONDS = 7 * 86400.0  # a younger run without a change may still be active
_BUSY_SECONDS = 60.0  # how long to wait for another run that is writing a record
_VERSION = 1
# ``changes.undone`` is the time of the undo. ``runs.undone`` was used by earlier versions and is no longer read.
_SCHEMA = """
CREATE TABLE runs (id INTEGER PRIMARY KEY AUTOINCREMENT, started REAL NOT NULL, what TEXT NOT NULL, undone REAL);
CREATE TABLE changes (
    id INTEGER PRIMARY KEY, run INTEGER NOT NULL REFERENCES runs (id), time REAL NOT NULL, path BLOB NOT NULL,
    before_size INTEGER NOT NULL, before_hash BLOB NOT NULL, after_size INTEGER NOT NULL, after_hash BLOB NOT NULL,
    splices BLOB NOT NULL, undone REAL
);
CREATE INDEX changes_by_run ON changes (run);
"""
_SPLICE_HEADER = struct.Struct("<QQQ")  # offset, length, size of the data in bytes


@dataclass(frozen=True)
class Run:
    """A run that changed files.

    Attributes:
        number: number of the run, for ``stone undo NUMBER``.
        started: start time in seconds since the epoch.
        what: description of the run.
        changes: number of files that it changed.
        undone: number of these files that were restored.
        folder: the deepest folder that contains all of these files; None if they are on several drives.
    """

    number: int
    started: float
    what: str
    changes: int
    undone: int
    folder: Path | None

    @property
    def left(self) -> int:
        """The number of files that can still be restored."""
        return self.changes - self.undone


@dataclass(frozen=True)
class Change:
    """A change of one file by a run, with its undo record."""

    number: int
    path: Path
    undo: Undo


class UndoJournal:
    """An open undo journal; created if it does not exist. It can be used by many threads and sent to other processes.

    Args:
        path: the file; None for the one in the user's state folder.
        on_network: whether the file is on storage that machines share; then write-ahead logging, which needs shared
            memory, is off.

    Raises:
        JournalError: it is damaged, was written by a newer version of stone, or cannot be created.
    """

    def __init__(self, path: Path | None = None, *, on_network: bool = False) -> None:
        self.path: Path = path or state_folder() / FILE_NAME
        self._mode = "DELETE" if on_network else "WAL"
        self._lock = threading.Lock()
        try:
            make_private_folder(self.path.parent)
        except OSError as error:
            raise JournalError(f"the undo journal {self.path} cannot be created: {reason(error)}") from error
        make_private_database(self.path)
        with self._journal_errors():
            # isolation_level=None: every statement is committed, and on the disk, when it returns.
            self._database = sqlite3.connect(
                self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                self._open()
            except BaseException:
                self._database.close()
                raise

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(UndoJournal, self.path, on_network=self._mode != "WAL"), ()

    def close(self) -> None:
        """Close the journal; it cannot be used afterwards."""
        self._database.close()

    def start(self, what: str) -> JournalRun:
        """Start a new run, to which changes can be added. Runs beyond the limits are deleted first.

        Raises:
            JournalError: the journal is damaged or cannot be written.
        """
        with self._journal_errors(), self._lock:
            (verdict,) = self._database.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise JournalError(self._damaged(str(verdict)))
            self._forget_old_runs()
            cursor = self._database.execute("INSERT INTO runs (started, what) VALUES (?, ?)", (time.time(), what))
            return JournalRun(self, int(cursor.lastrowid or 0), what)

    def runs(self, number: int | None = None) -> list[Run]:
        """The runs with changes, the last one first; with a number, only that run."""
        query = (
            "SELECT runs.id, started, what, count(DISTINCT path),"
            " count(DISTINCT CASE WHEN changes.undone IS NULL THEN path END), min(path), max(path)"
            " FROM runs JOIN changes ON changes.run = runs.id WHERE ? IS NULL OR runs.id = ?"
            " GROUP BY runs.id ORDER BY runs.id DESC"
        )
        with self._journal_errors(), self._lock:
            rows = self._database.execute(query, (number, number)).fetchall()
        # The common folder of the first and the last path in sorted order is that of all paths between them.
        return [
            Run(run, started, what, files, files - left, _common_folder(first, last))
            for run, started, what, files, left, first, last in rows
        ]

    def started(self) -> list[int]:
        """The numbers of all runs, including those without changes so far."""
        with self._journal_errors(), self._lock:
            return [int(number) for (number,) in self._database.execute("SELECT id FROM runs ORDER BY id")]

    def last_run(self) -> int | None:
        """The number of the last run with a change, undone or not; None if there is none."""
        with self._journal_errors(), self._lock:
            (number,) = self._database.execute("SELECT max(run) FROM changes").fetchone()
        return None if number is None else int(number)

    def changes(self, run: int) -> Iterator[Change]:
        """The changes of the run that are not undone, file by file, the last change of each file first.

        Raises:
            JournalError: a record is damaged.
        """
        with self._journal_errors(), self._lock:
            numbers = self._database.execute(
                "SELECT id FROM (SELECT id, max(id) OVER (PARTITION BY path) AS latest FROM changes"
                " WHERE run = ? AND undone IS NULL) ORDER BY latest DESC, id DESC",
                (run,),
            ).fetchall()
        for (number,) in numbers:
            with self._journal_errors(), self._lock:
                row = self._database.execute(
                    "SELECT path, before_size, before_hash, after_size, after_hash, splices FROM changes WHERE id = ?",
                    (number,),
                ).fetchone()
            if row is not None:  # None: another process deleted the run in the meantime
                undo = Undo((row[1], row[2]), (row[3], row[4]), self._decode_record(row[5]))
                yield Change(number, Path(os.fsdecode(row[0])), undo)

    def mark_undone(self, change: Change) -> None:
        """Record that the change was undone."""
        with self._journal_errors(), self._lock:
            self._database.execute("UPDATE changes SET undone = ? WHERE id = ?", (time.time(), change.number))

    def add(self, run: int, what: str, path: Path, undo: Undo) -> int:
        """Write the record of a change to the disk and return its number.

        A run that was deleted in the meantime, because it had no changes for a long time, is restored with its number.

        Raises:
            TagError: the record could not be written.
        """
        record = (run, time.time(), os.fsencode(path), *undo.before, *undo.after, _encode_record(undo.splices), run)
        try:
            with self._lock:
                while True:
                    cursor = self._database.execute(
                        "INSERT INTO changes (run, time, path, before_size, before_hash, after_size, after_hash,"
                        " splices) SELECT ?, ?, ?, ?, ?, ?, ?, ? WHERE EXISTS (SELECT 1 FROM runs WHERE id = ?)",
                        record,
                    )
                    if cursor.rowcount:
                        break
                    self._database.execute(
                        "INSERT OR IGNORE INTO runs (id, started, what) VALUES (?, ?, ?)", (run, time.time(), what)
                    )
                self._database.commit()  # has no effect unless an interrupt left a transaction open
        except sqlite3.Error as error:
            raise TagError(
                f"the undo journal cannot be written ({reason(error)}), so the file was not changed"
            ) from error
        return int(cursor.lastrowid or 0)

    def later_run(self, change: Change, run: int) -> int | None:
        """The last run that changed the file after ``change``, which is of another run, and was not undone."""
        query = (
            "SELECT run FROM changes WHERE path = ? AND id > ? AND run != ? AND undone IS NULL ORDER BY id DESC LIMIT 1"
        )
        with self._journal_errors(), self._lock:
            row = self._database.execute(query, (os.fsencode(change.path), change.number, run)).fetchone()
        return None if row is None else int(row[0])

    def has(self, path: Path) -> bool:
        """Whether the file has a change that was not undone, by any run."""
        with self._journal_errors(), self._lock:
            query = "SELECT 1 FROM changes WHERE path = ? AND undone IS NULL LIMIT 1"
            return self._database.execute(query, (os.fsencode(path),)).fetchone() is not None

    def merge(self, run: int, other: Path) -> None:
        """Add the records of another journal to a run, except those that it has already; a deleted run is restored.

        Raises:
            JournalError: one of the two cannot be read or written.
        """
        columns = "time, path, before_size, before_hash, after_size, after_hash, splices"
        with self._journal_errors(), self._lock:
            self._database.execute("ATTACH ? AS other", (str(other),))
            try:
                with self._transaction():
                    if not self._database.execute("SELECT 1 FROM other.sqlite_schema LIMIT 1").fetchone():
                        return  # its process ended before the tables were created
                    self._database.execute(
                        "INSERT OR IGNORE INTO runs (id, started, what)"
                        " SELECT ?, started, what FROM other.runs LIMIT 1",
                        (run,),
                    )
                    self._database.execute(
                        f"INSERT INTO changes (run, {columns}) SELECT ?, {columns} FROM other.changes"  # noqa: S608
                        " WHERE (path, time) NOT IN (SELECT path, time FROM changes WHERE run = ?) ORDER BY time",
                        (run, run),
                    )
            finally:
                self._database.execute("DETACH other")

    def forget(self, number: int) -> None:
        """Delete the record of a change that was not made; errors are ignored, since such a record does no harm."""
        with suppress(sqlite3.Error), self._lock:
            self._database.execute("DELETE FROM changes WHERE id = ?", (number,))

    def end(self, run: int) -> None:
        """Delete the run if it has no changes."""
        with suppress(sqlite3.Error), self._lock:
            self._database.execute(
                "DELETE FROM runs WHERE id = ? AND NOT EXISTS (SELECT 1 FROM changes WHERE run = ?)", (run, run)
            )

    def _open(self) -> None:
        self._database.execute(f"PRAGMA journal_mode = {self._mode}")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.execute("BEGIN IMMEDIATE")  # two first runs at once
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        if version == 0 and not self._database.execute("SELECT 1 FROM sqlite_schema").fetchone():
            for statement in _SCHEMA.split(";\n"):
                self._database.execute(statement)
            self._database.execute(f"PRAGMA user_version = {_VERSION}")
        elif version != _VERSION:
            reason = "was written by a newer version of stone" if version > _VERSION else "belongs to another program"
            raise JournalError(f"the undo journal {self.path} {reason}")
        self._database.execute("COMMIT")

    def _forget_old_runs(self) -> None:
        now = time.time()
        oldest = now - MAX_AGE_SECONDS
        rows = self._database.execute(
            "SELECT runs.id, started, coalesce(sum(length(splices) + length(path) + 200), 0) FROM runs"
            " LEFT JOIN changes ON changes.run = runs.id GROUP BY runs.id ORDER BY runs.id DESC"
        )
        total = 0
        forgotten = []
        for number, started, size in rows.fetchall():
            total += size
            if started < oldest or total > MAX_RECORD_BYTES or (size == 0 and started < now - _EMPTY_RUN_SECONDS):
                forgotten.append((number,))
        if forgotten:
            with self._transaction():
                self._database.executemany("DELETE FROM changes WHERE run = ?", forgotten)
                self._database.executemany("DELETE FROM runs WHERE id = ?", forgotten)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._database.execute("BEGIN IMMEDIATE")
            yield
            self._database.execute("COMMIT")
        finally:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")

    @contextmanager
    def _journal_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise JournalError(f"the undo journal {self.path} cannot be used ({reason(error)}); {ADVICE}") from error
        except sqlite3.Error as error:
            raise JournalError(self._damaged(reason(error))) from error

    def _damaged(self, how: str) -> str:
        return f"the undo journal {self.path} is damaged ({' '.join(how.split())}); move it away to start a new one"

    def _decode_record(self, packed: bytes) -> tuple[Splice, ...]:
        splices = []
        try:
            data = zlib.decompress(packed)  # verifies a checksum
            at = 0
            while at < len(data):
                offset, length, size = _SPLICE_HEADER.unpack_from(data, at)
                at += _SPLICE_HEADER.size
                splices.append(Splice(offset, length, data[at : at + size]))
                at += size
        except (zlib.error, struct.error, TypeError) as error:
            raise JournalError(self._damaged(reason(error))) from error
        return tuple(splices)


class JournalRun:
    """A run of the journal, which records changes before they are made.

    It implements :class:`stonecli.tags.edit.atomic_replace.Journal`.
    """

    def __init__(self, journal: UndoJournal, number: int, what: str) -> None:
        self._journal = journal
        self._what = what
        self.number = number

    def add(self, path: Path, undo: Undo) -> int:
        """Record a change that is about to be made, and return the number of the record, which is on the disk.

        Raises:
            TagError: the record could not be written.
        """
        return self._journal.add(self.number, self._what, path, undo)

    def forget(self, number: int) -> None:
        """Delete the record of a change that was provably not made."""
        self._journal.forget(number)

    def end(self) -> None:
        """End the run; a run without changes is deleted."""
        self._journal.end(self.number)


def _encode_record(splices: Sequence[Splice]) -> bytes:
    parts = (_SPLICE_HEADER.pack(splice.offset, splice.length, len(splice.data)) + splice.data for splice in splices)
    return zlib.compress(b"".join(parts))


def _common_folder(first: bytes, last: bytes) -> Path | None:
    folders = [os.path.dirname(os.fsdecode(path)) for path in (first, last)]  # noqa: PTH120
    try:
        return Path(os.path.commonpath(folders))
    except ValueError:
        return None
