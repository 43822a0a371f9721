"""The result cache: a recording is analyzed only once by the same model.

A recording is identified by its content hash, which is based on the digest of its audio
(:func:`stonecli.tags.edit.audio_digest.audio_digest`). The hash stays the same when the file is moved, copied, or
tagged by stone; computing it takes a hundredth of the time of an analysis. An index by path comes first: as long as the
stat fingerprint of a file (size, times and inode) is the same, the file is not read. The results are stored by content
hash, hash of the model and version of the detection.

It is one SQLite file in the user's cache folder. Its errors only cost time: a file whose result cannot be read is
analyzed, a result that cannot be written is dropped, a damaged database is deleted and created again. The user gets one
warning per run.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stonecli.cache.content_hash import HASH_VERSION, hash_content
from stonecli.cache.database import CacheDatabase, delete_database
from stonecli.cache.records import decode_estimate, decode_tempo, encode_estimate, encode_tempo
from stonecli.detection.detect import DETECTION_VERSION
from stonecli.detection.estimate import KeyEstimate
from stonecli.errors import reason
from stonecli.library.music_file import MusicFile
from stonecli.model.session import KeyModel
from stonecli.tags.edit.old_digest import OldDigest
from stonecli.util.app_dirs import ADVICE, cache_folder
from stonecli.util.locks import folder_lock

FILE_NAME = "results.sqlite3"
_TOUCH_DAYS = 30  # "last used" is only updated when it is this old, so that a second run writes nothing


@dataclass(frozen=True)
class CacheEntry:
    """The entry of the cache for a file in its present state.

    Attributes:
        content_hash: content hash; None if it is unknown.
        estimate: stored result; None if there is none for this path.
    """

    content_hash: bytes | None = None
    estimate: KeyEstimate | None = None


class ResultCache:
    """An open result cache; created if it does not exist. It can be used by many threads and sent to other processes.

    Args:
        path: the file; None for the one in the user's cache folder.

    Raises:
        OSError, sqlite3.Error: it cannot be created.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or cache_folder() / FILE_NAME
        self._database = CacheDatabase(self.path)

    @property
    def warning(self) -> str | None:
        """One line for the user if the cache could not be used, or was damaged and created again; None otherwise."""
        if self._database.error:
            return _unusable(self.path, self._database.error)
        if self._database.was_damaged:
            return f"the result cache {self.path} was damaged or from another version, so stone started a new one"
        return None

    def __reduce__(self) -> tuple[Any, ...]:
        return ResultCache, (self.path,)

    def close(self) -> None:
        """Close the cache; it cannot be used afterwards."""
        self._database.close()

    def get(self, music: MusicFile, model: KeyModel, *, tempo: bool = False) -> CacheEntry:
        """The entry for the file, by its path and stat fingerprint; the file is not read.

        With ``tempo``, there is only an estimate if the tempo is stored, too.
        """
        name = _name(music.path)
        row = self._database.row(
            "SELECT files.identity, estimate, files.used FROM files"
            " LEFT JOIN estimates ON estimates.identity = files.identity AND listener = ?"
            " WHERE path = ? AND stamp = ?",
            (_analyzer(model), name, music.fingerprint),
        )
        if row is None:
            return CacheEntry()
        content_hash, packed, used = row
        if not isinstance(content_hash, bytes) or not isinstance(used, int):  # damage that SQLite does not detect
            return CacheEntry()
        if used < _today() - _TOUCH_DAYS:
            self._database.change("UPDATE files SET used = ? WHERE path = ?", (_today(), name))
            self._database.change("UPDATE estimates SET used = ? WHERE identity = ?", (_today(), content_hash))
        estimate = decode_estimate(packed) if packed else None
        return CacheEntry(content_hash, self._with_tempo(estimate, content_hash) if tempo else estimate)

    def content_hash(self, music: MusicFile) -> bytes | None:
        """The stored content hash of the file, by its path and stat fingerprint; the file is not read."""
        row = self._database.row(
            "SELECT identity FROM files WHERE path = ? AND stamp = ?", (_name(music.path), music.fingerprint)
        )
        return row[0] if row and isinstance(row[0], bytes) else None

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
        entry = self._look_up(music, model, match_audio)
        if tempo and entry.content_hash and entry.estimate:
            return replace(entry, estimate=self._with_tempo(entry.estimate, entry.content_hash) or entry.estimate)
        return entry

    def _look_up(self, music: MusicFile, model: KeyModel, match_audio: bool) -> CacheEntry:
        entry = self.get(music, model)
        if entry.content_hash or not match_audio or not self._has_results():
            return entry
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
        packed = self._packed(content_hash, _analyzer(model))
        if packed is None and music is not None and self._has_old_hashes():
            old_hash = hash_content(music, OldDigest)
            estimate = self.estimate(old_hash, model) if old_hash else None
            if estimate:
                self.put(content_hash, model, estimate)
        else:
            estimate = decode_estimate(packed) if packed is not None else None
        return self._with_tempo(estimate, content_hash) if tempo else estimate

    def _with_tempo(self, estimate: KeyEstimate | None, content_hash: bytes) -> KeyEstimate | None:
        """The estimate with the stored tempo; None if there is no estimate, or no tempo."""
        if estimate is None:
            return None
        packed = self._packed(content_hash, _tempo_analyzer())
        tempo = decode_tempo(packed) if packed is not None else None
        return replace(estimate, tempo=tempo) if tempo else None

    def _packed(self, content_hash: bytes, analyzer: str) -> Any:
        """The stored record, as :mod:`stonecli.cache.records` packs it, if it is undamaged; None if there is none."""
        row = self._database.row(
            "SELECT estimate FROM estimates WHERE identity = ? AND listener = ?", (content_hash, analyzer)
        )
        return row[0] if row else None

    def put(self, content_hash: bytes, model: KeyModel, estimate: KeyEstimate) -> None:
        """Store the result of the model for a content hash, and the tempo, if there is an estimate of it."""
        rows = [(content_hash, _analyzer(model), encode_estimate(estimate), _today())]
        if estimate.tempo is not None:
            rows.append((content_hash, _tempo_analyzer(), encode_tempo(estimate.tempo), _today()))
        self._database.change("INSERT OR REPLACE INTO estimates VALUES (?, ?, ?, ?)", *rows)

    def record(self, music: MusicFile, content_hash: bytes) -> None:
        """Record the content hash of the file with its path and stat fingerprint."""
        self._database.change(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)",
            (_name(music.path), music.fingerprint, content_hash, _today()),
        )

    def count(self) -> int:
        """The number of results.

        Raises:
            OSError, sqlite3.Error: the database cannot be read or, after damage, created again.
        """
        return self._database.count()

    def clear(self) -> None:
        """Delete all results and free their disk space.

        Raises:
            OSError, sqlite3.Error: the file can neither be written nor deleted.
        """
        self._database.clear()

    def _has_results(self) -> bool:
        return self._database.row("SELECT 1 FROM estimates LIMIT 1") is not None

    def _has_old_hashes(self) -> bool:
        row = self._database.row(
            "SELECT 1 WHERE EXISTS (SELECT 1 FROM estimates WHERE identity < ?)"
            " OR EXISTS (SELECT 1 FROM estimates WHERE identity >= ?)",
            (HASH_VERSION, bytes([HASH_VERSION[0] + 1])),
        )
        return row is not None


