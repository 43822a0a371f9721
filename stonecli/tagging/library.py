"""Detect the keys of a music library and write them (:func:`tag_library`), respell them, or compare them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from stonecli.jobs import Outcome, in_threads, stopped_by_signals
from stonecli.key import AGREEMENTS, Agreement
from stonecli.library.collection_tags import read_collection_tags
from stonecli.library.locations import Location, Seen, Url, parse_location
from stonecli.model.session import KeyModel
from stonecli.tagging.collection import completed_result
from stonecli.tagging.converter import Converter
from stonecli.tagging.options import PREVIEW, TagOptions
from stonecli.tagging.results import OnResult, ResultCounter, TagResult, TagSummary
from stonecli.tagging.tagger import LocationTagger, Tagger, open_tagger
from stonecli.tags import KeyTags
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
    on_warning: Callable[[str], None] | None = None,
    playlist_name: str | None = None,
) -> TagSummary:
    """Detect the keys of all music below ``paths`` and, if ``options`` say so, write them to the tags.

    A file that fails does not end the run. Ctrl-C, SIGTERM and SIGHUP end it early without losing a result: files in
    progress are finished. With ``options.write`` the run is recorded for ``stone undo``.

    Args:
        paths: files, folders, crates (``.m3u``, ``.m3u8``, ``.pls``, rekordbox ``.xml``) and URLs (``s3://``,
            ``https://``). Folders are searched. URLs are never written to. A key in a collection does not count as the
            key of the file.
        options: what to do.
        model: None for the built-in one.
        skip: files that are in it are skipped; those that are found are added.
        on_start: called once with the music that was found, before the first file is processed.
        on_done: called for each processed file as soon as it is done, for a progress bar.
        on_result: called with the outcome of each file in the order in which they were found, in the calling thread.
            An outcome has ``item`` (the path or URL), ``result`` and ``error``: one line, or None.
        on_warning: called with one line if the result cache cannot be used; the run continues without it.
        playlist_name: only this playlist of each rekordbox XML; None for the whole collection.

    Returns:
        The number of files and failures, whether the run was interrupted, and its number for undo.

    Raises:
        JournalError: the undo journal cannot be used; nothing was written.
        ModelError, DeviceError: the built-in model cannot be loaded.
    """
    from stonecli.remote.storage import find_recordings

    locations = [path if isinstance(path, Url) else parse_location(os.fspath(path)) for path in paths]
    with open_tagger(model, options, on_warning=on_warning) as (tagger, run):
        if isinstance(tagger, Converter):
            tagger = replace(tagger, collection=read_collection_tags(locations, playlist_name))
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
        act = LocationTagger(without_cache, options.write or options.remove or options.convert, tagger)
        done = on_done or (lambda: None)
        with (
            in_threads(act, music, options.jobs, on_done=lambda _: done()) as outcomes,
            stopped_by_signals(outcomes) as signals,
        ):
            for outcome in outcomes:
                counter(outcome)
    return counter.summary(run, interrupted=bool(signals))


def convert_library(
    paths: Iterable[StrPath | Url],
    options: TagOptions = PREVIEW,
    *,
    on_start: Callable[[Sequence[Location]], None] | None = None,
    on_done: Callable[[], None] | None = None,
    on_result: OnResult | None = None,
    on_warning: Callable[[str], None] | None = None,
    playlist_name: str | None = None,
) -> TagSummary:
    """Write the keys that the music below ``paths`` already has in other notations, or to other fields.

    Nothing is analyzed, and no key changes: the key in the tags, or for a file without one the ``Tonality`` of a
    rekordbox XML among the paths, is read in any spelling (:meth:`stonecli.Key.parse`). Files without a key, those
    whose key text names none, and those whose fields name two keys stay as they are. Signals and undo: see
    :func:`tag_library`.

    Args:
        paths: files, folders and crates, see :func:`tag_library`; URLs are never written to, so each is an error.
        options: ``rules`` are the fields with their notations. Without ``write`` this is a preview.
        on_start, on_done, on_result, on_warning, playlist_name: see :func:`tag_library`.

    Returns:
        The number of files and failures, whether the run was interrupted, and its number for undo.

    Raises:
        ValueError: an option that needs an analysis is set.
        JournalError: the undo journal cannot be used; nothing was written.
    """
    return tag_library(
        paths,
        replace(options, convert=True),
        on_start=on_start,
        on_done=on_done,
        on_result=on_result,
        on_warning=on_warning,
        playlist_name=playlist_name,
    )


@dataclass(frozen=True)
class ComparisonSummary(TagSummary):
    """The summary of a comparison.

    Attributes:
        relations: number of files by the relation of their two keys.
        not_compared: number of files without a key in their tags, or in which none was detected.
    """

    relations: Mapping[Agreement, int]
    not_compared: int


def compare_library(
    paths: Iterable[StrPath | Url],
    options: TagOptions = PREVIEW,
    *,
    only: Collection[Agreement] | None = None,
    min_confidence: float = 0.0,
    model: KeyModel | None = None,
    on_start: Callable[[Sequence[Location]], None] | None = None,
    on_done: Callable[[], None] | None = None,
    on_result: OnResult | None = None,
    on_warning: Callable[[str], None] | None = None,
    playlist_name: str | None = None,
) -> ComparisonSummary:
    """Compare the keys in the tags of all music below ``paths`` with the detected ones. No file is changed.

    For files without a key, the ``Tonality`` of a rekordbox XML among the paths is compared.

    Args:
        paths: files, folders, crates and URLs, see :func:`tag_library`.
        options: ``jobs`` and ``use_cache``; files that already have a key are always analyzed.
        only: pass only results with one of these relations to ``on_result``; None for all. Errors are always passed.
        min_confidence: pass only results with at least this confidence.
        model: None for the built-in one.
        on_start, on_done, on_result, on_warning, playlist_name: see :func:`tag_library`. A result has ``old_key``,
            ``estimate`` and ``relation``.

    Returns:
        The counts of all files, also of those that were not passed to ``on_result``.

    Raises:
        ModelError, DeviceError: the built-in model cannot be loaded.
    """
    counts: Counter[Agreement | None] = Counter()
    paths = list(paths)
    collection = read_collection_tags(paths, playlist_name)

    def collect(outcome: Outcome[Location, TagResult]) -> None:
        result = outcome.result
        if result is not None and isinstance(result.path, Path):
            own = KeyTags("", result.old_text, result.old_key, result.old_bpm_text)
            result = completed_result(result, own, collection.of(result.path))
            outcome = replace(outcome, result=result)
        if result is not None:
            counts[result.relation] += 1
            confidence = result.estimate.confidence if result.estimate else 0.0
            if (only is not None and result.relation not in only) or confidence < min_confidence:
                return
        if on_result:
            on_result(outcome)

    summary = tag_library(
        paths,
        replace(options, write=False, overwrite=True),
        model=model,
        on_start=on_start,
        on_done=on_done,
        on_result=collect,
        on_warning=on_warning,
        playlist_name=playlist_name,
    )
    relations = {relation: counts[relation] for relation in AGREEMENTS}
    return ComparisonSummary(summary.files, summary.failed, summary.interrupted, None, relations, counts[None])
