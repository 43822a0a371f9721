"""Detect the keys of a music library and write them: :func:`tag_library`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from stonecli.jobs import Outcome, in_threads, stopped_by_signals
from stonecli.model.session import KeyModel
from stonecli.remote.locations import Location, Seen, Url, parse_location
from stonecli.tagging.options import PREVIEW, TagOptions
from stonecli.tagging.results import OnResult, ResultCounter, TagSummary
from stonecli.tagging.tagger import LocationTagger, Tagger, open_tagger
from stonecli.tags.edit.atomic_replace import remove_leftovers

StrPath: TypeAlias = str | os.PathLike[str]


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
    from stonecli.remote.storage import find_recordings

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
