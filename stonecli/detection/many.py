"""Detect the keys of many recordings in parallel."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from stonecli.detection.detect import KeyEstimate, detect_key
from stonecli.jobs import Outcome, in_threads
from stonecli.model.session import KeyModel, default_model

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
