"""The result cache: a recording is analyzed only once by the same model.

A recording is identified by its content hash, which is based on the digest of its audio
(:func:`stonecli.tags.edit.audio_digest.audio_digest`). The hash stays the same when the file is moved, copied, or
tagged by stone; computing it takes a hundredth of the time of an analysis. An index by path comes first: as long as the
stat fingerprint of a file (size, times and inode) is the same, the file is not read. The results are stored by content
hash, hash of the model and version of the detection.

It is one SQLite file in the user's cache folder. Its errors only cost time: a file whose result cannot be read is
analyzed, a result that cannot be written is dropped, a damaged database is deleted and created again.
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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stonecli.detection.detect import DETECTION_VERSION, KeyEstimate
from stonecli.detection.segments import Segment
from stonecli.errors import TagError
from stonecli.key import Key
from stonecli.library.music_file import MusicFile, Source, opened
from stonecli.model.session import KeyModel
from stonecli.tags.edit.audio_digest import audio_digest
from stonecli.tags.edit.digest import Digest
from stonecli.tags.edit.old_digest import OldDigest
from stonecli.tags.formats.sniff import sniff
from stonecli.tags.read import as_tag_error
from stonecli.tags.undo.record import digest_outside
from stonecli.util.app_dirs import cache_folder, make_private_database, make_private_folder
from stonecli.util.locks import folder_lock

if TYPE_CHECKING:
    from stonecli.tempo.estimate import TempoEstimate

FILE_NAME = "results.sqlite3"
MAX_BYTES = 512 << 20  # about a million recordings; beyond it, the least recently used third is deleted
_TOUCH_DAYS = 30  # "last used" is only updated when it is this old, so that a second run writes nothing
_BUSY_SECONDS = 10.0
_VERSION = 3
_HASH_VERSION = b"\x02"  # first byte of a content hash; those of earlier versions have 16 random bytes instead
# Three columns have the names of earlier versions: stamp is the stat fingerprint, identity the content hash, and
# listener the model with the version of the detection (_analyzer).
_SCHEMA = """
CREATE TABLE files (
    path BLOB PRIMARY KEY, stamp TEXT NOT NULL, identity BLOB NOT NULL, used INTEGER NOT NULL
);
CREATE TABLE estimates (
    identity BLOB NOT NULL, listener TEXT NOT NULL, estimate BLOB NOT NULL, used INTEGER NOT NULL,
    PRIMARY KEY (identity, listener)
)
"""
# key (-1: none), confidence, tuning and its confidence (nan: none), duration, 24 probabilities
_HEAD = struct.Struct("<bdddd24f")
_SEGMENT = struct.Struct("<bddd")  # key, start, end, confidence
_TEMPO = struct.Struct("<dddd")  # beats per minute and alternative (nan: none), confidence, stability


@dataclass(frozen=True)
class CacheEntry:
    """What the cache has about a file in its present state.

    Attributes:
        content_hash: content hash; None if it is unknown.
        estimate: stored result; None if there is none for this path.
    """

    content_hash: bytes | None = None
    estimate: KeyEstimate | None = None


class ResultCache:
    """An open result cache; created if it does not exist. It can be used by many threads and sent to other processes.

    A damaged database is deleted and created again as soon as the damage is found.

    Args:
        path: the file; None for the one in the user's cache folder.

    Attributes:
        was_damaged: whether the database was damaged and created again.

    Raises:
        OSError, sqlite3.Error: it cannot be created.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or cache_folder() / FILE_NAME
        self.was_damaged = False
        self._lock = threading.Lock()
        make_private_folder(self.path.parent)
        try:
            self._database = self._open()
        except sqlite3.Error as error:
            if not _is_damage(error):  # locked, read-only, a full disk
                raise
            self.was_damaged = True
            with folder_lock(self.path.parent):
                _delete_files(self.path)
                self._database = self._open()
        with self._cache_errors():
            self._prune()

    def __reduce__(self) -> tuple[Any, ...]:
        return ResultCache, (self.path,)

    def close(self) -> None:
        """Close the cache; it cannot be used afterwards."""
        with self._lock:
            self._database.close()

    def get(self, music: MusicFile, model: KeyModel, *, tempo: bool = False) -> CacheEntry:
        """The entry for the file, by its path and stat fingerprint; the file is not read.

        With ``tempo``, there is only an estimate if the tempo is stored, too.
        """
        row, name = None, _name(music.path)
        with self._cache_errors():
            row = self._database.execute(
                "SELECT files.identity, estimate, files.used FROM files"
                " LEFT JOIN estimates ON estimates.identity = files.identity AND listener = ?"
                " WHERE path = ? AND stamp = ?",
                (_analyzer(model), name, music.fingerprint),
            ).fetchone()
        if row is None:
            return CacheEntry()
        content_hash, packed, used = row
        if not isinstance(content_hash, bytes) or not isinstance(used, int):  # damage that SQLite does not detect
            return CacheEntry()
        if used < _today() - _TOUCH_DAYS:
            with self._cache_errors():
                self._database.execute("UPDATE files SET used = ? WHERE path = ?", (_today(), name))
                self._database.execute("UPDATE estimates SET used = ? WHERE identity = ?", (_today(), content_hash))
        estimate = _decode_record(packed) if packed else None
        return CacheEntry(content_hash, self._with_tempo(estimate, content_hash) if tempo else estimate)

    def look_up(
        self, music: MusicFile, model: KeyModel, *, match_audio: bool = False, tempo: bool = False
    ) -> CacheEntry:
        """The entry for a file that will not be analyzed.

        Args:
            music: the file.
            model: the model whose result is requested.
            match_audio: whether to read a file that is unknown by its path (moved, renamed or retagged by another
                program) once, to find its result by content hash. Nothing is decoded.
            tempo: whether the tempo is requested, too, if it is stored.
        """
        memory = self._look_up(music, model, match_audio)
        if tempo and memory.content_hash and memory.estimate:
            return replace(memory, estimate=self._with_tempo(memory.estimate, memory.content_hash) or memory.estimate)
        return memory

    def _look_up(self, music: MusicFile, model: KeyModel, match_audio: bool) -> CacheEntry:
        memory = self.get(music, model)
        if memory.content_hash or not match_audio or not self._has_results():
            return memory
        content_hash = hash_content(music)
        if content_hash is None or music.is_changed():  # unreadable, or changed while it was read
            return CacheEntry()
        self.record(music, content_hash)
        return CacheEntry(content_hash, self.estimate(content_hash, model, music))

    def estimate(
        self, content_hash: bytes, model: KeyModel, music: MusicFile | None = None, *, tempo: bool = False
    ) -> KeyEstimate | None:
        """The stored result of the model for a content hash; None if there is none.

        With ``tempo``, there is only a result if the tempo is stored, too. With the file ``music`` itself, results that
        an earlier version stored under its own hash are found, too. This reads the file once more, which takes a
        hundredth of the time of an analysis.
        """
        row = None
        with self._cache_errors():
            row = self._database.execute(
                "SELECT estimate FROM estimates WHERE identity = ? AND listener = ?", (content_hash, _analyzer(model))
            ).fetchone()
        if row is None and music is not None and self._has_old_hashes():
            old_hash = hash_content(music, OldDigest)
            estimate = self.estimate(old_hash, model) if old_hash else None
            if estimate:
                self.put(content_hash, model, estimate)
        else:
            estimate = _decode_record(row[0]) if row else None
        return self._with_tempo(estimate, content_hash) if tempo else estimate

    def _with_tempo(self, estimate: KeyEstimate | None, content_hash: bytes) -> KeyEstimate | None:
        """The estimate with the stored tempo; None if there is no estimate, or no tempo."""
        if estimate is None:
            return None
        row = None
        with self._cache_errors():
            row = self._database.execute(
                "SELECT estimate FROM estimates WHERE identity = ? AND listener = ?", (content_hash, _tempo_analyzer())
            ).fetchone()
        tempo = _decode_tempo(row[0]) if row else None
        return replace(estimate, tempo=tempo) if tempo else None

    def put(self, content_hash: bytes, model: KeyModel, estimate: KeyEstimate) -> None:
        """Store the result of the model for a content hash, and the tempo, if there is an estimate of it."""
        rows = [(content_hash, _analyzer(model), _encode_record(estimate), _today())]
        if estimate.tempo is not None:
            rows.append((content_hash, _tempo_analyzer(), _encode_tempo(estimate.tempo), _today()))
        with self._cache_errors():
            self._database.executemany("INSERT OR REPLACE INTO estimates VALUES (?, ?, ?, ?)", rows)

    def record(self, music: MusicFile, content_hash: bytes) -> None:
        """Record the content hash of the file with its path and stat fingerprint."""
        with self._cache_errors():
            self._database.execute(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)",
                (_name(music.path), music.fingerprint, content_hash, _today()),
            )

    def count(self) -> int:
        """The number of results.

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
                    self._database.execute(f"DELETE FROM {table}")  # noqa: S608 (no input)
                self._database.execute("VACUUM")
                self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            except sqlite3.Error:
                self._recreate()

    def _count(self) -> int:
        return int(
            self._database.execute("SELECT count(*) FROM estimates WHERE listener NOT LIKE 'tempo %'").fetchone()[0]
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

    def _has_results(self) -> bool:
        found = None
        with self._cache_errors():
            found = self._database.execute("SELECT 1 FROM estimates LIMIT 1").fetchone()
        return found is not None

    def _has_old_hashes(self) -> bool:
        found = None
        with self._cache_errors():
            found = self._database.execute(
                "SELECT 1 WHERE EXISTS (SELECT 1 FROM estimates WHERE identity < ?)"
                " OR EXISTS (SELECT 1 FROM estimates WHERE identity >= ?)",
                (_HASH_VERSION, bytes([_HASH_VERSION[0] + 1])),
            ).fetchone()
        return found is not None

    def _recreate(self) -> None:
        """Delete the database and create it again, unless another process has done so already.

        Raises:
            OSError, sqlite3.Error: it cannot be deleted or created.
        """
        self.was_damaged = True
        self._database.close()
        with folder_lock(self.path.parent):
            if _file_id(self.path) in (self._file, None):
                _delete_files(self.path)
            self._database = self._open()

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
        """Allow one thread at a time and ignore errors of SQLite; a damaged database is created again."""
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                if _is_damage(error):
                    with suppress(OSError, sqlite3.Error):
                        self._recreate()


def _delete_files(path: Path) -> None:
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


def open_cache() -> ResultCache | None:
    """The user's cache; None if it cannot be opened: then every file is analyzed."""
    try:
        return ResultCache()
    except (OSError, sqlite3.Error):
        return None


