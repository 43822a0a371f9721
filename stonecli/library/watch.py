"""Watch a folder for new music files, and yield each file once it has been written completely."""

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

_WAIT_SECONDS = 0.25  # longest wait for a change, and so the longest delay of a stop
_CHECK_SECONDS = 0.5  # between two checks of a file that may still be written
_WALK_SECONDS = 0.1  # time slice for listing folders, before complete files are returned again
_READ_SECONDS = 0.1  # time slice for reading changes
_BACKLOG_SECONDS = 0.1  # between two reads of changes while complete files are queued
_SWEEP_SECONDS = 1.0  # minimum time between two listings of the whole folder
_SWEEP_SHARE = 3.0  # minimum pause between two listings, as a multiple of the duration of one
_MAX_CHANGES = 10_000  # changes kept in memory; if there are more, the folder is listed instead
_BURST = 100  # with more changes at once, Windows may have dropped some, which watchdog does not report
_LIMITS = (errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.ENOMEM)

Status = tuple[int, int]  # size in bytes, modification time in ns
Changes = tuple[list[tuple[str, bool]], bool]  # paths and whether each is a folder; whether any were lost


class _Source(Protocol):
    """Reports the paths of changes. The files themselves show what has changed."""

    def add(self, folder: Path) -> None:
        """Watch a folder, without its subfolders."""

    def read(self, seconds: float) -> Changes:
        """The changes since the last call; waits at most ``seconds`` for the first."""

    def close(self) -> None: ...


