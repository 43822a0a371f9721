"""What a transition from one track to the next costs the ear: Camelot moves, tuning and tempo (docs/mixing.md).

Costs are points. 0 is a transition that nobody notices, 1 to 2 the moves of every harmonic mix, 3 to 4 those that are
meant to be heard, and ``CLASH`` what is avoided. They are added up: key, tuning, tempo.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from stonecli.key import Key, KeyRelation

if TYPE_CHECKING:
    from stonecli.detection.detect import KeyEstimate

Move = Literal[
    "same key", "one up", "one down", "relative", "diagonal", "energy boost", "energy drop", "parallel", "clash"
]
Floats = npt.NDArray[np.float32]
AnyFloats = npt.NDArray[np.float32] | npt.NDArray[np.float64]

MOVE_COSTS: dict[Move, float] = {
    "same key": 0.0,
    "one up": 1.0,  # a fifth up: 8A -> 9A
    "one down": 1.0,  # a fifth down: 8A -> 7A
    "relative": 1.0,  # the same notes: 8A -> 8B
    "diagonal": 2.0,  # one up or down and the other letter: 8A -> 9B, 7B
    "energy boost": 3.0,  # two up (a whole tone) or seven up (a semitone): 8A -> 10A, 3A
    "parallel": 3.0,  # the same tonic: 8A -> 11B
    "energy drop": 4.0,  # the two boosts backwards
    "clash": 8.0,  # anything else
}
_MOVES: dict[KeyRelation, Move] = {
    "same": "same key",
    "fifth up": "one up",
    "fifth down": "one down",
    "relative": "relative",
    "parallel": "parallel",
}
GOOD_COST = 4.0  # up to here, all in all, two tracks are called compatible

FREE_CENTS = 10.0  # of a difference in tuning; more is heard as beating (mixxx pull request 15817)
POINTS_PER_CENT = 0.1  # a semitone off is 9 points, more than a clash of keys

SURE_SEGMENT = 0.5  # confidence of a segment, from which on it counts: its key is likelier than all others together

POINTS_PER_PERCENT = 0.5  # of a difference in tempo: 6 %, about what a turntable is pulled, is 3 points
MOST_TEMPO_POINTS = 6.0
HALF_TIME_POINTS = 1.0  # 87 into 174 BPM


@dataclass(frozen=True)
class Track:
    """What is known of a track that is to be mixed.

    Attributes:
        path: its file.
        key: its key.
        key_from: whether its tags say so, or whether it was heard.
        tuning_cents: deviation from A = 440 Hz; None where it is not known.
        bpm: beats per minute; None where it is not known.
        first_key, last_key: what it is mixed in and out by, see :func:`end_keys`; None for ``key``.
    """

    path: Path
    key: Key
    key_from: Literal["tag", "heard"] = "tag"
    tuning_cents: float | None = None
    bpm: float | None = None
    first_key: Key | None = None
    last_key: Key | None = None

    @property
    def key_in(self) -> Key:
        """The key that another track meets at its beginning."""
        return self.first_key or self.key

    @property
    def key_out(self) -> Key:
        """The key that it is left in."""
        return self.last_key or self.key


@dataclass(frozen=True)
class Transition:
    """One transition.

    Attributes:
        move: by its name, as it sounds: of two tracks 96 cents apart, one a semitone "above" the other, the keys are
            the same.
        key_cost, tuning_cost, tempo_cost: in points.
    """

    move: Move
    key_cost: float
    tuning_cost: float
    tempo_cost: float

    @property
    def cost(self) -> float:
        """The sum."""
        return self.key_cost + self.tuning_cost + self.tempo_cost


def move_of(first: Key, second: Key) -> Move:
    """The name of the move from ``first`` to ``second`` on the Camelot wheel."""
    relation = second.relation_to(first)
    if relation != "other":
        return _MOVES[relation]
    steps = (second.wheel - first.wheel) % 12
    if first.mode == second.mode:
        return "energy boost" if steps in (2, 7) else "energy drop" if steps in (10, 5) else "clash"
    return "diagonal" if steps in (1, 11) else "clash"


def end_keys(key: Key, estimate: KeyEstimate | None) -> tuple[Key, Key]:
    """The keys by which a track in ``key`` is mixed in and out.

    They are those of its first and its last segment where it changes key, each one if the segment's confidence is
    ``SURE_SEGMENT`` or more; else ``key``. Where the tags name another key than was heard, what was heard does not
    count.
    """
    if estimate is None or estimate.key != key or len(estimate.segments) < 2:
        return key, key
    first, last = estimate.segments[0], estimate.segments[-1]
    return (
        first.key if first.confidence >= SURE_SEGMENT else key,
        last.key if last.confidence >= SURE_SEGMENT else key,
    )


def transition(first: Track, second: Track) -> Transition:
    """The transition from the end of ``first`` to the beginning of ``second``, with its costs."""
    shift, tuning_cost = _best_shift(first, second)
    move = move_of(first.key_out, second.key_in.transposed(shift))
    (tempo_cost,) = _tempo_costs(np.array([first.bpm or np.nan]), np.array([second.bpm or np.nan]))
    return Transition(move, MOVE_COSTS[move], tuning_cost, float(tempo_cost))


def cost_matrix(tracks: Sequence[Track]) -> Floats:
    """float32 [tracks, tracks]: the points of the transition from each track (row) to each other (column)."""
    left = np.array([track.key_out.index for track in tracks], dtype=np.int64)
    entered = np.array([track.key_in.index for track in tracks], dtype=np.int64)
    cents = np.array([np.nan if track.tuning_cents is None else track.tuning_cents for track in tracks], dtype="f4")
    bpm = np.array([track.bpm or np.nan for track in tracks], dtype="f4")
    between = cents[None, :] - cents[:, None]
    between[np.isnan(between)] = 0.0
    costs = np.full(between.shape, np.inf, dtype=np.float32)
    for shift in (-1, 0, 1):
        moves = np.array([[MOVE_COSTS[move_of(a, b.transposed(shift))] for b in Key.all()] for a in Key.all()])
        shifted = moves.astype(np.float32)[left[:, None], entered[None, :]]
        np.minimum(costs, shifted + _tuning_costs(between - 100.0 * shift), out=costs)
    return costs + _tempo_costs(bpm[:, None], bpm[None, :]).astype(np.float32)


def _best_shift(first: Track, second: Track) -> tuple[int, float]:
    """By how many semitones ``second`` is best read as another key, and what its tuning costs then.

    C# at -48 cents is C at +52: where the first is C at +48, the same key, all but 4 cents.
    """
    known = first.tuning_cents is not None and second.tuning_cents is not None
    cents = second.tuning_cents - first.tuning_cents if known else 0.0  # type: ignore[operator]
    tuning = {shift: float(_tuning_costs(np.array(cents - 100.0 * shift))) for shift in (0, -1, 1)}

    def cost(shift: int) -> float:
        return tuning[shift] + MOVE_COSTS[move_of(first.key_out, second.key_in.transposed(shift))]

    shift = min(tuning, key=cost)
    return shift, tuning[shift]


def _tuning_costs(cents: AnyFloats) -> AnyFloats:
    return np.maximum(np.abs(cents) - FREE_CENTS, 0.0) * POINTS_PER_CENT


def _tempo_costs(first: AnyFloats, second: AnyFloats) -> AnyFloats:
    """Points for the change of tempo; 0 where one of them is not known."""
    octaves = np.log2(second / first)
    straight = _percent_points(octaves)
    halved = _percent_points(np.abs(octaves) - 1.0) + HALF_TIME_POINTS
    return np.nan_to_num(np.minimum(straight, halved), nan=0.0)


def _percent_points(octaves: AnyFloats) -> AnyFloats:
    percent = 100.0 * np.abs(np.exp2(np.abs(octaves)) - 1.0)
    return np.minimum(percent * POINTS_PER_PERCENT, MOST_TEMPO_POINTS)
