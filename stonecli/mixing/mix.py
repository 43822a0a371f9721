"""Put music files into an order that mixes well: :func:`mix`, and the steps that it consists of."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from stonecli.detection.detect import KeyEstimate
from stonecli.errors import TagError
from stonecli.jobs import Outcome, in_threads, stopped_by_signals
from stonecli.library.cache import ResultCache, open_cache
from stonecli.library.walk import Finding, find_music
from stonecli.mixing.ordering import best_order
from stonecli.mixing.transitions import GOOD_COST, MOVE_COSTS, Track, Transition, cost_matrix, end_keys, transition
from stonecli.model.session import KeyModel, default_model
from stonecli.tagging import Tagger, TagOptions
from stonecli.tags import KeyTags, read_tags
from stonecli.tags.track_info import TrackInfo, read_info


@dataclass(frozen=True)
class MixTrack:
    """A file to mix.

    Attributes:
        path: as it was found.
        track: its key, tuning and tempo; None if it has no key.
        info: its tags.
        seconds: its length, or None if it is unknown.
    """

    path: Path
    track: Track | None
    info: TrackInfo
    seconds: float | None


@dataclass(frozen=True)
class TrackReader:
    """Makes a :class:`MixTrack` of one file when called with its path. It can be pickled.

    The key comes from the tags; a file without one is analyzed. The tuning and the keys at the start and the end come
    from the analysis: of now, or of an earlier run in the cache.
    """

    model: KeyModel
    cache: ResultCache | None = None

    def __call__(self, path: Path) -> MixTrack:
        """What is known of the file at ``path``.

        Raises:
            AudioError, ModelError, OSError: it has no key in its tags and cannot be analyzed.
        """
        try:
            key = read_tags(path).key
        except TagError:
            key = KeyTags("", None, None).key  # its audio may be fine
        estimate: KeyEstimate | None
        if key is None:
            estimate = Tagger(self.model, TagOptions(overwrite=True), cache=self.cache)(path).estimate
        else:
            estimate = self.cache.look_up(path, self.model, match_audio=True).estimate if self.cache else None
        info = read_info(path)
        seconds = estimate.duration if estimate else info.seconds
        used = key or (estimate.key if estimate else None)
        if used is None:
            return MixTrack(path, None, info, seconds)
        cents = estimate.tuning_cents if estimate else None
        track = Track(path, used, "tag" if key else "heard", cents, info.bpm, *end_keys(used, estimate))
        return MixTrack(path, track, info, seconds)


@dataclass(frozen=True)
class Mix:
    """An order of tracks.

    Attributes:
        tracks: in their order; each has a key.
        transitions: from each track to the next: one fewer.
        cost: sum of the costs of the transitions.
        bound: no order of these tracks costs less.
        gap: largest share of the cost, 0..1, that the best order could save.
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
    on_result: Callable[[Outcome[Path, MixTrack]], None] | None = None,
) -> Mix:
    """The music below ``paths`` in an order that mixes well. No file is changed.

    Args:
        paths: files and folders. Folders are searched.
        start, end: the first and the last track: files, below ``paths`` or not. None: any.
        model: analyzes files whose tags name no key; None for the built-in one.
        jobs: files processed in parallel; None: one per CPU core.
        use_cache: whether analyses are taken from the result cache and stored in it.
        on_result: called with the outcome of each file. Files that failed or have no key are left out of the mix.

    Raises:
        ValueError: ``start`` and ``end`` are the same track, or one of them has no key or cannot be read.
        KeyboardInterrupt: a signal, such as Ctrl-C, ended it early.
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

    if read_tracks(findings, collect, model=model, jobs=jobs, use_cache=use_cache):
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
    on_done: Callable[[], None] = lambda: None,
) -> bool:
    """Read, and where needed analyze, the files; whether a signal, such as Ctrl-C, ended it early.

    Args:
        findings: files and errors, of :func:`stonecli.library.walk.find_music`.
        on_result: called with the outcome of each file, in the calling thread.
        model, jobs, use_cache: see :func:`mix`.
        on_done: called for each processed file as soon as it is done, for a progress bar.
    """
    for finding in findings:
        if finding.error is not None:
            on_result(Outcome(finding.path, None, finding.error))
    music = [finding.path for finding in findings if finding.error is None]
    cache = open_cache() if use_cache else None
    with ExitStack() as stack:
        if cache is not None:
            stack.enter_context(closing(cache))
        reader = TrackReader(default_model() if model is None else model, cache)
        outcomes = stack.enter_context(in_threads(reader, music, jobs, on_done=lambda _: on_done()))
        signals = stack.enter_context(stopped_by_signals(outcomes))
        for outcome in outcomes:
            on_result(outcome)
    return bool(signals)


def track_of(tracks: Sequence[MixTrack], path: Path) -> MixTrack:
    """The track of the file at ``path``, which may have been found by another path.

    Raises:
        ValueError: it is not among ``tracks``.
    """
    for track in tracks:
        if track.path == path or os.path.samefile(track.path, path):  # noqa: PTH121
            return track
    raise ValueError(f"{path}: cannot be read, so it cannot be mixed")


def harmonic_mix(tracks: Sequence[MixTrack], start: MixTrack | None = None, end: MixTrack | None = None) -> Mix:
    """The tracks in an order that mixes well; those without a key are left out.

    Args:
        tracks: in any order, which does not change the sum of the costs.
        start, end: among ``tracks``, or None.

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
    """The tracks that mix with ``track``, the best first: no clash of keys, and a cost of at most ``GOOD_COST``."""
    found = [(other, transition(track, other.track)) for other in others if other.track and other.path != track.path]
    good = [pair for pair in found if pair[1].cost <= GOOD_COST and pair[1].key_cost < MOVE_COSTS["clash"]]
    return sorted(good, key=lambda pair: pair[1].cost)
