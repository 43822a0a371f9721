"""Detect keys and write them to tags: for one file (:class:`Tagger`), for a library (:func:`tag_library`), and for the
files that arrive in a folder (:func:`watch_folder`).

``stone tag``, ``stone watch``, the workers of a cluster and the beets plugin all work through this module.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Literal, cast

from stonecli.detection.detect import KeyEstimate, detect_key
from stonecli.errors import Cancelled, TagError
from stonecli.jobs import Outcome, in_threads, stopped_by_signals
from stonecli.key import Agreement, Key
from stonecli.library.cache import CacheEntry, ResultCache, hash_content, open_cache
from stonecli.library.music_file import CHANGED_MEANWHILE, MusicFile, Source, opened
from stonecli.model.session import KeyModel, default_model
from stonecli.remote.locations import Location, Seen, Url, parse_location
from stonecli.tags import FieldRule, KeyTags, read_tags, recorded, remove_key, write_tags
from stonecli.tags.edit.atomic_replace import Journal, check_writable, remove_leftovers
from stonecli.tags.rules import check_rules
from stonecli.tags.tempo_text import parse_bpm, says_no_tempo
from stonecli.tempo.bpm import fold_tempo, rounded_bpm

if TYPE_CHECKING:
    from stonecli.jobs import Run
    from stonecli.library.watch import FolderWatcher
    from stonecli.tags.undo.journal import JournalRun

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
class TagOptions:
    """What to do with each file. The defaults are those of ``stone tag``: a preview that changes nothing.

    Raises:
        ValueError: an option is out of its range, or two of them contradict each other.
    """

    rules: tuple[FieldRule, ...] = (FieldRule(),)
    """Fields to write the key to, each with its notation and its mode."""

    write: bool = False
    """Whether files are changed. False: a preview."""

    overwrite: bool = False
    """Whether files that already have a key are analyzed and written again.

    False: their key field stays as it is, and the key in it is written to the other fields of ``rules``. A text that
    says "no key" (``o``) does not count as a key.
    """

    remove: bool = False
    """Remove what stone wrote to the fields of ``rules`` instead of detecting keys."""

    min_confidence: float = 0.0
    """Lowest confidence, 0 to 1, of a key that is written."""

    preserve_mtime: bool = False
    """Whether changed files keep their modification time."""

    jobs: int | None = None
    """Files processed in parallel. None: one per CPU core that the process may use."""

    use_cache: bool = True
    """Whether results are taken from the result cache and stored in it."""

    match_audio: bool = False
    """Whether a file that keeps its key, and whose path the cache does not know, is read once to find its earlier
    result by the content of its audio."""

    bpm: bool = False
    """Whether the tempo is estimated, too, and written to its own field.

    A file that already has a tempo keeps it, unless ``overwrite`` is set. A tempo of zero does not count.
    """

    bpm_range: tuple[float, float] | None = None
    """Lowest and highest tempo in beats per minute: others are halved or doubled into it. None: as estimated. Only with
    ``bpm``."""

    def __post_init__(self) -> None:
        check_rules(self.rules)
        if self.bpm_range is not None and not 0 < self.bpm_range[0] < self.bpm_range[1]:
            raise ValueError(f"bpm_range must be two ascending tempi, not {self.bpm_range}")
        if self.bpm_range is not None and not self.bpm:
            raise ValueError("bpm_range needs bpm")
        if self.remove and self.bpm:
            raise ValueError("remove cannot be combined with bpm")
        if not 0 <= self.min_confidence <= 1:
            raise ValueError(f"min_confidence must be from 0 to 1, not {self.min_confidence}")
        if self.jobs is not None and self.jobs < 1:
            raise ValueError(f"jobs must be at least 1, not {self.jobs}")
        if self.remove and self.overwrite:
            raise ValueError("remove cannot be combined with overwrite")

    @property
    def description(self) -> str:
        """What the run does, for the list of ``stone undo --list``: such as ``write key, comment``."""
        fields = ", ".join([*dict.fromkeys(rule.field for rule in self.rules), *(["tempo"] if self.bpm else [])])
        return f"{'remove' if self.remove else 'write'} {fields}"


PREVIEW = TagOptions()


@dataclass(frozen=True)
class TagResult:
    """The result for one file.

    Attributes:
        path: the path or URL, as it was found.
        status: one of

            - ``detected``: a key was detected (a preview, nothing was written)
            - ``written``: the key was written
            - ``unchanged``: the file already said what would have been written
            - ``kept``: the file already has a key and stays as it is
            - ``unreadable key``: the key field holds a text that stone cannot read, so nothing was written
            - ``incomplete``: the file has a key, but another field of the rules lacks it (a preview)
            - ``no key``: the recording has no key
            - ``unsure``: the confidence is below ``min_confidence``, so nothing was written
            - ``removed``: what stone wrote was removed
            - ``removable``: what stone wrote would be removed (a preview)
        key: the detected key, or the file's own key if it was kept; None after a removal.
        old_text: text of the key field before the run; None if there was none. Untrusted data.
        old_key: the key that ``old_text`` names, or None.
        estimate: the analysis without its windows: from this run, or, for a file that kept its key, from the result
            cache, so that its key may differ from ``key``. None if there is none.
        bpm: the tempo of the file in beats per minute: its own if it was kept, otherwise the estimated one, in
            ``bpm_range`` and rounded as in the tags. None if there is none, or without ``bpm`` in the options.
        old_bpm_text: text of the tempo field before the run; None if there was none. Untrusted data.
    """

    path: Location
    status: Status
    key: Key | None
    old_text: str | None
    old_key: Key | None
    estimate: KeyEstimate | None
    bpm: float | None = None
    old_bpm_text: str | None = None

    @property
    def relation(self) -> Agreement | None:
        """How the detected key agrees with the key that the tags had before the run; None if either is missing."""
        detected = self.estimate.key if self.estimate else None
        return None if detected is None or self.old_key is None else detected.agreement_with(self.old_key)


@dataclass(frozen=True)
class TagSummary:
    """What a run did as a whole.

    Attributes:
        files: number of files that have a result or an error.
        failed: number of files with an error.
        interrupted: whether a signal, such as Ctrl-C, ended the run early.
        run: number of the run for ``stone undo`` and :func:`stonecli.tags.undo_run`; None for a preview. A run that
            changed no file is not recorded.
    """

    files: int
    failed: int
    interrupted: bool
    run: int | None


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
            return TagResult(
                music.path, status, estimate.key, old.text, old.key, estimate, self._bpm(old, estimate), old.bpm_text
            )

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
        bpm = self._bpm(old, known.estimate)
        return TagResult(music.path, status, old.key, old.text, old.key, known.estimate, bpm, old.bpm_text)

    def _complete(self, music: MusicFile, key: Key | None, bpm: float | None) -> Status:
        """Write the key that the file already has to its other fields, and the tempo; this needs no analysis.

        ``key`` is None for a text that stone cannot read.
        """
        rules = tuple(rule for rule in self.options.rules if rule.field != "key")
        if not (rules or bpm is not None) or not self._write(music, key, rules, bpm):
            return "kept" if key is not None else "unreadable key"
        return "written" if self.options.write else "incomplete"

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

    options: TagOptions = TagOptions(remove=True)
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


def make_tagger(
    model: KeyModel | None,
    options: TagOptions,
    journal: Journal | None = None,
    cache: ResultCache | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Tagger | Remover:
    """The callable that does what ``options`` say; ``model`` None is the built-in one.

    Raises:
        ModelError, DeviceError: the built-in model cannot be loaded.
    """
    if options.remove:
        return Remover(options, journal)
    return Tagger(default_model() if model is None else model, options, journal, cache, cancelled)


@contextmanager
def open_tagger(
    model: KeyModel | None = None,
    options: TagOptions = PREVIEW,
    *,
    description: str = "",
    cancelled: Callable[[], bool] | None = None,
) -> Iterator[tuple[Tagger | Remover, JournalRun | None]]:
    """A tagger with an open result cache, and the open run of the undo journal: None without ``options.write``.

    A cache that cannot be opened is not used. Both are closed at the end.

    Args:
        model: None for the built-in one; not used for ``options.remove``.
        options: what to do.
        description: what the run does, for ``stone undo --list``. Default: :attr:`TagOptions.description`.
        cancelled: see :class:`Tagger`.

    Raises:
        JournalError: the undo journal cannot be used; without it nothing is written.
        ModelError, DeviceError: the built-in model cannot be loaded.
    """
    with ExitStack() as stack:
        run = stack.enter_context(recorded(description or options.description)) if options.write else None
        cache = open_cache() if options.use_cache and not options.remove else None
        if cache is not None:
            stack.enter_context(closing(cache))
        yield make_tagger(model, options, run, cache, cancelled), run


StrPath = str | os.PathLike[str]
OnResult = Callable[[Outcome[Location, TagResult]], None]


def tag_library(
    paths: Iterable[StrPath | Url],
    options: TagOptions = PREVIEW,
    *,
    model: KeyModel | None = None,
    skip: Seen | None = None,
    on_start: Callable[[Sequence[Location]], None] | None = None,
    on_done: Callable[[], None] | None = None,
    on_result: OnResult | None = None,
    playlist_name: str | None = None,
) -> TagSummary:
    """Detect the keys of all music below ``paths`` and, if ``options`` say so, write them to the tags.

    A file that fails does not end the run. Ctrl-C, SIGTERM and SIGHUP end it early without losing a result: files in
    progress are finished. With ``options.write`` the run is recorded for ``stone undo``.

    Args:
        paths: files, folders, crates (``.m3u``, ``.m3u8``, ``.pls``, rekordbox ``.xml``) and URLs (``s3://``,
            ``https://``). Folders are searched. URLs are never written to.
        options: what to do.
        model: None for the built-in one.
        skip: files that are in it are skipped; those that are found are added.
        on_start: called once with the music that was found, before the first file is processed.
        on_done: called for each processed file as soon as it is done, for a progress bar.
        on_result: called with the outcome of each file in the order in which they were found, in the calling thread.
            An outcome has ``item`` (the path or URL), ``result`` and ``error``: one line, or None.
        playlist_name: only this playlist of each rekordbox XML; None for the whole collection.

    Returns:
        The number of files and failures, whether the run was interrupted, and its number for undo.

    Raises:
        JournalError: the undo journal cannot be used; nothing was written.
        ModelError, DeviceError: the built-in model cannot be loaded.
    """
    from stonecli.remote.storage import LocationTagger, find_recordings

    locations = [path if isinstance(path, Url) else parse_location(os.fspath(path)) for path in paths]
    with open_tagger(model, options) as (tagger, run):
        leftovers: list[Path] = []
        found = list(find_recordings(locations, leftovers, skip, playlist_name))
        if options.write:
            remove_leftovers(leftovers)
        music = [one.location for one in found if one.error is None]
        if on_start:
            on_start(music)
        counter = ResultCounter(on_result)
        for one in found:
            if one.error is not None:
                counter(Outcome(one.location, None, one.error))
        without_cache = replace(tagger, cache=None) if isinstance(tagger, Tagger) else tagger  # for copies of URLs
        act = LocationTagger(without_cache, options.write or options.remove, tagger)
        done = on_done or (lambda: None)
        with (
            in_threads(act, music, options.jobs, on_done=lambda _: done()) as outcomes,
            stopped_by_signals(outcomes) as signals,
        ):
            for outcome in outcomes:
                counter(outcome)
    return counter.summary(run, interrupted=bool(signals))


def watch_folder(
    folder: StrPath,
    options: TagOptions = PREVIEW,
    *,
    model: KeyModel | None = None,
    settle_seconds: float = 3.0,
    polling: bool = False,
    existing: bool = False,
    on_start: Callable[[], None] | None = None,
    on_result: OnResult | None = None,
    on_warning: Callable[[str], None] | None = None,
) -> TagSummary:
    """Process the music that arrives in ``folder`` until Ctrl-C, SIGTERM or SIGHUP: as :func:`tag_library` does.

    Args:
        folder: watched with all folders in it.
        options: what to do.
        model: None for the built-in one.
        settle_seconds: how long a file must stay unchanged before it is processed.
        polling: check for changes regularly, for network drives that do not report them.
        existing: process the files that are there at the start, too.
        on_start: called once when the folder is being watched.
        on_result: called with the outcome of each file as it is done, in the calling thread.
        on_warning: called with one line when something limits the watch.

    Returns:
        The number of files and failures, and the number of the run for undo.

    Raises:
        OSError: the folder cannot be watched.
        JournalError: the undo journal cannot be used; nothing was written.
        ModelError, DeviceError: the built-in model cannot be loaded.
    """
    from stonecli.library.watch import FolderWatcher

    counter, ended, warn = ResultCounter(on_result), Event(), on_warning or (lambda text: None)
    with ExitStack() as stack:
        tagger, run = stack.enter_context(open_tagger(model, options, cancelled=ended.is_set))
        watcher = stack.enter_context(
            FolderWatcher(Path(folder), settle_seconds, polling=polling, existing=existing, warn=warn)
        )
        arrivals = cast("Iterator[Path]", watcher.arrivals())  # NOT_YET among them is not an item
        outcomes = stack.enter_context(in_threads(_Arrival(tagger, watcher), arrivals, options.jobs, ordered=False))
        signals = stack.enter_context(stopped_by_signals(_Ending(ended, watcher, outcomes)))
        if on_start:
            on_start()
        for outcome in outcomes:
            if outcome.result is not None or outcome.error is not None:  # otherwise the watch ended before
                counter(outcome)
    return counter.summary(run, interrupted=bool(signals))


@dataclass(frozen=True)
class _Arrival:
    """Processes one file that has arrived, in a thread."""

    tagger: Tagger | Remover
    watcher: FolderWatcher

    def __call__(self, path: Path) -> TagResult | None:
        """The result; None if the watch ended before the file was analyzed."""
        try:
            result = self.tagger(path)
        except Cancelled:
            return None
        if result.status in ("written", "removed"):  # our own change; one by somebody else is processed again
            self.watcher.done(path)
        return result


@dataclass(frozen=True)
class _Ending:
    """Ends the watch within a moment: an analysis in progress is given up, a write is finished."""

    ended: Event
    watcher: FolderWatcher
    outcomes: Run[Path, TagResult | None]

    def stop(self) -> None:
        """Called by the signal handler."""
        self.ended.set()
        self.watcher.stop()
        self.outcomes.stop()


class ResultCounter:
    """Counts outcomes and passes them on, when called with one.

    Args:
        on_result: called with each outcome; None to count only.
    """

    def __init__(self, on_result: OnResult | None) -> None:
        self._on_result = on_result
        self.files = self._failed = 0

    def __call__(self, outcome: Outcome[Any, Any]) -> None:
        """Count the outcome, then pass it on."""
        self.files += 1
        self._failed += outcome.error is not None
        if self._on_result:
            self._on_result(outcome)

    def summary(self, run: JournalRun | None, *, interrupted: bool) -> TagSummary:
        """What the run did as a whole."""
        return TagSummary(self.files, self._failed, interrupted, run.number if run else None)
