"""Watch a folder: yield the music files that arrive in it, each when it has been written completely."""

from __future__ import annotations

import errno
import logging
import os
import stat
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from stonecli.errors import reason
from stonecli.jobs import NOT_YET, NotYet
from stonecli.library.inotify import Inotify, path_prefix
from stonecli.library.walk import MUSIC_SUFFIXES, SYSTEM_FOLDERS, Finding, find_music

if TYPE_CHECKING:
    from watchdog.events import FileSystemEvent

_WAIT_SECONDS = 0.25  # for a change; bounds how long a stop goes unseen
_CHECK_SECONDS = 0.5  # between two looks at a file that may still be written
_WALK_SECONDS = 0.1  # of listing folders, after which files that are ready are handed out again
_READ_SECONDS = 0.1  # of taking changes, likewise
_BACKLOG_SECONDS = 0.1  # between two looks for changes while files are ready
_SWEEP_SECONDS = 1.0  # at least, between two listings of the whole folder
_SWEEP_SHARE = 3.0  # the pause between two listings, in times of what one takes: a quarter of the time, at most
_MAX_CHANGES = 10_000  # kept in memory; if there are more, the folder is listed instead
_BURST = 100  # changes at once after which Windows may have dropped some, without watchdog saying so
_LIMITS = (errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.ENOMEM)

Look = tuple[int, int]  # size, modification time in ns
Changes = tuple[list[tuple[str, bool]], bool]  # paths and whether each is a folder; whether any were lost


class _Source(Protocol):
    """Reports where something has changed. What the change means is decided by looking at the file."""

    def add(self, folder: Path) -> None:
        """Watch a folder; those below it are added by themselves."""

    def read(self, seconds: float) -> Changes:
        """The changes since the last call; waits at most ``seconds`` for the first."""

    def close(self) -> None: ...