def empty_cache() -> ResultCache:
    """The user's cache, opened and emptied. A database that cannot be emptied is deleted and created again.

    Raises:
        OSError, sqlite3.Error: it cannot be deleted either.
    """
    path = cache_folder() / FILE_NAME
    try:
        results = ResultCache(path)
    except sqlite3.Error:
        with folder_lock(path.parent):
            _delete_files(path)
        return ResultCache(path)
    results.clear()
    return results


def hash_content(path: Source, kind: type[Digest | OldDigest] = Digest) -> bytes | None:
    """The content hash of the recording in a file, given by its path or open; None if the file cannot be read.

    For damaged files, and formats without tags, it covers the whole file. With :class:`OldDigest` for ``kind``, it is
    the hash that earlier versions stored.
    """
    try:
        with as_tag_error(), opened(path) as music:
            file = music.file
            try:
                container = sniff(file)
                digest = b"audio " + container.encode() + audio_digest(file, container, kind)
            except TagError:
                digest = b"file " + digest_outside(file, (), kind).digest()
    except TagError:
        return None
    content_hash = hashlib.sha256(digest).digest()[:16]
    return content_hash if kind is OldDigest else _HASH_VERSION + content_hash


def _name(path: Path) -> bytes:
    return os.fsencode(path.absolute())


