"""A folder -> the music files that arrive in it, each when it has finished arriving."""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from stonecli.library import MUSIC_SUFFIXES, SYSTEM_FOLDERS, find_music

if TYPE_CHECKING:
    from watchdog.events import FileSystemEvent

_TICK_SECONDS = 0.5
_Look = tuple[int, int]  # size, modification time in ns


class FolderWatcher:
    """Watches ``folder`` and what lies below it. A context manager; iterate over it to get the files.

    A file has arrived when its size and modification time have not changed for ``settle_seconds`` and it is not empty:
    downloads and copies are written bit by bit, and what is renamed into place is whole at once. It comes again when it
    was changed afterwards, unless :meth:`done` was told of the change.

    Args:
        folder: that is there.
        settle_seconds: how long a file has to be as it is.
        polling: to look at the whole folder again and again, for network drives that report no events.
        existing: whether what is there at the start counts as arriving.

    Raises:
        OSError: the folder cannot be watched.
    """

    def __init__(
        self, folder: Path, settle_seconds: float = 3.0, *, polling: bool = False, existing: bool = False
    ) -> None:
        self._folder = folder
        self._settle_seconds = settle_seconds
        self._polling = polling
        self._events: SimpleQueue[Path] = SimpleQueue()
        self._waiting: dict[Path, tuple[_Look | None, float]] = {}  # how it looked, and since when
        self._done: dict[Path, _Look] = {}
        self._stopped = False
        if existing:
            self._look_through(folder)

    def __enter__(self) -> FolderWatcher:
        from watchdog.events import FileSystemEventHandler
        from watchdog.observers import Observer
        from watchdog.observers.polling import PollingObserver

        events = self._events

        class Handler(FileSystemEventHandler):
            """Only notes where something happened: what it means is decided by looking."""

            def on_any_event(self, event: FileSystemEvent) -> None:
                if event.event_type not in ("opened", "closed_no_write"):
                    events.put(Path(os.fsdecode(event.dest_path or event.src_path)))

        logging.getLogger("watchdog").setLevel(logging.CRITICAL)  # else it may tell the terminal that it was stopped
        self._observer = PollingObserver() if self._polling else Observer()
        self._observer.schedule(Handler(), str(self._folder), recursive=True)
        self._observer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._observer.stop()
        self._observer.join()

    def stop(self) -> None:
        """The iteration ends within a moment. May be called from a signal handler."""
        self._stopped = True

    def done(self, path: Path) -> None:
        """Takes the file as it is now for known: a change of our own is no arrival."""
        look = _look(path)
        if look is not None:
            self._done[path] = look

    def __iter__(self) -> Iterator[Path]:
        """The files, as they arrive; ends after :meth:`stop`.

        Raises:
            FileNotFoundError: the folder is there no more.
        """
        while not self._stopped:
            if not self._folder.is_dir():
                raise FileNotFoundError(errno.ENOENT, "the folder is gone", str(self._folder))
            self._take_events(time.monotonic)
            yield from self._arrived(time.monotonic())

    def _take_events(self, now: Callable[[], float]) -> None:
        """Note where something happened, and wait a moment if nothing did."""
        try:
            path = self._events.get(timeout=_TICK_SECONDS)
            while True:
                if path.is_dir():
                    self._look_through(path)  # a folder that was moved here comes as one event
                elif _is_music(path, self._folder):
                    self._waiting.setdefault(path, (None, now()))
                path = self._events.get_nowait()
        except Empty:
            return

    def _look_through(self, folder: Path) -> None:
        for finding in find_music([folder]):
            if finding.error is None and _is_music(finding.path, self._folder):
                self._waiting.setdefault(finding.path, (None, time.monotonic()))

    def _arrived(self, now: float) -> Iterator[Path]:
        for path, (before, since) in [*self._waiting.items()]:
            look = _look(path)
            if look is None or look == self._done.get(path):  # gone again, or our own change
                del self._waiting[path]
            elif look != before:
                self._waiting[path] = (look, now)
            elif now - since >= self._settle_seconds and look[0] > 0:
                del self._waiting[path]
                self._done[path] = look
                yield path
                if self._stopped:
                    return


def _is_music(path: Path, folder: Path) -> bool:
    """Whether a folder search would take it: by its ending, and nothing hidden on the way, no bin, no thumbnails."""
    parts = path.relative_to(folder).parts if path.is_relative_to(folder) else path.parts
    return (
        path.suffix.lower() in MUSIC_SUFFIXES
        and not any(part.startswith(".") for part in parts)
        and not any(part.casefold() in SYSTEM_FOLDERS for part in parts[:-1])
    )


def _look(path: Path) -> _Look | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None
