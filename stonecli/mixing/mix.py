"""Files -> tracks with what a mix goes by, and the order to play them in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stonecli.detection.detect import KeyEstimate
from stonecli.errors import TagError
from stonecli.library.cache import ResultCache
from stonecli.mixing.ordering import best_order
from stonecli.mixing.transitions import GOOD_COST, MOVE_COSTS, Track, Transition, cost_matrix, end_keys, transition
from stonecli.model.session import KeyModel
from stonecli.tagging import Tagger, TagOptions
from stonecli.tags import KeyTags, read_tags
from stonecli.tags.track_info import TrackInfo, read_info


@dataclass(frozen=True)
class MixTrack:
    """A file on its way into a mix.

    Attributes:
        path: as it was found.
        track: what a mix goes by; None where there is no key.
        info: what its tags say.
        seconds: its length, or None.
    """

    path: Path
    track: Track | None
    info: TrackInfo
    seconds: float | None


@dataclass(frozen=True)
class TrackReader:
    """Makes a :class:`MixTrack` of one file when called with its path; can be sent to other processes.

    The key is the one in the tags, where one is, and is heard otherwise; the tuning, and the keys that it begins and
    ends in, come from having heard the file, now or, in the cache, before.
    """

    model: KeyModel
    cache: ResultCache | None = None

    def __call__(self, path: Path) -> MixTrack:
        """What is known of the file at ``path``.

        Raises:
            AudioError, ModelError, OSError: it has no key in its tags and cannot be heard.
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
        heard = key or (estimate.key if estimate else None)
        if heard is None:
            return MixTrack(path, None, info, seconds)
        cents = estimate.tuning_cents if estimate else None
        track = Track(path, heard, "tag" if key else "heard", cents, info.bpm, *end_keys(heard, estimate))
        return MixTrack(path, track, info, seconds)


@dataclass(frozen=True)
class Mix:
    """An order of tracks.

    Attributes:
        tracks: in their order; each has a key.
        transitions: from each track to the next: one fewer.
        cost: sum of the points of the transitions.
        bound: no order of these tracks costs less.
        gap: share of the cost, 0..1, that the best order could save at most.
    """

    tracks: tuple[MixTrack, ...]
    transitions: tuple[Transition, ...]
    cost: float
    bound: float
    gap: float


def harmonic_mix(tracks: Sequence[MixTrack], start: MixTrack | None = None, end: MixTrack | None = None) -> Mix:
    """The tracks in a good order for mixing; those without a key are left out.

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
    places = {id(track): place for place, track in enumerate(mixable)}
    ordering = best_order(cost_matrix(basis), places[id(start)] if start else None, places[id(end)] if end else None)
    transitions = (
        transition(basis[one], basis[other]) for one, other in zip(ordering.order, ordering.order[1:], strict=False)
    )
    return Mix(
        tuple(mixable[place] for place in ordering.order),
        tuple(transitions),
        ordering.cost,
        ordering.bound,
        ordering.gap,
    )


def compatible(track: Track, others: Sequence[MixTrack]) -> list[tuple[MixTrack, Transition]]:
    """What mixes with ``track``, the best first: no clash of keys, and at most ``GOOD_COST`` points in all."""
    found = [(other, transition(track, other.track)) for other in others if other.track and other.path != track.path]
    good = [pair for pair in found if pair[1].cost <= GOOD_COST and pair[1].key_cost < MOVE_COSTS["clash"]]
    return sorted(good, key=lambda pair: pair[1].cost)
