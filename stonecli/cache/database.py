"""The SQLite file of the result cache. If it is damaged, it is deleted and created again as soon as this is found."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stonecli.util.app_dirs import make_private_database, make_private_folder
from stonecli.util.locks import folder_lock

MAX_BYTES = 512 << 20  # about a million recordings; beyond it, the least recently used third is deleted
_BUSY_SECONDS = 10.0
_VERSION = 3
# Three columns have the names of earlier versions: stamp is the stat fingerprint, identity the content hash, and
# listener the model with the version of the detection.
_SCHEMA = """
CREATE TABLE files (
    path BLOB PRIMARY KEY, stamp TEXT NOT NULL, identity BLOB NOT NULL, used INTEGER NOT NULL
);
CREATE TABLE estimates (
    identity BLOB NOT NULL, listener TEXT NOT NULL, estimate BLOB NOT NULL, used INTEGER NOT NULL,
    PRIMARY KEY (identity, listener)
)
"""


class CacheDatabase:
    """The open database, created if it does not exist. Many threads can use it.

    Args:
        path: the file.

    Attributes:
        was_damaged: whether the database was damaged and created again.
        error: the first error that was ignored because it only costs time; None if there was none.

    Raises:
        OSError, sqlite3.Error: it cannot be created.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.was_damaged = False
        self.error: OSError | sqlite3.Error | None = None
        self._lock = threading.Lock()
        make_private_folder(self.path.parent)
        try:
            self._connection = self._open()
        except sqlite3.Error as error:
            if not _is_damage(error):  # locked, read-only, a full disk
                raise
            self.was_damaged = True
            with folder_lock(self.path.parent):
                delete_database(self.path)
                self._connection = self._open()
        with self._errors_ignored():
            self._prune()

    def close(self) -> None:
        """Close the database; it cannot be used afterwards."""
        with self._lock:
            self._connection.close()

    def row(self, query: str, values: tuple[Any, ...] = ()) -> tuple[Any, ...] | None:
        """The first row of a query; None if there is none, or if the database cannot be read."""
        rows: list[tuple[Any, ...]] = []
        with self._errors_ignored():
            rows = self._connection.execute(query, values).fetchmany(1)
        return rows[0] if rows else None

    def change(self, statement: str, *rows: tuple[Any, ...]) -> None:
        """Run a statement for each row of values; does nothing if the database cannot be written."""
        with self._errors_ignored():
            self._connection.executemany(statement, rows)

    def count(self) -> int:
        """The number of results, without those of the tempo.

        Raises:
            OSError, sqlite3.Error: the database cannot be read or, after damage, created again.
        """
        with self._lock:
            try:
                return self._count()
            except sqlite3.Error as error:
                if not _is_damage(error):
                    raise
                self._recreate()
                return self._count()

    def clear(self) -> None:
        """Delete all results and free their disk space.

        Raises:
            OSError, sqlite3.Error: the file can neither be written nor deleted.
        """
        with self._lock:
            try:
                for table in ("files", "estimates"):
                    self._connection.execute(f"DELETE FROM {table}")  # noqa: S608 (no input)
                self._connection.execute("VACUUM")
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            except sqlite3.Error:
                self._recreate()

    def _count(self) -> int:
        return int(
            self._connection.execute("SELECT count(*) FROM estimates WHERE listener NOT LIKE 'tempo %'").fetchone()[0]
        )

    def _open(self) -> sqlite3.Connection:
        make_private_database(self.path)
        database = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")  # a power cut may cost the last results, not the file
            database.execute("BEGIN IMMEDIATE")  # two first runs at once
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version == 0 and not database.execute("SELECT 1 FROM sqlite_schema").fetchone():
                for statement in _SCHEMA.split(";\n"):
                    database.execute(statement)
                database.execute(f"PRAGMA user_version = {_VERSION}")
            elif version != _VERSION:
                raise sqlite3.DatabaseError("of another version")
            database.execute("COMMIT")
            self._file = _file_id(self.path)
        except BaseException:
            database.close()
            raise
        return database

    def _recreate(self) -> None:
        """Delete the database and create it again, unless another process has done so already.

        Raises:
            OSError, sqlite3.Error: it cannot be deleted or created.
        """
        self.was_damaged = True
        self._connection.close()
        with folder_lock(self.path.parent):
            if _file_id(self.path) in (self._file, None):
                delete_database(self.path)
            self._connection = self._open()

    @contextmanager
    def _errors_ignored(self) -> Iterator[None]:
        """Allow one thread at a time and ignore errors of SQLite; a damaged database is created again."""
        with self._lock:
            try:
                try:
                    yield
                except sqlite3.Error as error:
                    if not _is_damage(error):
                        raise
                    self._recreate()
            except (OSError, sqlite3.Error) as error:
                self.error = self.error or error

    def _prune(self) -> None:
        numbers = [
            self._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count")
        ]
        (page_size,) = self._connection.execute("PRAGMA page_size").fetchone()
        if (numbers[0] - numbers[1]) * page_size <= MAX_BYTES:
            return
        for table in ("files", "estimates"):
            self._connection.execute(
                f"DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} ORDER BY used, rowid"  # noqa: S608
                f" LIMIT (SELECT (count(*) + 2) / 3 FROM {table}))"
            )


def delete_database(path: Path) -> None:
    """Delete the file and those that SQLite has made beside it."""
    for ending in ("-wal", "-shm", ""):  # in this order: a new database must not find the old write-ahead log
        Path(f"{path}{ending}").unlink(missing_ok=True)


def _is_damage(error: sqlite3.Error) -> bool:
    """Whether the file is the cause: damaged, not a database, of another version, or without our tables."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # not raised by SQLite itself: another version, or a closed database
        return type(error) is sqlite3.DatabaseError
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)


def _file_id(path: Path) -> tuple[int, int] | None:
    """Device and inode, which tell the file from one that replaced it; None if there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
