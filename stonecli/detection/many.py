"""Detect the keys of many recordings in parallel."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from stonecli.detection.detect import detect_key
from stonecli.detection.estimate import KeyEstimate
from stonecli.detection.segments import MIN_SEGMENT_SECONDS
from stonecli.detection.windows import LastWindow, check_windows
from stonecli.errors import AudioError, Cancelled
from stonecli.jobs import Outcome, in_threads, stopped_by_signals
from stonecli.library.locations import Location
from stonecli.library.walk import Finding, files_and_music
from stonecli.model.session import KeyModel, default_model

if TYPE_CHECKING:
    from stonecli.jobs import Run

StrPath = str | os.PathLike[str]


def detect_keys(
    paths: Iterable[StrPath], model: KeyModel | None = None, *, jobs: int | None = None
) -> Iterator[Outcome[StrPath, KeyEstimate]]:
    """The outcome of each file, in the order of ``paths``: its estimate, or one line with the error.

    A file that fails does not stop the others. Leaving the loop early stops the analyses. Memory does not grow with the
    number of files, because ``paths`` is consumed only as fast as the results are.

    Args:
        paths: music files in any format that libsndfile, ffmpeg or audioread decodes.
        model: the model to run; None for the built-in one.
        jobs: number of files analyzed in parallel; None for one per CPU core.

    Raises:
        ModelError, DeviceError: the built-in model cannot be loaded.
        ValueError: ``jobs`` is less than 1.
    """
    used = default_model() if model is None else model
    with in_threads(lambda path: detect_key(path, used), paths, jobs) as outcomes:
        yield from outcomes


@dataclass(frozen=True)
class AnalysisSummary:
    """The summary of a run.

    Attributes:
        files: number of files that have an estimate or an error.
        failed: number of files with an error.
        interrupted: whether a signal, such as Ctrl-C, ended the run early.
    """

    files: int
    failed: int
    interrupted: bool


def analyze(
    paths: Iterable[StrPath],
    model: KeyModel | None = None,
    *,
    window_seconds: float | None = None,
    overlap: float = 0.0,
    min_segment: float = MIN_SEGMENT_SECONDS,
    last_window: LastWindow = "keep",
    tempo: bool = False,
    jobs: int | None = None,
    on_result: Callable[[Outcome[Location, KeyEstimate]], None] | None = None,
    playlist_name: str | None = None,
) -> AnalysisSummary:
    """Analyze the music below ``paths``. No file is changed, and no cache is used.

    A file that fails does not end the run. Ctrl-C, SIGTERM and SIGHUP end it early, and analyses in progress with it.

    Args:
        paths: files, folders and crates (``.m3u``, ``.m3u8``, ``.pls``, rekordbox ``.xml``). Folders are searched. The
            files of a folder or crate take its position.
        model, window_seconds, overlap, min_segment, last_window, tempo: see :func:`stonecli.detect_key`.
        jobs: number of files analyzed in parallel; None for one per CPU core.
        on_result: called with the outcome of each file in the order of ``paths``, in the calling thread. Its ``item``
            is the path, or the URL of a stream in a crate, which is an error.
        playlist_name: only this playlist of each rekordbox XML; None for the whole collection.

    Raises:
        ModelError, DeviceError: the built-in model cannot be loaded.
        ValueError: the window length or overlap is out of range, or ``jobs`` is less than 1.
    """
    used = default_model() if model is None else model
    check_windows(used.info, window_seconds, overlap)
    ended = Event()

    def detect(finding: Finding) -> KeyEstimate | None:
        if finding.error is not None:
            raise AudioError(finding.error)
        try:
            return detect_key(
                finding.path,
                used,
                window_seconds=window_seconds,
                overlap=overlap,
                min_segment=min_segment,
                last_window=last_window,
                tempo=tempo,
                cancelled=ended.is_set,
            )
        except Cancelled:
            return None

    files = failed = 0
    findings = files_and_music(map(Path, paths), playlist_name)
    with in_threads(detect, findings, jobs) as outcomes, stopped_by_signals(_Ending(ended, outcomes)) as signals:
        try:
            for outcome in outcomes:
                if outcome.result is None and outcome.error is None:  # cancelled
                    continue
                files += 1
                failed += outcome.error is not None
                if on_result:
                    on_result(Outcome(outcome.item.location, outcome.result, outcome.error))
        finally:
            ended.set()  # if on_result has raised an error, the other analyses are not needed
    return AnalysisSummary(files, failed, interrupted=bool(signals))


@dataclass(frozen=True)
class _Ending:
    """Ends a run within a moment."""

    ended: Event
    outcomes: Run[Finding, KeyEstimate | None]

    def stop(self) -> None:
        """Called by the signal handler."""
        self.ended.set()
        self.outcomes.stop()
