"""Sort music files into an order that mixes well (:func:`mix`), or find the tracks that mix with one."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from stonecli.cache.results import ResultCache, opened_cache
from stonecli.detection.estimate import KeyEstimate
from stonecli.errors import TagError
from stonecli.jobs import Outcome, in_threads, stopped_by_signals
from stonecli.key import Key
from stonecli.library.collection_tags import NO_COLLECTION, CollectionTags, read_collection_tags
from stonecli.library.locations import Location
from stonecli.library.music_file import opened
from stonecli.library.walk import Finding, find_music
from stonecli.mixing.positions import order_with_positions
from stonecli.mixing.transitions import (
    COMPATIBLE_COST,
    EQUAL_WEIGHTS,
    CostRules,
    KeySource,
    Track,
    Transition,
    cost_matrix,
    end_keys,
    transition,
)
from stonecli.model.session import KeyModel, default_model
from stonecli.tagging import Tagger, TagOptions
from stonecli.tagging.collection import completed
from stonecli.tags import KeyTags, read_tags
from stonecli.tags.tempo_text import parse_bpm
from stonecli.tags.track_info import TrackInfo, read_info

StrPath = str | os.PathLike[str]


@dataclass(frozen=True)
class MixTrack:
    """A file to mix.

    Attributes:
        path: path of the file.
        track: key, tuning and tempo; None if it has no key.
        info: title, artist and other metadata from the tags.
        seconds: duration in seconds; None if unknown.
        other_key: another key in the tags; that of ``track`` counts. None if all fields name the same key.
    """

    path: Path
    track: Track | None
    info: TrackInfo
    seconds: float | None
    other_key: Key | None = None


@dataclass(frozen=True)
class MixOptions:
    """How files are read, and how much each part of a transition counts.

    Attributes:
        rules: weights of key and tempo, and the largest change of tempo.
        bpm: whether the tempo of files whose tags contain none is estimated.
        bpm_range: lowest and highest tempo that estimated tempos are halved or doubled into; None: as estimated.
        jobs: number of files processed in parallel; None for one per CPU core.
        use_cache: whether to use the result cache.
        playlist_name: only this playlist of each rekordbox XML; None for the whole collection.
    """

    rules: CostRules = EQUAL_WEIGHTS
    bpm: bool = False
    bpm_range: tuple[float, float] | None = None
    jobs: int | None = None
    use_cache: bool = True
    playlist_name: str | None = None


DEFAULTS = MixOptions()


@dataclass(frozen=True)
class TrackReader:
    """Reads one file when called with its path. It can be pickled.

    Key and tempo are from the tags, or for a file without them from a rekordbox collection. A file without a key is
    analyzed. The tuning and the keys at the start and the end are from this analysis, or from an earlier one in the
    cache.

    Attributes:
        model: analyzes files whose tags contain no key.
        cache: the result cache, or None.
        bpm: whether files without a tempo in their tags are analyzed, too.
        bpm_range: estimated tempos are halved or doubled into this range; None: they stay as estimated.
        collection: keys and tempos of files that have none in their tags.
    """

    model: KeyModel
    cache: ResultCache | None = None
    bpm: bool = False
    bpm_range: tuple[float, float] | None = None
    collection: CollectionTags = NO_COLLECTION

    def __call__(self, path: Path) -> MixTrack:
        """The file at ``path`` as a track to mix.

        Raises:
            TagError: there is no such file.
            AudioError, ModelError, OSError: the tags contain no key, and the file cannot be analyzed.
        """
        with opened(path) as music:
            try:
                tags, has_readable_tags = read_tags(music), True
            except TagError:
                tags, has_readable_tags = KeyTags("", None, None), False  # but it may be music
            given = self.collection.of(path)
            known = completed(tags, given)
            key = known.key
            source: KeySource = "tag" if tags.key else "collection" if key else "detected"
            info = read_info(music)
            info = replace(info, bpm=info.bpm or parse_bpm(given.bpm))
            needs_tempo = self.bpm and info.bpm is None
            estimate: KeyEstimate | None
            if key is None or needs_tempo or not has_readable_tags:  # a file that is no music fails here
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
        track = Track(path, used, source, cents, info.bpm, *end_keys(used, estimate))
        return MixTrack(path, track, info, seconds, known.other_key)


LeftOut = Outcome[Location, MixTrack]
"""A file that is not in the mix: its path or URL, and the error; None if it has no key."""


@dataclass(frozen=True)
class Mix:
    """An order of tracks.

    Attributes:
        tracks: the tracks in order; each has a key.
        transitions: the transition from each track to the next; one fewer than tracks.
        cost: total cost of the transitions.
        bound: lower bound on the cost of any order of these tracks.
        gap: largest share of the cost, 0..1, that a better order could save.
        left_out: the files that are not in the mix.
    """

    tracks: tuple[MixTrack, ...]
    transitions: tuple[Transition, ...]
    cost: float
    bound: float
    gap: float
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True)
class Compatible:
    """The tracks that mix with one track.

    Attributes:
        track: the track; it has a key.
        others: the other tracks, the best first, each with the transition to it.
        left_out: the files that have no key or cannot be read.
    """

    track: MixTrack
    others: tuple[tuple[MixTrack, Transition], ...]
    left_out: tuple[LeftOut, ...]


def mix(
    paths: Iterable[StrPath],
    options: MixOptions = DEFAULTS,
    *,
    start: StrPath | None = None,
    end: StrPath | None = None,
    at: Mapping[int, StrPath] | None = None,
    model: KeyModel | None = None,
    on_start: Callable[[int], None] | None = None,
    on_done: Callable[[], None] | None = None,
    on_result: Callable[[Outcome[Location, MixTrack]], None] | None = None,
    on_warning: Callable[[str], None] | None = None,
) -> Mix:
    """The music below ``paths`` in an order that mixes well. No file is changed.

    Keys and tempos are from the tags of the files, or else from the rekordbox XML among the paths.

    Args:
        paths: files, folders and crates (``.m3u``, ``.m3u8``, ``.pls``, rekordbox ``.xml``). Folders are searched.
        options: how to read the files, and what counts.
        start, end: the first and the last track: a file inside or outside ``paths``, or the name of one of the files,
            in any case and with or without its extension. None for any track.
        at: tracks at other positions, counted from 1: ``{15: "peak.mp3"}``.
        model: analyzes files whose tags contain no key; None for the built-in one.
        on_start: called with the number of files before the first is read.
        on_done: called for each processed file as soon as it is done, for a progress bar.
        on_result: called with the outcome of each file, in the calling thread. Files that fail or have no key are not
            in the mix.
        on_warning: called with one line if the result cache cannot be used; the run continues without it.

    Raises:
        ValueError: a track that is named does not exist, cannot be read or has no key; one track has two positions, or
            a position does not exist. The message starts with ``start``, ``end``, ``at`` or the name of the file.
        KeyboardInterrupt: a signal, such as that of Ctrl-C, stopped the run.
        ModelError, DeviceError: the built-in model cannot be loaded.
    """
    named = {"start": start, "end": end, **{f"at {position}": path for position, path in (at or {}).items()}}
    if at and min(at) < 1:
        raise ValueError("at must be 1 or more")
    tracks, left_out, found = _read(paths, named, options, model, on_start, on_done, on_result, on_warning)
    positions = {position: found[f"at {position}"] for position in at or ()}
    result = harmonic_mix(tracks, found.get("start"), found.get("end"), positions, options.rules)
    return replace(result, left_out=tuple(left_out))


def compatible(
    paths: Iterable[StrPath],
    track: StrPath,
    options: MixOptions = DEFAULTS,
    *,
    model: KeyModel | None = None,
    on_start: Callable[[int], None] | None = None,
    on_done: Callable[[], None] | None = None,
    on_result: Callable[[Outcome[Location, MixTrack]], None] | None = None,
    on_warning: Callable[[str], None] | None = None,
) -> Compatible:
    """The music below ``paths`` that mixes with one track. No file is changed.

    Args:
        track: a file inside or outside ``paths``, or the name of one of the files.
        paths, options, model, on_start, on_done, on_result, on_warning: see :func:`mix`.

    Raises:
        ValueError: the track does not exist, cannot be read or has no key. Others: see :func:`mix`.
    """
    tracks, left_out, found = _read(
        paths, {"compatible": track}, options, model, on_start, on_done, on_result, on_warning
    )
    chosen = found["compatible"]
    if chosen.track is None:
        raise ValueError(f"{track}: no key detected, so no track can be compared with it")
    others = compatible_tracks(chosen.track, [other for other in tracks if other is not chosen], options.rules)
    return Compatible(chosen, tuple(others), tuple(left_out))


def _find(
    locations: Sequence[Path], named: Mapping[str, StrPath | None], playlist_name: str | None
) -> tuple[list[Finding], dict[str, Path]]:
    """The files, and the path of each name that is not None; named files outside the locations come first."""
    findings = list(find_music(locations, playlist_name=playlist_name))
    music = [finding.path for finding in findings if finding.error is None]
    chosen = {name: _named(Path(path), music, name) for name, path in named.items() if path is not None}
    if not set(chosen.values()) <= set(music):
        findings = list(find_music([*chosen.values(), *locations], playlist_name=playlist_name))
    return findings, chosen


def _read(
    paths: Iterable[StrPath],
    named: Mapping[str, StrPath | None],
    options: MixOptions,
    model: KeyModel | None,
    on_start: Callable[[int], None] | None,
    on_done: Callable[[], None] | None,
    on_result: Callable[[Outcome[Location, MixTrack]], None] | None,
    on_warning: Callable[[str], None] | None,
) -> tuple[list[MixTrack], list[LeftOut], dict[str, MixTrack]]:
    """The tracks of all files, the files without a key, and the track of each name that is not None."""
    locations = [Path(path) for path in paths]
    findings, chosen = _find(locations, named, options.playlist_name)
    music = [finding.path for finding in findings if finding.error is None]
    _check_positions(chosen, named, len(music))
    tracks: list[MixTrack] = []
    left_out: list[LeftOut] = []

    def collect(outcome: Outcome[Location, MixTrack]) -> None:
        if outcome.result is not None:
            tracks.append(outcome.result)
        if outcome.result is None or outcome.result.track is None:
            left_out.append(outcome)
        if on_result:
            on_result(outcome)

    if on_start:
        on_start(len(music))
    for finding in findings:
        if finding.error is not None:
            collect(Outcome(finding.location, None, finding.error))
    with ExitStack() as stack:
        cache = stack.enter_context(opened_cache(on_warning)) if options.use_cache else None
        collection = read_collection_tags(locations, options.playlist_name)
        key_model = default_model() if model is None else model
        reader = TrackReader(key_model, cache, options.bpm, options.bpm_range, collection)
        done = on_done or (lambda: None)
        outcomes = stack.enter_context(in_threads(reader, music, options.jobs, on_done=lambda _: done()))
        signals = stack.enter_context(stopped_by_signals(outcomes))
        for outcome in outcomes:
            collect(Outcome(outcome.item, outcome.result, outcome.error))  # the same, as one of any location
    if signals:
        raise KeyboardInterrupt
    return tracks, left_out, {name: track_of(tracks, path) for name, path in chosen.items()}


def _as_typed(name: str, path: StrPath) -> str:
    """A choice as the caller wrote it: ``start a.mp3`` or ``at 3=a.mp3``."""
    return f"{name}{'=' if name.startswith('at ') else ' '}{path}"


def _check_positions(chosen: Mapping[str, Path], named: Mapping[str, StrPath | None], count: int) -> None:
    """Raise an error if the positions cannot be met by ``count`` files, of which some may turn out to have no key.

    Args:
        chosen: files by ``start``, ``end`` or ``at`` with a position.
        named: what the caller wrote for each.
        count: number of files.
    """
    files: dict[int, str] = {}
    positions: dict[Path, int] = {}
    for name, path in chosen.items():
        option, _, number = name.partition(" ")
        if option == "compatible":
            continue
        position = int(number) if number else 1 if option == "start" else count
        shown = _as_typed(name, named[name] or path)
        if position > count:
            raise ValueError(f"{shown}: there are only {count} files")
        file = path.resolve()
        if files.setdefault(position, name) != name and positions.get(file) != position:
            raise ValueError(f"{shown}: another track has this position ({files[position]})")
        if positions.setdefault(file, position) != position:
            raise ValueError(f"{shown}: this track already has a position ({files[positions[file]]})")


def _named(wanted: Path, music: Sequence[Path], option: str) -> Path:
    """The file that a path or a name stands for; a name may be in any case, and without the extension.

    Raises:
        ValueError: there is no such file, or several have this name.
    """
    if wanted.is_file():
        return wanted
    parts = _parts(wanted)
    by_name = [path for path in music if path.parts[-len(parts) :] == wanted.parts]
    by_name = by_name or [path for path in music if _parts(path)[-len(parts) :] == parts]
    by_stem = [path for path in music if _parts(path.with_suffix(""))[-len(parts) :] == parts]
    found = by_name or by_stem
    if not found:
        raise ValueError(f"{_as_typed(option, wanted)}: no such file, and none with this name in the given paths")
    if len(found) > 1:
        names = ", ".join(map(str, found[:3])) + (", ..." if len(found) > 3 else "")
        raise ValueError(f"{_as_typed(option, wanted)}: {len(found)} files have this name; choose one: {names}")
    return found[0]


def _parts(path: Path) -> tuple[str, ...]:
    """The parts of the path without case, and with composed accents: macOS stores accents apart from their letters."""
    return tuple(unicodedata.normalize("NFC", part.casefold()) for part in path.parts)


def track_of(tracks: Sequence[MixTrack], path: Path) -> MixTrack:
    """The track of the file at ``path``; the track may have another path to the same file.

    Raises:
        ValueError: the file is not in ``tracks``.
    """
    for track in tracks:
        if track.path == path or os.path.samefile(track.path, path):  # noqa: PTH121
            return track
    raise ValueError(f"{path}: cannot be read, so it cannot be mixed")


def harmonic_mix(
    tracks: Sequence[MixTrack],
    start: MixTrack | None = None,
    end: MixTrack | None = None,
    at: Mapping[int, MixTrack] | None = None,
    rules: CostRules = EQUAL_WEIGHTS,
) -> Mix:
    """The tracks in an order that mixes well, without those that have no key.

    Args:
        tracks: tracks in any order.
        start, end: first and last track, from ``tracks``; None for any.
        at: tracks at other positions, counted from 1.
        rules: what counts.

    Raises:
        ValueError: a track with a position has no key or another position, or a position does not exist.
    """
    mixable = [track for track in tracks if track.track]
    basis = [track.track for track in mixable if track.track]
    fixed = {position - 1: track for position, track in (at or {}).items()}
    for position, track in ((0, start), (len(mixable) - 1, end)):
        if track is not None and fixed.setdefault(position, track) is not track:
            raise ValueError(f"{track.path}: another track has this position")
    for track in fixed.values():
        if track.track is None:
            raise ValueError(f"{track.path}: no key detected, so it cannot be mixed")
    by_track: dict[int, int] = {}
    for position, track in fixed.items():
        if by_track.setdefault(id(track), position) != position:
            raise ValueError(f"{track.path}: this track already has a position")
    indices = {id(track): index for index, track in enumerate(mixable)}
    positions = {position: indices[id(track)] for position, track in fixed.items()}
    ordering = order_with_positions(cost_matrix(basis, rules), positions)
    transitions = (transition(basis[first], basis[second], rules) for first, second in pairwise(ordering.order))
    return Mix(
        tuple(mixable[index] for index in ordering.order),
        tuple(transitions),
        ordering.cost,
        ordering.bound,
        ordering.gap,
    )


def compatible_tracks(
    track: Track, others: Sequence[MixTrack], rules: CostRules = EQUAL_WEIGHTS
) -> list[tuple[MixTrack, Transition]]:
    """The tracks that mix with ``track``, the best first: no key clash, and a cost of at most ``COMPATIBLE_COST``."""
    found = [
        (other, transition(track, other.track, rules)) for other in others if other.track and other.path != track.path
    ]
    good = [pair for pair in found if pair[1].cost <= COMPATIBLE_COST and pair[1].name != "clash"]
    return sorted(good, key=lambda pair: pair[1].cost)
