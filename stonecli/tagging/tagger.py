"""Detect the key of one file and write it (:class:`Tagger`), or remove it (:class:`Remover`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from stonecli.cache.content_hash import hash_content
from stonecli.cache.results import CacheEntry, ResultCache, opened_cache
from stonecli.detection.detect import detect_key
from stonecli.detection.estimate import KeyEstimate
from stonecli.errors import TagError
from stonecli.key import Key
from stonecli.library.locations import Location
from stonecli.library.music_file import CHANGED_MEANWHILE, MusicFile, Source, opened
from stonecli.model.session import KeyModel, default_model
from stonecli.tagging.converter import Converter
from stonecli.tagging.options import PREVIEW, TagOptions
from stonecli.tagging.results import Status, TagResult
from stonecli.tags import FieldRule, KeyTags, read_tags, recorded, remove_key, write_tags
from stonecli.tags.edit.atomic_replace import Journal, check_writable
from stonecli.tags.tempo_text import parse_bpm, says_no_tempo
from stonecli.tempo.bpm import fold_tempo, rounded_bpm

if TYPE_CHECKING:
    from stonecli.tags.undo.journal import JournalRun

_REMOVAL_PREVIEW = TagOptions(remove=True)


@dataclass(frozen=True)
class Tagger:
    """Detects, and on request writes, the key of one file when called with its path. It can be pickled.

    Attributes:
        model: detects the keys.
        options: what to do.
        journal: records each change before it is made; without one, changes cannot be undone.
        cache: results of earlier runs. None: every file is analyzed, except those that keep their key.
        cancelled: once it returns True, the analysis of a file ends early. A write is always finished.
    """

    model: KeyModel
    options: TagOptions = PREVIEW
    journal: Journal | None = None
    cache: ResultCache | None = None
    cancelled: Callable[[], bool] | None = None

    def __call__(self, path: Source) -> TagResult:
        """The result for a file, given by its path or open.

        Raises:
            AudioError, TagError, ModelError, OSError: the file cannot be analyzed or written; it is unchanged.
            Cancelled: the analysis was ended early; the file is unchanged.
        """
        with opened(path) as music:  # once, and before anything is read, so that a change by another program is noticed
            old = self._old_tags(music)
            keeps_key = not self.options.overwrite and (old.key is not None or old.is_unreadable)
            if keeps_key and not self._wants_tempo(old):
                return self._keep(music, old)
            estimate, content_hash = self._analyze(music)
            if keeps_key:
                return self._keep(music, old, CacheEntry(content_hash=content_hash, estimate=estimate))
            status = self._act(music, estimate, self._new_bpm(old, estimate))
            if self.cache and content_hash and status == "written":  # new tags, and the same recording
                self.cache.record(music, content_hash)
            return self._result(music, old, status, estimate.key, estimate)

    def _wants_tempo(self, old: KeyTags) -> bool:
        """Whether the tempo is to be estimated and written."""
        return self.options.bpm and (self.options.overwrite or says_no_tempo(old.bpm_text))

    def _new_bpm(self, old: KeyTags, estimate: KeyEstimate | None) -> float | None:
        """The tempo to be written; None to write none."""
        tempo = estimate.tempo.bpm if estimate and estimate.tempo else None
        if tempo is None or not self._wants_tempo(old):
            return None
        return rounded_bpm(fold_tempo(tempo, *self.options.bpm_range) if self.options.bpm_range else tempo)

    def _bpm(self, old: KeyTags, estimate: KeyEstimate | None) -> float | None:
        """The tempo of the file after the run."""
        if not self.options.bpm:
            return None
        new = self._new_bpm(old, estimate)
        return parse_bpm(old.bpm_text or "") if new is None else new

    def _old_tags(self, music: MusicFile) -> KeyTags:
        try:
            return read_tags(music)
        except TagError:
            if self.options.write:
                raise  # now, not after the analysis
            return KeyTags("", None, None)  # a preview needs no tags

    def _analyze(self, music: MusicFile) -> tuple[KeyEstimate, bytes | None]:
        """The estimate, from the cache or by analyzing the file; and the content hash of the recording, if known."""
        if self.cache is None:
            return self._detect(music), None
        entry = self.cache.get(music, self.model, tempo=self.options.bpm)
        if entry.estimate:
            return entry.estimate, entry.content_hash
        content_hash = entry.content_hash or hash_content(music)
        known = self.cache.estimate(content_hash, self.model, music, tempo=self.options.bpm) if content_hash else None
        estimate = known or self._detect(music)
        if music.is_changed():  # the old or the new content may have been analyzed
            raise TagError(CHANGED_MEANWHILE)
        if content_hash and not known:
            self.cache.put(content_hash, self.model, estimate)
        if content_hash and not entry.content_hash:
            self.cache.record(music, content_hash)
        return estimate, content_hash

    def _detect(self, music: MusicFile) -> KeyEstimate:
        if self.options.write:  # now, not after minutes of analysis
            check_writable(music.target, music.status, preserve_mtime=self.options.preserve_mtime)
        estimate = detect_key(music, self.model, tempo=self.options.bpm, cancelled=self.cancelled)
        return replace(estimate, windows=())

    def _keep(self, music: MusicFile, old: KeyTags, known: CacheEntry | None = None) -> TagResult:
        """The result for a file that keeps its key text, with its analysis, by default from the cache.

        A text that stone cannot read may name any key, so no key is written that could contradict it.
        """
        if known is None and self.cache:
            match_audio = self.options.match_audio
            known = self.cache.look_up(music, self.model, match_audio=match_audio, tempo=self.options.bpm)
        known = known or CacheEntry()
        status = self._complete(music, old.key, self._new_bpm(old, known.estimate))
        if self.cache and known.content_hash and status == "written":
            self.cache.record(music, known.content_hash)
        return self._result(music, old, status, old.key, known.estimate)

    def _result(
        self, music: MusicFile, old: KeyTags, status: Status, key: Key | None, estimate: KeyEstimate | None
    ) -> TagResult:
        return TagResult(
            music.path,
            status,
            key,
            old.text,
            old.key,
            estimate,
            self._bpm(old, estimate),
            old.bpm_text,
            other_key=old.other_key,
        )

    def _complete(self, music: MusicFile, key: Key | None, bpm: float | None) -> Status:
        """Write the key that the file already has to its other fields, and the tempo; this needs no analysis.

        ``key`` is None for a text that stone cannot read.
        """
        rules = tuple(rule for rule in self.options.rules if rule.field != "key")
        is_complete = not (rules or bpm is not None) or not self._write(music, key, rules, bpm)
        if self.options.write and not is_complete:
            return "written"
        if key is None:
            return "unreadable key"  # in a preview also if a tempo is missing: the key is what needs attention
        if is_complete:
            return "kept"
        return "incomplete" if rules and self._write(music, key, rules, None) else "tempo missing"

    def _write(self, music: MusicFile, key: Key | None, rules: tuple[FieldRule, ...], bpm: float | None) -> bool:
        return write_tags(
            music,
            key,
            rules,
            bpm,
            preserve_mtime=self.options.preserve_mtime,
            journal=self.journal,
            write=self.options.write,
        )

    def _act(self, music: MusicFile, estimate: KeyEstimate, bpm: float | None) -> Status:
        is_sure = estimate.key is not None and estimate.confidence >= self.options.min_confidence
        without_key: Status = "no key" if estimate.key is None else "unsure"
        if not self.options.write:
            return "detected" if is_sure else without_key
        if not is_sure and bpm is None:
            return without_key
        if self._write(music, estimate.key if is_sure else None, self.options.rules, bpm):
            return "written"
        return "unchanged" if is_sure else without_key


@dataclass(frozen=True)
class Remover:
    """Removes what stone wrote to one file when called with its path; analyzes nothing. It can be pickled.

    Attributes:
        options: the rules name the fields to clear and how they were written.
        journal: records each change before it is made; without one, changes cannot be undone.
    """

    options: TagOptions = _REMOVAL_PREVIEW
    journal: Journal | None = None

    def __call__(self, path: Source) -> TagResult:
        """The result for a file, given by its path or open.

        Raises:
            TagError, OSError: the file cannot be read or written; it is unchanged.
        """
        write = self.options.write
        with opened(path) as music:
            old = read_tags(music)
            found = remove_key(
                music,
                self.options.rules,
                preserve_mtime=self.options.preserve_mtime,
                journal=self.journal,
                write=write,
            )
        status: Status = "unchanged" if not found else "removed" if write else "removable"
        return TagResult(music.path, status, None, old.text, old.key, None)


FileAction: TypeAlias = Tagger | Remover | Converter
"""Processes a file when it is called with its path."""


@dataclass(frozen=True)
class LocationTagger:
    """Calls ``act`` with a path, or with a temporary copy of the recording at a URL. Tags are never written to URLs.

    Attributes:
        act: analyzes one file; a ``Tagger`` without a cache, because the path of the copy is temporary.
        writes: whether the user has asked to write tags.
        act_on_path: called instead of ``act`` for paths, if given.
    """

    act: Callable[[Path], TagResult]
    writes: bool
    act_on_path: Callable[[Path], TagResult] | None = None

    def __call__(self, location: Location) -> TagResult:
        """The result of the recording at ``location``.

        Raises:
            TagError: tags cannot be written to a URL.
            StorageError: the recording cannot be downloaded. Others: as ``act``.
        """
        if isinstance(location, Path):
            return (self.act_on_path or self.act)(location)
        from stonecli.remote.storage import fetched

        if self.writes:
            raise TagError("tags can only be written to files, not to URLs")
        with fetched(location) as copy:
            return replace(self.act(copy), path=location)


def make_tagger(
    model: KeyModel | None,
    options: TagOptions,
    journal: Journal | None = None,
    cache: ResultCache | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> FileAction:
    """The callable that does what ``options`` say; ``model`` None is the built-in one.

    Raises:
        ModelError, DeviceError: the built-in model cannot be loaded.
    """
    if options.remove:
        return Remover(options, journal)
    if options.convert:
        return Converter(options, journal, cache)
    return Tagger(default_model() if model is None else model, options, journal, cache, cancelled)


@contextmanager
def open_tagger(
    model: KeyModel | None = None,
    options: TagOptions = PREVIEW,
    *,
    description: str = "",
    cancelled: Callable[[], bool] | None = None,
    on_warning: Callable[[str], None] | None = None,
) -> Iterator[tuple[FileAction, JournalRun | None]]:
    """A tagger with an open result cache, and the open run of the undo journal: None without ``options.write``.

    A cache that cannot be opened is not used. Both are closed at the end.

    Args:
        model: None for the built-in one; not used for ``options.remove`` and ``options.convert``.
        options: what to do.
        description: what the run does, for ``stone undo --list``. Default: :attr:`TagOptions.description`.
        cancelled: see :class:`Tagger`.
        on_warning: called with one line if the result cache cannot be used; see ``opened_cache``.

    Raises:
        JournalError: the undo journal cannot be used; without it nothing is written.
        ModelError, DeviceError: the built-in model cannot be loaded.
    """
    with ExitStack() as stack:
        run = stack.enter_context(recorded(description or options.description)) if options.write else None
        is_cached = options.use_cache and not options.remove and (options.write or not options.convert)
        cache = stack.enter_context(opened_cache(on_warning)) if is_cached else None
        yield make_tagger(model, options, run, cache, cancelled), run