class FolderWatcher:
    """Watches ``folder`` and its subfolders. A context manager; iterate over it to get the files.

    A file is complete when it is not empty and its size and modification time have not changed for ``settle_seconds``,
    because downloads and copies grow gradually. A file that changes later is returned again, unless :meth:`done` was
    called for it.

    Reported changes are only hints. The whole folder is listed when the watch starts, when changes were lost, and
    regularly while a part of it cannot be watched, for instance because of the kernel's limit of watches. The work is
    proportional to the number of new files; complete files never wait for a listing.

    Args:
        folder: must exist.
        settle_seconds: how long a file must stay unchanged.
        polling: list the whole folder regularly instead of relying on events, for network drives.
        existing: whether to return files that exist at the start, too.
        warn: called with one line for each kind of limit that affects the watch.

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
        self._real_prefix = path_prefix(Path(os.path.realpath(folder)))
        self._settle_seconds = settle_seconds
        self._polling = polling
        self._existing = existing
        self._warn = warn
        self._warned: set[str] = set()
        self._stopped = False
        # Hashes of path, size and time of files that were returned or ignored, as integers to save memory.
        self._known: set[int] = set()
        self._waiting: dict[str, tuple[Status, float]] = {}  # status of each file, and since when it has had it
        self._checks: deque[tuple[float, str]] = (
            deque()
        )  # time of the next check of each waiting file, in order of time
        self._ready: OrderedDict[str, None] = OrderedDict()
        self._walks: deque[tuple[Path, Iterator[Finding]]] = deque()
        self._unwatched = 0  # folders of this listing for which the system reports no changes
        self._sweep_wanted = True
        self._sweep_cost = 0.0  # duration of this listing so far, in seconds
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
        """End the iteration soon. May be called from a signal handler."""
        self._stopped = True

    def done(self, path: Path) -> None:
        """Ignore the file in its present state, because stone has changed it. May be called from any thread."""
        name = self._without_links(str(path))
        status = _status_of(name)
        if status is not None:
            self._known.add(_fingerprint(name, status))

    def __iter__(self) -> Iterator[Path]:
        """The files as they become complete; ends after :meth:`stop`.

        Raises:
            FileNotFoundError: the folder was removed.
        """
        return (path for path in self.arrivals() if not isinstance(path, NotYet))

    def arrivals(self) -> Iterator[Path | NotYet]:
        """The same, with ``NOT_YET`` several times per second without a new file, for :func:`stonecli.jobs.run`.

        Raises:
            FileNotFoundError: the folder was removed.
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
        """Read the reported changes, list folders, and check waiting files, each for a short time slice.

        The next call continues with what remains.
        """
        now = time.monotonic()
        if self._ready and now < self._next_read:
            return
        self._next_read = now + _BACKLOG_SECONDS
        if not self._folder.is_dir():
            raise FileNotFoundError(errno.ENOENT, "the folder was removed", str(self._folder))
        is_busy = self._ready or self._walks or (self._sweep_wanted and now >= self._next_sweep)
        self._read(0.0 if is_busy else _WAIT_SECONDS)
        self._walk(time.monotonic() + _WALK_SECONDS)
        self._check_waiting()

    def _read(self, wait: float) -> None:
        """Read the reported changes for a short time slice; waits at most ``wait`` seconds for the first one."""
        end = time.monotonic() + wait + _READ_SECONDS
        while True:
            changes, lost = self._source.read(wait)
            self._sweep_wanted |= lost
            for name, is_folder in changes:
                is_music = _has_music_suffix(name)
                if (is_music and not is_folder and name in self._waiting) or _is_skipped(
                    name.removeprefix(self._prefix)
                ):
                    continue
                if is_folder or (not is_music and Path(name).is_dir()):  # links to folders
                    self._walks.append((Path(name), find_music([Path(name)], on_folder=self._watch_one)))
                elif is_music:
                    self._note(name)
            wait = 0.0
            if not changes or time.monotonic() >= end or self._stopped:
                return

    def _walk(self, end: float) -> None:
        """List folders until ``end``: new subfolders, and the whole folder if that is due."""
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
                    self._unwatched += finding.error != "permission denied"  # other errors may be temporary
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
        """Watch a folder before it is listed, so that no file is missed in between."""
        try:
            self._source.add(folder)
        except OSError as error:
            if error.errno not in _LIMITS:
                return  # the listing that follows reports the error
            self._unwatched += 1
            self._warn_once(
                f"the system does not watch more than {_watch_limit()} folders (fs.inotify.max_user_watches):"
                " polling the others; raise the limit, or use --poll"
            )

    def _note(self, name: str) -> None:
        """Wait until a music file is complete, unless it was returned or ignored already."""
        name = self._without_links(name)
        if name in self._waiting:
            return
        status = _status_of(name)
        if status is not None and _fingerprint(name, status) not in self._known:
            now = time.monotonic()
            self._waiting[name] = status, now
            self._checks.append((now + _CHECK_SECONDS, name))

    def _without_links(self, name: str) -> str:
        """The path of a file without links to folders, if it is below the watched folder without them.

        A link to the watched folder, or to a folder in it, would otherwise lead to each file by several paths.
        """
        folder, file = os.path.split(name)
        real = os.path.join(os.path.realpath(folder), "")  # noqa: PTH118 (a Path costs several times as much)
        if not real.startswith(self._real_prefix):
            return name
        return f"{self._prefix}{real.removeprefix(self._real_prefix)}{file}"

    def _check_waiting(self) -> None:
        """Queue the files that have been unchanged for long enough, and check the others again later."""
        now = time.monotonic()
        while self._checks and self._checks[0][0] <= now and not self._stopped:
            _, name = self._checks.popleft()
            before, since = self._waiting[name]
            status = _status_of(name)
            if status is None or _fingerprint(name, status) in self._known:  # deleted, or changed by stone
                del self._waiting[name]
            elif status == before and now - since >= self._settle_seconds:
                del self._waiting[name]
                self._known.add(_fingerprint(name, status))
                if status[0] > 0:  # an empty file is returned when it has content
                    self._ready[name] = None
            else:
                self._waiting[name] = status, since if status == before else now
                self._checks.append((now + _CHECK_SECONDS, name))

    def _next_ready(self) -> Path | None:
        """A queued file that has not changed since it was queued; None if there is none."""
        while self._ready and not self._stopped:
            name, _ = self._ready.popitem(last=False)
            status = _status_of(name)
            if status is not None and _fingerprint(name, status) in self._known:
                return Path(name)
            self._note(name)
        return None

    def _warn_once(self, text: str) -> None:
        if text not in self._warned and len(self._warned) < _MAX_CHANGES:
            self._warned.add(text)
            self._warn(text)


class _NoEvents:
    """Reports no changes; the folder is listed regularly instead."""

    def add(self, folder: Path) -> None:
        """Nothing to do."""

    def read(self, seconds: float) -> Changes:
        """No change, after ``seconds``."""
        time.sleep(seconds)
        return [], False

    def close(self) -> None:
        """Nothing to do."""


class _SystemEvents:
    """Reports the changes on macOS and Windows with watchdog, which includes subfolders.

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
            """Called by watchdog in its own thread."""

            def on_any_event(self, event: FileSystemEvent) -> None:
                source._add(event)

        logging.getLogger("watchdog").setLevel(logging.CRITICAL)  # it may print to the terminal at the end
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
        # Each new file also modifies its folder; listing the folder each time would take quadratic time.
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


def _is_skipped(name: str) -> bool:
    """Whether a search skips the path: hidden, or in a hidden folder, a recycle bin or a thumbnail folder."""
    parts = name.split("/") if os.sep == "/" else Path(name).parts  # the former is faster
    return any(part.startswith(".") or part.casefold() in SYSTEM_FOLDERS for part in parts)


def _status_of(name: str) -> Status | None:
    """Size and modification time of a regular file; None for anything else."""
    try:
        status = os.stat(name)  # noqa: PTH116 (a Path costs several times as much)
    except (OSError, ValueError):
        return None
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None


def _fingerprint(name: str, status: Status) -> int:
    return hash((name, *status))
