"""The result cache: what was heard once need not be heard again, by the same model in the same recording.

A recording is identified by the digest of its audio (:func:`stonecli.tags.edit.audio_digest.audio_digest`), which stays
the same when the file is moved, copied, or tagged by stone; to compute it costs a hundredth of listening. In front of
it stands an index by path: as long as size, times and inode of a file are the same, its audio is not read. Results are
kept by digest, hash of the model and version of the detection.

It is one SQLite file in the user's cache folder. Whatever is wrong with it costs time, never a result: what cannot be
read is analyzed, what cannot be written is forgotten, a damaged file is deleted and made anew.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stonecli.detection.detect import DETECTION_VERSION, KeyEstimate
from stonecli.detection.segments import Segment
from stonecli.errors import TagError
from stonecli.key import Key
from stonecli.model.session import KeyModel
from stonecli.tags.edit.audio_digest import audio_digest
from stonecli.tags.formats.sniff import sniff
from stonecli.tags.read import as_tag_error, open_regular
from stonecli.tags.undo.record import digest_of_rest
from stonecli.util.app_dirs import cache_folder, make_private_database, make_private_folder
from stonecli.util.locks import folder_to_oneself

FILE_NAME = "results.sqlite3"
MAX_BYTES = 512 << 20  # about a million recordings; beyond, the third that was not used for longest goes
_TOUCH_DAYS = 30  # "last used" is only written when it is so far off, so that a second run writes nothing
_BUSY_SECONDS = 10.0
_VERSION = 3
_SCHEMA = """
CREATE TABLE files (
    path BLOB PRIMARY KEY, stamp TEXT NOT NULL, identity BLOB NOT NULL, used INTEGER NOT NULL
);
CREATE TABLE estimates (
    identity BLOB NOT NULL, listener TEXT NOT NULL, estimate BLOB NOT NULL, used INTEGER NOT NULL,
    PRIMARY KEY (identity, listener)
)
"""
_HEAD = struct.Struct(
    "<bdddd24f"
)  # key (-1: none), confidence, tuning and its confidence (nan: none), duration, shares
_SEGMENT = struct.Struct("<bddd")  # key, start, end, confidence


@dataclass(frozen=True)
class Memory:
    """What the cache knows of a file as it is now.

    Attributes:
        stamp: size, times and inode when it was looked at; "" if that failed.
        identity: of its audio; None if it has to be computed.
        estimate: what was heard; None if nothing is known by path alone.
    """

    stamp: str = ""
    identity: bytes | None = None
    estimate: KeyEstimate | None = None


class ResultCache:
    """The cache, opened; made if it is not there. It may be used by many threads, and sent to other processes.

    A damaged file is deleted and made anew as soon as the damage is met.

    Args:
        path: the file; None for the one in the user's cache folder.

    Attributes:
        was_damaged: whether that has happened.

    Raises:
        OSError, sqlite3.Error: it cannot be made.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or cache_folder() / FILE_NAME
        self.was_damaged = False
        self._lock = threading.Lock()
        make_private_folder(self.path.parent)
        try:
            self._database = self._opened()
        except sqlite3.Error as error:
            if not _is_damage(error):  # locked, read-only, a full disk
                raise
            self.was_damaged = True
            with folder_to_oneself(self.path.parent):
                _delete_files(self.path)
                self._database = self._opened()
        with self._cache_errors():
            self._prune()

    def __reduce__(self) -> tuple[Any, ...]:
        return ResultCache, (self.path,)

    def close(self) -> None:
        """Nothing can be done with it any more."""
        with self._lock:
            self._database.close()

    def recall(self, path: Path, model: KeyModel) -> Memory:
        """What is known of the file at ``path``; it is not opened."""
        stamp = stamp_of(path)
        row = None
        with self._cache_errors():
            row = self._database.execute(
                "SELECT files.identity, estimate, files.used FROM files"
                " LEFT JOIN estimates ON estimates.identity = files.identity AND listener = ?"
                " WHERE path = ? AND stamp = ?",
                (_listener(model), _name(path), stamp),
            ).fetchone()
        if row is None or not stamp:
            return Memory(stamp)
        identity, packed, used = row
        if not isinstance(identity, bytes) or not isinstance(used, int):  # damaged, in a way that SQLite cannot see
            return Memory(stamp)
        if used < _today() - _TOUCH_DAYS:
            with self._cache_errors():
                self._database.execute("UPDATE files SET used = ? WHERE path = ?", (_today(), _name(path)))
                self._database.execute("UPDATE estimates SET used = ? WHERE identity = ?", (_today(), identity))
        return Memory(stamp, identity, _unpacked(packed) if packed else None)

    def look_up(self, path: Path, model: KeyModel, *, match_audio: bool = False) -> Memory:
        """The stored result for a file that is not going to be analyzed.

        Args:
            path: the file.
            model: whose result is wanted.
            match_audio: read a file that is not known by its path (moved, renamed or retagged by another program) once,
                to find its result by the content of its audio. Nothing is decoded.
        """
        memory = self.recall(path, model)
        if memory.identity or not memory.stamp or not match_audio or not self._has_results():
            return memory
        identity = identity_of(path)
        if identity is None or stamp_of(path) != memory.stamp:  # unreadable, or changed while it was read
            return Memory()
        self.note(path, memory.stamp, identity)
        return Memory(memory.stamp, identity, self.estimate(identity, model))

    def estimate(self, identity: bytes, model: KeyModel) -> KeyEstimate | None:
        """What the model heard in the recording, wherever the file was and whatever its tags were then."""
        row = None
        with self._cache_errors():
            row = self._database.execute(
                "SELECT estimate FROM estimates WHERE identity = ? AND listener = ?", (identity, _listener(model))
            ).fetchone()
        return _unpacked(row[0]) if row else None

    def keep(self, identity: bytes, model: KeyModel, estimate: KeyEstimate) -> None:
        """Remembers what the model heard in the recording."""
        with self._cache_errors():
            self._database.execute(
                "INSERT OR REPLACE INTO estimates VALUES (?, ?, ?, ?)",
                (identity, _listener(model), _packed(estimate), _today()),
            )

    def note(self, path: Path, stamp: str, identity: bytes) -> None:
        """Remembers which recording the file at ``path`` was when it had this stamp."""
        with self._cache_errors():
            self._database.execute(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", (_name(path), stamp, identity, _today())
            )

    def count(self) -> int:
        """How many results are in it.

        Raises:
            OSError, sqlite3.Error: it cannot be read, and a damaged one not be made anew.
        """
        with self._lock:
            try:
                return self._count()
            except sqlite3.Error as error:
                if not _is_damage(error):
                    raise
                self._begin_anew()
                return self._count()

    def clear(self) -> None:
        """Forgets everything, and gives the space back.

        Raises:
            OSError, sqlite3.Error: the file can neither be written nor be deleted.
        """
        with self._lock:
            try:
                for table in ("files", "estimates"):
                    self._database.execute(f"DELETE FROM {table}")  # noqa: S608 (no input)
                self._database.execute("VACUUM")
                self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            except sqlite3.Error:
                self._begin_anew()

    def _count(self) -> int:
        return int(self._database.execute("SELECT count(*) FROM estimates").fetchone()[0])

    def _opened(self) -> sqlite3.Connection:
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
            self._file = _file_number(self.path)
        except BaseException:
            database.close()
            raise
        return database

    def _has_results(self) -> bool:
        found = None
        with self._cache_errors():
            found = self._database.execute("SELECT 1 FROM estimates LIMIT 1").fetchone()
        return found is not None

    def _begin_anew(self) -> None:
        """Delete the file and make it anew, unless another process has done that already.

        Raises:
            OSError, sqlite3.Error: that cannot be done.
        """
        self.was_damaged = True
        self._database.close()
        with folder_to_oneself(self.path.parent):
            if _file_number(self.path) in (self._file, None):
                _delete_files(self.path)
            self._database = self._opened()

    def _prune(self) -> None:
        numbers = [self._database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count")]
        (page_size,) = self._database.execute("PRAGMA page_size").fetchone()
        if (numbers[0] - numbers[1]) * page_size <= MAX_BYTES:
            return
        for table in ("files", "estimates"):
            self._database.execute(
                f"DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} ORDER BY used, rowid"  # noqa: S608
                f" LIMIT (SELECT (count(*) + 2) / 3 FROM {table}))"
            )

    @contextmanager
    def _cache_errors(self) -> Iterator[None]:
        """One thread at a time; whatever SQLite complains of, the work goes on, with a new cache if it was damaged."""
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                if _is_damage(error):
                    with suppress(OSError, sqlite3.Error):
                        self._begin_anew()


def _delete_files(path: Path) -> None:
    for ending in ("-wal", "-shm", ""):  # in this order: a new file must not meet the old write-ahead log
        Path(f"{path}{ending}").unlink(missing_ok=True)


def _is_damage(error: sqlite3.Error) -> bool:
    """Whether the file is the reason: damaged, no database, of another version, or without our tables."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # not of SQLite itself: of another version; or it is closed
        return type(error) is sqlite3.DatabaseError
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)


def _file_number(path: Path) -> tuple[int, int] | None:
    """What tells the file from one that has taken its place; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def open_cache() -> ResultCache | None:
    """The user's cache; None where none can be had: then everything is heard."""
    try:
        return ResultCache()
    except (OSError, sqlite3.Error):
        return None


def empty_cache() -> ResultCache:
    """The user's cache, opened, without a result. A file that cannot be emptied is deleted and made anew.

    Raises:
        OSError, sqlite3.Error: it cannot be deleted either.
    """
    path = cache_folder() / FILE_NAME
    try:
        results = ResultCache(path)
    except sqlite3.Error:
        with folder_to_oneself(path.parent):
            _delete_files(path)
        return ResultCache(path)
    results.clear()
    return results


def stamp_of(path: Path) -> str:
    """Size, times and inode of the file, as text; "" if it cannot be looked at."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return ""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"


def identity_of(path: Path) -> bytes | None:
    """Digest by which the recording is known; None if the file cannot be read.

    Of files without a place for tags, and of damaged ones, the whole content counts.
    """
    try:
        with as_tag_error(), open_regular(path) as file:
            try:
                container = sniff(file)
                digest = b"audio " + container.encode() + audio_digest(file, container)
            except TagError:
                digest = b"file " + digest_of_rest(file, ()).digest()
    except TagError:
        return None
    return hashlib.sha256(digest).digest()[:16]


def _name(path: Path) -> bytes:
    return os.fsencode(path.absolute())


def _listener(model: KeyModel) -> str:
    return f"{model.sha256[:32]} {DETECTION_VERSION}"


def _today() -> int:
    return int(time.time() // 86400)


def _packed(estimate: KeyEstimate) -> bytes:
    key = -1 if estimate.key is None else estimate.key.index
    tuning, sureness = (
        float("nan") if number is None else number for number in (estimate.tuning_cents, estimate.tuning_confidence)
    )
    probabilities = map(float, estimate.probabilities)
    segments = (
        _SEGMENT.pack(segment.key.index, segment.start, segment.end, segment.confidence)
        for segment in estimate.segments
    )
    head = _HEAD.pack(key, estimate.confidence, tuning, sureness, estimate.duration, *probabilities)
    data = head + b"".join(segments)
    return zlib.crc32(data).to_bytes(4) + data  # SQLite would not see a bit that has flipped


def _unpacked(data: bytes) -> KeyEstimate | None:
    """The estimate; None if the record is damaged."""
    try:
        checksum, data = data[:4], data[4:]
        if zlib.crc32(data).to_bytes(4) != checksum:
            return None
        key, confidence, tuning, sureness, duration, *probabilities = _HEAD.unpack_from(data)
        segments = tuple(
            Segment(start, end, Key.from_index(index), share)
            for index, start, end, share in _SEGMENT.iter_unpack(data[_HEAD.size :])
        )
        return KeyEstimate(
            key=None if key < 0 else Key.from_index(key),
            confidence=confidence,
            probabilities=np.array(probabilities, dtype=np.float32),
            windows=(),
            segments=segments,
            tuning_cents=None if tuning != tuning else tuning,  # nan
            duration=duration,
            tuning_confidence=None if sureness != sureness else sureness,
        )
    except (struct.error, TypeError, ValueError, IndexError):
        return None