def _analyzer(model: KeyModel) -> str:
    return f"{model.sha256[:32]} {DETECTION_VERSION}"


def _tempo_analyzer() -> str:
    from stonecli.tempo.estimate import TEMPO_VERSION

    return f"tempo {TEMPO_VERSION}"


def _today() -> int:
    return int(time.time() // 86400)


def _encode_record(estimate: KeyEstimate) -> bytes:
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
    return zlib.crc32(data).to_bytes(4) + data  # SQLite does not detect a flipped bit


def _decode_record(data: bytes) -> KeyEstimate | None:
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


def _encode_tempo(tempo: TempoEstimate) -> bytes:
    bpm, alternative = (float("nan") if value is None else value for value in (tempo.bpm, tempo.alternative))
    data = _TEMPO.pack(bpm, alternative, tempo.confidence, tempo.stability)
    return zlib.crc32(data).to_bytes(4) + data


def _decode_tempo(data: bytes) -> TempoEstimate | None:
    """The tempo; None if the record is damaged."""
    from stonecli.tempo.estimate import TempoEstimate

    try:
        if zlib.crc32(data[4:]).to_bytes(4) != data[:4]:
            return None
        bpm, alternative, confidence, stability = _TEMPO.unpack(data[4:])
    except (struct.error, TypeError):
        return None
    return TempoEstimate(
        bpm if bpm == bpm else None,  # not nan
        confidence,
        alternative if alternative == alternative else None,
        stability,
    )
