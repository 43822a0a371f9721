"""Detect and write the keys of the files that arrive in a folder: :func:`watch_folder`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, cast

from stonecli.errors import Cancelled
from stonecli.jobs import in_threads, stopped_by_signals
from stonecli.model.session import KeyModel
from stonecli.tagging.options import PREVIEW, TagOptions
from stonecli.tagging.results import OnResult, ResultCounter, TagResult, TagSummary
from stonecli.tagging.tagger import FileAction, open_tagger

if TYPE_CHECKING:
    from stonecli.jobs import Run
    from stonecli.library.watch import FolderWatcher


def watch_folder(
    folder: str | os.PathLike[str],
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
        on_warning: called with one line when something limits the watch, or the result cache cannot be used.

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
        tagger, run = stack.enter_context(open_tagger(model, options, cancelled=ended.is_set, on_warning=warn))
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

    tagger: FileAction
    watcher: FolderWatcher

    def __call__(self, path: Path) -> TagResult | None:
        """The result; None if the watch ended before the file was analyzed."""
        try:
            result = self.tagger(path)
        except Cancelled:
            return None
        if result.status in (
            "written",
            "removed",
        ):  # our own change; a file that another program changed is processed again
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
