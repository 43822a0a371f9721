"""Sort music files into an order that mixes well: :func:`mix`, and the functions that it calls."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from stonecli.cache.results import ResultCache, open_cache
from stonecli.detection.estimate import KeyEstimate
from stonecli.errors import TagError
from stonecli.jobs import Outcome, in_threads, stopped_by_signals
from stonecli.library.music_file import opened
from stonecli.library.walk import Finding, find_music
from stonecli.mixing.ordering import best_order
from stonecli.mixing.transitions import COMPATIBLE_COST, KEY_COSTS, Track, Transition, cost_matrix, end_keys, transition
from stonecli.model.session import KeyModel, default_model
from stonecli.tagging import Tagger, TagOptions
from stonecli.tags import KeyTags, read_tags
from stonecli.tags.track_info import TrackInfo, read_info


@dataclass(frozen=True)
class MixTrack:
    """A file to mix.

    Attributes:
        path: path of the file.
        track: key, tuning and tempo; None if it has no key.
        info: title, artist and other metadata from the tags.
        seconds: duration in seconds; None if unknown.
    """

    path: Path
    track: Track | None
    info: TrackInfo
    seconds: float | None


@dataclass(frozen=True)
class TrackReader:
    """Reads one file when called with its path. It can be pickled.

    The key is from the tags; a file without one is analyzed. The tuning and the keys at the start and the end are from
    this analysis, or from an earlier one in the cache.

    Attributes:
        model: analyzes files whose tags contain no key.
        cache: the result cache, or None.
        bpm: whether files without a tempo in their tags are analyzed, too.
        bpm_range: estimated tempi are halved or doubled into this range; None: they stay as estimated.
    """

    model: KeyModel
    cache: ResultCache | None = None
    bpm: bool = False
    bpm_range: tuple[float, float] | None = None

    def __call__(self, path: Path) -> MixTrack:
        """The file at ``path`` as a track to mix.

        Raises:
            TagError: there is no such file.
            AudioError, ModelError, OSError: the tags contain no key, and the file cannot be analyzed.
        """
        with opened(path) as music:
            try:
                key = read_tags(music).key
            except TagError:
                key = KeyTags("", None, None).key  # the audio may be valid
            info = read_info(music)
            needs_tempo = self.bpm and info.bpm is None
            estimate: KeyEstimate | None
            if key is None or needs_tempo:
                limits = self.bpm_range if needs_tempo else None
                options = TagOptions(overwrite=True, bpm=needs_tempo, bpm_range=limits)
                result = Tagger(self.model, options, cache=self.cache)(music)
                estimate = result.estimate
                info = replace(info, bpm=info.bpm or result.bpm)
            else:
                estimate = self.cache.look_up(music, self.model, match_audio=True).estimate if self.cache else None
        seconds = estimate.duration if estimate else info.seconds
        used = key or (estimate.key if estimate else None)
        if used is None:
            return MixTrack(path, None, info, seconds)
        cents = estimate.tuning_cents if estimate else None
        track = Track(path, used, "tag" if key else "detected", cents, info.bpm, *end_keys(used, estimate))
        return MixTrack(path, track, info, seconds)


@dataclass(frozen=True)
class Mix:
    """An order of tracks.

    Attributes:
        tracks: the tracks in order; each has a key.
        transitions: the transition from each track to the next; one fewer than tracks.
        cost: total cost of the transitions.
        bound: lower bound on the cost of any order of these tracks.
        gap: largest share of the cost, 0..1, that a better order could save.
    """

    tracks: tuple[MixTrack, ...]
    transitions: tuple[Transition, ...]
    cost: float
    bound: float
    gap: float


def mix(
    paths: Iterable[str | os.PathLike[str]],
    *,
    start: str | os.PathLike[str] | None = None,
    end: str | os.PathLike[str] | None = None,
    model: KeyModel | None = None,
    jobs: int | None = None,
    use_cache: bool = True,
    bpm: bool = False,
    bpm_range: tuple[float, float] | None = None,
    on_result: Callable[[Outcome[Path, MixTrack]], None] | None = None,
) -> Mix:
    """The music below ``paths`` in an order that mixes well. No file is changed.

    Args:
        paths: files and folders. Folders are searched.
        start, end: files of the first and the last track, inside or outside ``paths``; None for any track.
        model: analyzes files whose tags contain no key; None for the built-in one.
        jobs: number of files processed in parallel; None for one per CPU core.
        use_cache: whether to use the result cache.
        bpm: whether to estimate the tempo of files whose tags contain none.
        bpm_range: lowest and highest tempo that estimated tempi are halved or doubled into; None: as estimated.
        on_result: called with the outcome of each file. Files that fail or have no key are not in the mix.

    Raises:
        ValueError: ``start`` and ``end`` are the same track, or one of them has no key or cannot be read.
        KeyboardInterrupt: a signal, such as that of Ctrl-C, stopped the run.
        ModelError, DeviceError: the built-in model cannot be loaded.
    """
    ends = [None if path is None else Path(path) for path in (start, end)]
    findings = list(find_music([*(path for path in ends if path is not None), *map(Path, paths)]))
    tracks: list[MixTrack] = []

    def collect(outcome: Outcome[Path, MixTrack]) -> None:
        if outcome.result is not None:
            tracks.append(outcome.result)
        if on_result:
            on_result(outcome)

    if read_tracks(findings, collect, model=model, jobs=jobs, use_cache=use_cache, bpm=bpm, bpm_range=bpm_range):
        raise KeyboardInterrupt
    first, last = (None if path is None else track_of(tracks, path) for path in ends)
    return harmonic_mix(tracks, first, last)


def read_tracks(
    findings: Sequence[Finding],
    on_result: Callable[[Outcome[Path, MixTrack]], None],
    *,
    model: KeyModel | None = None,
    jobs: int | None = None,
    use_cache: bool = True,
    bpm: bool = False,
    bpm_range: tuple[float, float] | None = None,
    on_done: Callable[[], None] = lambda: None,
) -> bool:
    """Read the files, and analyze those without a key in their tags.

    Args:
        findings: files and errors from :func:`stonecli.library.walk.find_music`.
        on_result: called with the outcome of each file, in the calling thread.
        model, jobs, use_cache, bpm, bpm_range: see :func:`mix`.
        on_done: called for each processed file as soon as it is done, for a progress bar.

    Returns:
        Whether a signal, such as that of Ctrl-C, stopped the run.
    """
    for finding in findings:
        if finding.error is not None:
            on_result(Outcome(finding.path, None, finding.error))
    music = [finding.path for finding in findings if finding.error is None]
    cache = open_cache() if use_cache else None
    with ExitStack() as stack:
        if cache is not None:
            stack.enter_context(closing(cache))
        reader = TrackReader(default_model() if model is None else model, cache, bpm, bpm_range)
        outcomes = stack.enter_context(in_threads(reader, music, jobs, on_done=lambda _: on_done()))
        signals = stack.enter_context(stopped_by_signals(outcomes))
        for outcome in outcomes:
            on_result(outcome)
    return bool(signals)


def track_of(tracks: Sequence[MixTrack], path: Path) -> MixTrack:
    """The track of the file at ``path``; the track may have another path to the same file.

    Raises:
        ValueError: the file is not in ``tracks``.
    """
    for track in tracks:
        if track.path == path or os.path.samefile(track.path, path):  # noqa: PTH121
            return track
    raise ValueError(f"{path}: cannot be read, so it cannot be mixed")


def harmonic_mix(tracks: Sequence[MixTrack], start: MixTrack | None = None, end: MixTrack | None = None) -> Mix:
    """The tracks in an order that mixes well, without those that have no key.

    Args:
        tracks: tracks in any order.
        start, end: first and last track, from ``tracks``; None for any.

    Raises:
        ValueError: start and end are the same track, or one of them has no key.
    """
    mixable = [track for track in tracks if track.track]
    if any(track is not None and track.track is None for track in (start, end)):
        raise ValueError("the first or the last track has no key")
    basis = [track.track for track in mixable if track.track]
    indices = {id(track): index for index, track in enumerate(mixable)}
    ordering = best_order(cost_matrix(basis), indices[id(start)] if start else None, indices[id(end)] if end else None)
    transitions = (transition(basis[first], basis[second]) for first, second in pairwise(ordering.order))
    return Mix(
        tuple(mixable[index] for index in ordering.order),
        tuple(transitions),
        ordering.cost,
        ordering.bound,
        ordering.gap,
    )


def compatible(track: Track, others: Sequence[MixTrack]) -> list[tuple[MixTrack, Transition]]:
    """The tracks that mix with ``track``, the best first: no key clash, and a cost of at most ``COMPATIBLE_COST``."""
    found = [(other, transition(track, other.track)) for other in others if other.track and other.path != track.path]
    good = [pair for pair in found if pair[1].cost <= COMPATIBLE_COST and pair[1].key_cost < KEY_COSTS["clash"]]
    return sorted(good, key=lambda pair: pair[1].cost)
