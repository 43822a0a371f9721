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
    """What became of each file, in the order of ``paths``: its estimate, or one line that says why there is none.

    ``paths`` is consumed as there is room, and results are handed over as they come, so that memory does not grow with
    their number. What cannot be heard does not end the rest. To leave early is enough to stop it.

    Args:
        paths: music files in any format that libsndfile or ffmpeg decodes.
        model: None for the one that stone carries.
        jobs: number of files analyzed in parallel; None for one per core.

    Raises:
        ModelError, DeviceError: the built-in model cannot be loaded.
        ValueError: ``jobs`` below 1.
    """
    used = default_model() if model is None else model
    with in_threads(lambda path: detect_key(path, used), paths, jobs) as outcomes:
        yield from outcomes