class FolderWatcher:
    """Watches ``folder`` and everything below it. A context manager; iterate over it to get the files.

    A file has arrived when it is not empty and its size and modification time have not changed for ``settle_seconds``:
    downloads and copies grow bit by bit, and what is renamed into place is complete at once. A file that changes
    afterwards arrives again, unless :meth:`done` was told of the change.

    Changes are only hints. The folder is listed as a whole when the watch starts and when changes were lost, and again
    and again while a part of it cannot be watched, for instance because the kernel limits the number of watches. The
    work is proportional to the number of files that arrive; files that are ready never wait for a listing.

    Args:
        folder: must exist.
        settle_seconds: how long a file must stay unchanged.
        polling: list the whole folder again and again instead of relying on events, for network drives.
        existing: whether files that are there at the start count as arriving.
        warn: called with one line when something limits the watch, once for each kind of limit.

    Raises:
        OSError: the folder cannot be watched.
    """

    def __init__(
        self,
        folder: Path,
        settle_seconds: float = 3.0,
        *,
        polling: bool = False,
        existing: bool = False,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._folder = folder
        self._prefix = path_prefix(folder)
        self._settle_seconds = settle_seconds
        self._polling = polling
        self._existing = existing
        self._warn = warn
        self._warned: set[str] = set()
        self._stopped = False
        # Hashes of path, size and time of files that are not news; eight bytes each, so a large library costs little.
        self._known: set[int] = set()
        self._waiting: dict[str, tuple[Look, float]] = {}  # how each file looked, and since when
        self._checks: deque[tuple[float, str]] = deque()  # when to look at each waiting file, in order of time
        self._ready: OrderedDict[str, None] = OrderedDict()
        self._walks: deque[tuple[Path, Iterator[Finding]]] = deque()
        self._unwatched = 0  # folders of this sweep that the system does not report on
        self._sweep_wanted = True
        self._sweep_cost = 0.0  # seconds that the sweep has taken so far
        self._next_sweep = 0.0
        self._next_read = 0.0

    def __enter__(self) -> FolderWatcher:
        if not self._existing:
            for finding in find_music([self._folder]):
                self.done(finding.path)
        self._source = self._open_source()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._source.close()

    def stop(self) -> None:
        """The iteration ends within a moment. May be called from a signal handler."""
        self._stopped = True

    def done(self, path: Path) -> None:
        """The file as it is now is not news: the change was our own. May be called from any thread."""
        look = _look(str(path))
        if look is not None:
            self._known.add(_fingerprint(str(path), look))

    def __iter__(self) -> Iterator[Path]:
        """The files as they arrive; ends after :meth:`stop`.

        Raises:
            FileNotFoundError: the folder does not exist any more.
        """
        return (path for path in self.arrivals() if not isinstance(path, NotYet))

    def arrivals(self) -> Iterator[Path | NotYet]:
        """As iterating, with ``NOT_YET`` several times a second while nothing arrives: for :func:`stonecli.jobs.run`.

        Raises:
            FileNotFoundError: the folder does not exist any more.
        """
        while not self._stopped:
            self._look_for_changes()
            path = self._next_ready()
            yield NOT_YET if path is None else path

    def _open_source(self) -> _Source:
        if self._polling:
            return _NoEvents()
        if not _has_inotify():
            return _SystemEvents(self._folder)
        try:
            return Inotify()
        except OSError as error:
            if error.errno not in _LIMITS:
                raise
            self._warn_once(
                f"{reason(error)}: polling {self._folder} instead of watching it"
                " (raise fs.inotify.max_user_instances or the limit of open files)"
            )
            self._polling = True
            return _NoEvents()

    def _look_for_changes(self) -> None:
        """Take what the system reports, list folders for a moment, and look at files that are due.

        This takes a fraction of a second however many changes there are; the rest is left for the next call.
        """
        now = time.monotonic()
        if self._ready and now < self._next_read:
            return
        self._next_read = now + _BACKLOG_SECONDS
        if not self._folder.is_dir():
            raise FileNotFoundError(errno.ENOENT, "the folder is gone", str(self._folder))
        is_busy = self._ready or self._walks or (self._sweep_wanted and now >= self._next_sweep)
        self._read(0.0 if is_busy else _WAIT_SECONDS)
        self._walk(time.monotonic() + _WALK_SECONDS)
        self._check_waiting()

    def _read(self, wait: float) -> None:
        """Take what the system reports, for a moment; waits at most ``wait`` seconds for the first change."""
        end = time.monotonic() + wait + _READ_SECONDS
        while True:
            changes, lost = self._source.read(wait)
            self._sweep_wanted |= lost
            for name, is_folder in changes:
                is_music = _has_music_suffix(name)
                if (is_music and not is_folder and name in self._waiting) or _is_passed_over(
                    name.removeprefix(self._prefix)
                ):
                    continue
                if is_folder or (not is_music and Path(name).is_dir()):  # the latter: links to folders
                    self._walks.append((Path(name), find_music([Path(name)], on_folder=self._watch_one)))
                elif is_music:
                    self._note(name)
            wait = 0.0
            if not changes or time.monotonic() >= end or self._stopped:
                return

    def _walk(self, end: float) -> None:
        """List folders until ``end``: those that have just come, and the whole one where that is due."""
        begin = time.monotonic()
        polls = self._polling or self._unwatched > 0
        if (self._sweep_wanted or polls) and not self._walks and begin >= self._next_sweep:
            self._sweep_wanted = False
            self._unwatched, self._sweep_cost = 0, 0.0
            self._walks.append((self._folder, find_music([self._folder], on_folder=self._watch_one)))
        while self._walks and not self._stopped:
            top, findings = self._walks[0]
            for finding in findings:
                if finding.error is None:
                    if _has_music_suffix(str(finding.path)):
                        self._note(str(finding.path))
                elif finding.path.is_dir():
                    self._warn_once(f"{finding.path}: {finding.error}")
                    self._unwatched += finding.error != "permission denied"  # a limit that may pass
                if self._stopped or time.monotonic() >= end:
                    break
            else:
                self._walks.popleft()
            now = time.monotonic()
            if top == self._folder:
                self._sweep_cost += now - begin
                self._next_sweep = now + max(_SWEEP_SECONDS, _SWEEP_SHARE * self._sweep_cost)
            begin = now
            if now >= end:
                return

    def _watch_one(self, folder: Path) -> None:
        """Watch a folder that is about to be listed, so that no file can come unseen in between."""
        try:
            self._source.add(folder)
        except OSError as error:
            if error.errno not in _LIMITS:
                return  # the listing, which follows, says what is wrong
            self._unwatched += 1
            self._warn_once(
                f"the system does not watch more than {_watch_limit()} folders (fs.inotify.max_user_watches):"
                " polling the others; raise the limit, or use --poll"
            )

    def _note(self, name: str) -> None:
        """Wait for a music file to be complete, unless it is no news."""
        if name in self._waiting:
            return
        look = _look(name)
        if look is not None and _fingerprint(name, look) not in self._known:
            now = time.monotonic()
            self._waiting[name] = look, now
            self._checks.append((now + _CHECK_SECONDS, name))

    def _check_waiting(self) -> None:
        """Make ready what has not changed for long enough; look again later at what has."""
        now = time.monotonic()
        while self._checks and self._checks[0][0] <= now and not self._stopped:
            _, name = self._checks.popleft()
            before, since = self._waiting[name]
            look = _look(name)
            if look is None or _fingerprint(name, look) in self._known:  # deleted, or changed by ourselves
                del self._waiting[name]
            elif look == before and now - since >= self._settle_seconds:
                del self._waiting[name]
                self._known.add(_fingerprint(name, look))
                if look[0] > 0:  # an empty file is news when it is filled
                    self._ready[name] = None
            else:
                self._waiting[name] = look, since if look == before else now
                self._checks.append((now + _CHECK_SECONDS, name))

    def _next_ready(self) -> Path | None:
        """A file that has arrived and still is as it was then; None where there is none."""
        while self._ready and not self._stopped:
            name, _ = self._ready.popitem(last=False)
            look = _look(name)
            if look is not None and _fingerprint(name, look) in self._known:
                return Path(name)
            self._note(name)
        return None

    def _warn_once(self, text: str) -> None:
        if text not in self._warned and len(self._warned) < _MAX_CHANGES:
            self._warned.add(text)
            self._warn(text)


class _NoEvents:
    """Reports nothing: the folder is listed again and again."""

    def add(self, folder: Path) -> None:
        """Nothing to do."""

    def read(self, seconds: float) -> Changes:
        """No change, after ``seconds``."""
        time.sleep(seconds)
        return [], False

    def close(self) -> None:
        """Nothing to do."""


class _SystemEvents:
    """What macOS and Windows report, by way of watchdog, which watches subfolders as well.

    Raises:
        OSError: the folder cannot be watched.
    """

    def __init__(self, folder: Path) -> None:
        from watchdog.events import FileSystemEventHandler
        from watchdog.observers import Observer

        self._lock = threading.Lock()
        self._there = threading.Event()
        self._changes: dict[str, bool] = {}
        self._lost = False
        source = self

        class Handler(FileSystemEventHandler):
            """Called by watchdog in a thread of its own."""

            def on_any_event(self, event: FileSystemEvent) -> None:
                source._add(event)

        logging.getLogger("watchdog").setLevel(logging.CRITICAL)  # otherwise it may write to the terminal at the end
        self._observer = Observer()
        self._observer.schedule(Handler(), str(folder), recursive=True)
        self._observer.start()

    def add(self, folder: Path) -> None:
        """Nothing to do."""

    def read(self, seconds: float) -> Changes:
        """The changes since the last call."""
        self._there.wait(seconds)
        with self._lock:
            changes, lost = self._changes, self._lost
            self._changes, self._lost = {}, False
            self._there.clear()
        return [*changes.items()], lost or len(changes) > _BURST

    def close(self) -> None:
        """End the watch."""
        self._observer.stop()
        self._observer.join()

    def _add(self, event: FileSystemEvent) -> None:
        # A folder counts as modified with every file that comes; listing it each time would be quadratic.
        if event.event_type in ("opened", "closed_no_write") or (event.is_directory and event.event_type == "modified"):
            return
        path = str(Path(os.fsdecode(event.dest_path or event.src_path)))  # "./a" is "a"
        with self._lock:
            if len(self._changes) < _MAX_CHANGES:
                self._changes[path] = event.is_directory
            else:
                self._lost = True
            self._there.set()


def _has_inotify() -> bool:
    return sys.platform == "linux"


def _watch_limit() -> str:
    try:
        return Path("/proc/sys/fs/inotify/max_user_watches").read_text("ascii").strip()
    except OSError:
        return "a number of"


def _has_music_suffix(name: str) -> bool:
    return f".{name.rpartition('.')[2].lower()}" in MUSIC_SUFFIXES


def _is_passed_over(name: str) -> bool:
    """Whether a search passes over the path: hidden, or in a hidden folder, a bin or a thumbnail folder."""
    parts = name.split("/") if os.sep == "/" else Path(name).parts  # the former is faster
    return any(part.startswith(".") or part.casefold() in SYSTEM_FOLDERS for part in parts)


def _look(name: str) -> Look | None:
    """Size and modification time of a regular file; None for anything else."""
    try:
        status = os.stat(name)  # noqa: PTH116 (a Path costs several times as much)
    except (OSError, ValueError):
        return None
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None


def _fingerprint(name: str, look: Look) -> int:
    return hash((name, *look))