@contextmanager
def opened_cache(on_warning: Callable[[str], None] | None = None) -> Iterator[ResultCache | None]:
    """The user's cache, closed at the end of the block; None if it cannot be opened: then every file is analyzed.

    Args:
        on_warning: called at most once, with one line that says why the cache cannot be used and what to do: before the
            block if that is known by then, otherwise after it.
    """
    path = cache_folder() / FILE_NAME
    cache = None
    try:
        cache = ResultCache(path)
        warning = cache.warning
    except (OSError, sqlite3.Error) as error:
        warning = _unusable(path, error)
    warn = on_warning or (lambda _: None)
    if warning:
        warn(warning)
    try:
        yield cache
    finally:
        if cache is not None:
            cache.close()
            if not warning and cache.warning:
                warn(cache.warning)


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
            delete_database(path)
        return ResultCache(path)
    results.clear()
    return results


def _unusable(path: Path, error: Exception) -> str:
    what = f"the result cache {path} cannot be used ({reason(error)}), so the next run may analyze the same files again"
    return f"{what}; {ADVICE}"


def _name(path: Path) -> bytes:
    return os.fsencode(path.absolute())


def _analyzer(model: KeyModel) -> str:
    return f"{model.sha256[:32]} {DETECTION_VERSION}"


def _tempo_analyzer() -> str:
    from stonecli.tempo.estimate import TEMPO_VERSION

    return f"tempo {TEMPO_VERSION}"


def _today() -> int:
    return int(time.time() // 86400)
