"""One file's whole way through ``stone tag``: the key that is there, the key that is heard, and what is written."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from stonecli.detection.detect import KeyEstimate, detect_key
from stonecli.errors import TagError
from stonecli.key import Key
from stonecli.library.cache import CacheEntry, ResultCache, hash_content, stat_fingerprint
from stonecli.model.session import KeyModel
from stonecli.remote.locations import Place
from stonecli.tags import FieldRule, KeyTags, read_tags, remove_key, write_key
from stonecli.tags.edit.atomic_replace import CHANGED_MEANWHILE, Journal, check_writable

Status = Literal[
    "detected",
    "written",
    "unchanged",
    "kept",
    "unreadable key",
    "incomplete",
    "no key",
    "unsure",
    "removed",
    "removable",
]


@dataclass(frozen=True)
class TagResult:
    """What became of one file.

    Attributes:
        path: as it was found; or its address.
        status: ``detected``: heard, nothing was to be written (a preview); ``written``; ``unchanged``: the file said
            so already; ``kept``: it has a key and was left as it is; ``unreadable key``: its key field holds a text
            that stone cannot read, and nothing was written; ``incomplete``: it has a key, but another field that was
            asked for lacks it (a preview); ``no key``: there is none to be heard; ``unsure``: heard with less
            confidence than was asked for, so not written; ``removed``, and ``removable`` in a preview: our own text
            was, or could be, taken out.
        key: the detected key, or the file's own where it was kept; None after a removal.
        old_text: the text that the key field held before; None where it held none. Untrusted.
        old_key: the key that it names, if any.
        estimate: the analysis, without the windows: of this run, or, for a kept file, the one in the result cache,
            whose key may differ from ``key``. None where there is none.
    """

    path: Place
    status: Status
    key: Key | None
    old_text: str | None
    old_key: Key | None
    estimate: KeyEstimate | None


@dataclass(frozen=True)
class Tagger:
    """Handles one file when called with its path; can be sent to other processes.

    Attributes:
        model: that listens.
        rules: the fields to write and how.
        write: whether anything is written at all.
        overwrite: whether files that have a key text are analyzed and written again. Otherwise their key field stays,
            and the key that it names is written to the other fields. A text for "no key" (``o``) is no key text.
        min_confidence: 0..1; what is heard with less is not written.
        preserve_mtime: whether a written file keeps its modification time.
        journal: gets the record of each change before it is made.
        cache: results of earlier runs; None to analyze every file, and to know nothing of files that are kept.
        match_audio: whether the audio of a kept file that the cache does not know by its path is read once, to find
            its result by content.
        cancelled: ends the analysis of a file early once it returns True; a write is always finished.
    """

    model: KeyModel
    rules: tuple[FieldRule, ...] = (FieldRule(),)
    write: bool = False
    overwrite: bool = False
    min_confidence: float = 0.0
    preserve_mtime: bool = False
    journal: Journal | None = None
    cache: ResultCache | None = None
    match_audio: bool = False
    cancelled: Callable[[], bool] | None = None

    def __call__(self, path: Path) -> TagResult:
        """What became of the file at ``path``.

        Raises:
            AudioError, TagError, ModelError, OSError: the file cannot be heard or written; it is as it was.
            Cancelled: the analysis was ended early; the file is as it was.
        """
        seen = _status(path)  # before anything of it is read
        old = self._old_tags(path)
        if not self.overwrite and (old.key is not None or old.is_unreadable):
            return self._keep(path, seen, old)
        estimate, identity = self._hear(path)
        status = self._act(path, seen, estimate)
        if self.cache and identity and status == "written":  # the tags are others now, and the recording is the same
            self.cache.record(path, stat_fingerprint(path), identity)
        return TagResult(path, status, estimate.key, old.text, old.key, estimate)

    def _old_tags(self, path: Path) -> KeyTags:
        try:
            return read_tags(path)
        except TagError:
            if self.write:
                raise  # before the work of listening
            return KeyTags("", None, None)  # a preview can do without

    def _hear(self, path: Path) -> tuple[KeyEstimate, bytes | None]:
        """What is or was heard in the file, and the identity of the recording, if it is known."""
        if self.cache is None:
            return self._detect(path), None
        memory = self.cache.get(path, self.model)
        if memory.estimate:
            return memory.estimate, memory.content_hash
        identity = memory.content_hash or hash_content(path)
        known = self.cache.estimate(identity, self.model) if identity else None
        estimate = known or self._detect(path)
        if not memory.fingerprint:
            return estimate, None
        if stat_fingerprint(path) != memory.fingerprint:  # nobody knows which of the two was heard
            raise TagError(CHANGED_MEANWHILE)
        if identity and not known:
            self.cache.put(identity, self.model, estimate)
        if identity and not memory.content_hash:
            self.cache.record(path, memory.fingerprint, identity)
        return estimate, identity

    def _detect(self, path: Path) -> KeyEstimate:
        if self.write:
            check_writable(path, preserve_mtime=self.preserve_mtime)  # before the analysis, which may take minutes
        return replace(detect_key(path, self.model, cancelled=self.cancelled), windows=())

    def _keep(self, path: Path, seen: os.stat_result | None, old: KeyTags) -> TagResult:
        """The result for a file that keeps its key text, with the analysis that the cache has of it.

        A text that stone cannot read may name any key, so nothing is written beside it that could contradict it.
        """
        known = self.cache.look_up(path, self.model, match_audio=self.match_audio) if self.cache else CacheEntry()
        status = "unreadable key" if old.key is None else self._complete(path, seen, old.key)
        if self.cache and known.content_hash and status == "written":
            self.cache.record(path, stat_fingerprint(path), known.content_hash)
        return TagResult(path, status, old.key, old.text, old.key, known.estimate)

    def _complete(self, path: Path, seen: os.stat_result | None, key: Key) -> Status:
        """Write the key that the file has to its other fields; this needs no analysis."""
        rules = tuple(rule for rule in self.rules if rule.field != "key")
        if not rules or not self._write(path, seen, key, rules):
            return "kept"
        return "written" if self.write else "incomplete"

    def _write(self, path: Path, seen: os.stat_result | None, key: Key, rules: tuple[FieldRule, ...]) -> bool:
        return write_key(
            path,
            key,
            rules,
            preserve_mtime=self.preserve_mtime,
            journal=self.journal,
            write=self.write,
            seen=seen,
        )

    def _act(self, path: Path, seen: os.stat_result | None, estimate: KeyEstimate) -> Status:
        if estimate.key is None:
            return "no key"
        if estimate.confidence < self.min_confidence:
            return "unsure"
        if not self.write:
            return "detected"
        return "written" if self._write(path, seen, estimate.key, self.rules) else "unchanged"


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except (OSError, ValueError):  # what reads it says what is wrong
        return None


@dataclass(frozen=True)
class Remover:
    """Takes out of one file what we wrote there, when called with its path; listens to nothing.

    Attributes:
        rules: the fields to clear, and how they were written.
        write: whether anything is changed at all.
        preserve_mtime: whether a changed file keeps its modification time.
        journal: gets the record of each change before it is made.
    """

    rules: tuple[FieldRule, ...] = (FieldRule(),)
    write: bool = False
    preserve_mtime: bool = False
    journal: Journal | None = None

    def __call__(self, path: Path) -> TagResult:
        """What became of the file at ``path``.

        Raises:
            TagError: the file cannot be read or written; it is as it was.
        """
        old = read_tags(path)
        found = remove_key(path, self.rules, preserve_mtime=self.preserve_mtime, journal=self.journal, write=self.write)
        status: Status = "unchanged" if not found else "removed" if self.write else "removable"
        return TagResult(path, status, None, old.text, old.key, None)
