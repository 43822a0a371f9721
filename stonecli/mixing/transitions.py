"""The cost of a transition from one track to the next: key, tuning and tempo (docs/mixing.md).

Key, tuning and tempo costs are added up. A cost of 0 is a transition that nobody notices, 1 to 2 is usual in a harmonic
mix, 3 to 4 is an audible change that a DJ makes on purpose, and the cost of a clash is to be avoided.
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
    from stonecli.detection.estimate import KeyEstimate

KeyTransition = Literal[
    "same key", "one up", "one down", "relative", "diagonal", "energy boost", "energy drop", "parallel", "clash"
]
KeySource = Literal["tag", "collection", "detected"]
Floats = npt.NDArray[np.float32]
AnyFloats = npt.NDArray[np.float32] | npt.NDArray[np.float64]

KEY_COSTS: dict[KeyTransition, float] = {
    "same key": 0.0,
    "one up": 1.0,  # a fifth up: 8A -> 9A
    "one down": 1.0,  # a fifth down: 8A -> 7A
    "relative": 1.0,  # the same notes: 8A -> 8B
    "diagonal": 2.0,  # one up or down and the other letter: 8A -> 9B, 7B
    "energy boost": 3.0,  # two up (a whole tone) or seven up (a semitone): 8A -> 10A, 3A
    "parallel": 3.0,  # the same tonic: 8A -> 11B
    "energy drop": 4.0,  # two down or seven down: 8A -> 6A, 1A
    "clash": 8.0,  # any other
}
_BY_RELATION: dict[KeyRelation, KeyTransition] = {
    "same": "same key",
    "fifth up": "one up",
    "fifth down": "one down",
    "relative": "relative",
    "parallel": "parallel",
}
COMPATIBLE_COST = 4.0  # maximum total cost between compatible tracks

FREE_CENTS = 10.0  # a larger difference in tuning causes audible beating (mixxx pull request 15817)
COST_PER_CENT = 0.1  # beyond FREE_CENTS; a semitone costs 9, more than a clash of keys

MIN_SEGMENT_CONFIDENCE = 0.5  # of a segment that counts: its key is more probable than all others together

COST_PER_PERCENT = 0.5  # of a difference in tempo: 6 %, about the pitch range used on a turntable, costs 3
MAX_TEMPO_COST = 6.0
HALF_TEMPO_COST = 1.0  # extra cost of half or double tempo: 87 into 174 BPM
MIN_PERCENT = 1e-3  # smaller changes of tempo are rounding errors
OVER_LIMIT_COST = 100.0  # of a change of tempo beyond the limit: more than any other transition costs


@dataclass(frozen=True)
class Track:
    """The properties of a track that the cost of a transition depends on.

    Attributes:
        path: path of the file.
        key: the key.
        key_from: ``tag`` if the key is from the tags, ``collection`` if it is from a rekordbox XML, ``detected`` if it
            is from the analysis.
        tuning_cents: deviation from A = 440 Hz; None if unknown.
        bpm: beats per minute; None if unknown.
        first_key, last_key: keys at the start and the end, from :func:`end_keys`; None if they are ``key``.
    """

    path: Path
    key: Key
    key_from: KeySource = "tag"
    tuning_cents: float | None = None
    bpm: float | None = None
    first_key: Key | None = None
    last_key: Key | None = None

    @property
    def key_in(self) -> Key:
        """The key in which the track is mixed in."""
        return self.first_key or self.key

    @property
    def key_out(self) -> Key:
        """The key in which the track is mixed out."""
        return self.last_key or self.key


@dataclass(frozen=True)
class CostRules:
    """How much each part of a transition counts.

    Attributes:
        key_weight: factor of the costs of key and tuning.
        tempo_weight: factor of the cost of the tempo.
        max_tempo_change: largest change of tempo in percent that a transition should have; more costs
            ``OVER_LIMIT_COST`` extra. None for any.

    Raises:
        ValueError: a weight is negative, or the largest change is not above zero.
    """

    key_weight: float = 1.0
    tempo_weight: float = 1.0
    max_tempo_change: float | None = None

    def __post_init__(self) -> None:
        if min(self.key_weight, self.tempo_weight) < 0:
            raise ValueError("key_weight and tempo_weight must not be negative")
        if self.max_tempo_change is not None and not self.max_tempo_change > 0:
            raise ValueError(f"max_tempo_change must be above 0, not {self.max_tempo_change}")


EQUAL_WEIGHTS = CostRules()


@dataclass(frozen=True)
class Transition:
    """A transition and its costs.

    Attributes:
        name: name of the key transition between the keys as they sound: if the tunings differ by nearly a semitone, a
            key may sound like its neighbor on the keyboard.
        key_cost, tuning_cost, tempo_cost: costs of the differences in key, tuning and tempo, with their weights.
        tempo_change: change of tempo in percent, positive if the second track is faster; half and double tempo count as
            the same where that costs less. None if a tempo is unknown.
        tempo_octave: 1 if the second track is mixed in at double tempo (87 into 174 BPM), -1 if at half tempo, else 0.
        tuning_change: difference in tuning in cents between the keys as they sound, positive if the second track is
            sharper; None if a tuning is unknown.
        is_over_limit: whether the tempo changes by more than ``CostRules.max_tempo_change``.
    """

    name: KeyTransition
    key_cost: float
    tuning_cost: float
    tempo_cost: float
    tempo_change: float | None = None
    tuning_change: float | None = None
    is_over_limit: bool = False
    tempo_octave: int = 0

    @property
    def cost(self) -> float:
        """Total cost."""
        return self.key_cost + self.tuning_cost + self.tempo_cost


def key_transition(first: Key, second: Key) -> KeyTransition:
    """The name of the transition from ``first`` to ``second`` on the Camelot wheel."""
    relation = second.relation_to(first)
    if relation != "other":
        return _BY_RELATION[relation]
    steps = (second.wheel - first.wheel) % 12
    if first.mode == second.mode:
        return "energy boost" if steps in (2, 7) else "energy drop" if steps in (10, 5) else "clash"
    return "diagonal" if steps in (1, 11) else "clash"


def end_keys(key: Key, estimate: KeyEstimate | None) -> tuple[Key, Key]:
    """The keys in which a track in ``key`` is mixed in and out.

    If the track changes key, these are the keys of its first and last segment, each only if the confidence of the
    segment is at least ``MIN_SEGMENT_CONFIDENCE``. Otherwise it is ``key``, as it is if the estimate is another key.
    """
    if estimate is None or estimate.key != key or len(estimate.segments) < 2:
        return key, key
    first, last = estimate.segments[0], estimate.segments[-1]
    return (
        first.key if first.confidence >= MIN_SEGMENT_CONFIDENCE else key,
        last.key if last.confidence >= MIN_SEGMENT_CONFIDENCE else key,
    )


def transition(first: Track, second: Track, rules: CostRules = EQUAL_WEIGHTS) -> Transition:
    """The transition from the end of ``first`` to the start of ``second``, with its costs."""
    shift, tuning_cost, tuning_change = _best_shift(first, second)
    name = key_transition(first.key_out, second.key_in.transposed(shift))
    octaves = _tempo_octaves(np.array([first.bpm or np.nan]), np.array([second.bpm or np.nan]))
    costs, is_over_limit = _tempo_costs(octaves, rules)
    return Transition(
        name,
        rules.key_weight * KEY_COSTS[name],
        rules.key_weight * tuning_cost,
        float(costs[0]),
        None if np.isnan(octaves[0][0]) else 100.0 * float(np.exp2(octaves[0][0]) - 1.0),
        tuning_change,
        bool(is_over_limit[0]),
        0 if not octaves[1][0] else 1 if (second.bpm or 0) > (first.bpm or 0) else -1,
    )


def cost_matrix(tracks: Sequence[Track], rules: CostRules = EQUAL_WEIGHTS) -> Floats:
    """The cost of the transition from each track (row) to each other (column), float32 [tracks, tracks]."""
    outgoing = np.array([track.key_out.index for track in tracks], dtype=np.int64)
    incoming = np.array([track.key_in.index for track in tracks], dtype=np.int64)
    cents = np.array([np.nan if track.tuning_cents is None else track.tuning_cents for track in tracks], dtype="f4")
    bpm = np.array([track.bpm or np.nan for track in tracks], dtype="f4")
    between = cents[None, :] - cents[:, None]
    between[np.isnan(between)] = 0.0
    costs = np.full(between.shape, np.inf, dtype=np.float32)
    for shift in (-1, 0, 1):
        keys = np.array([[KEY_COSTS[key_transition(a, b.transposed(shift))] for b in Key.all()] for a in Key.all()])
        shifted = keys.astype(np.float32)[outgoing[:, None], incoming[None, :]]
        np.minimum(costs, shifted + _tuning_costs(between - 100.0 * shift), out=costs)
    tempo_costs, _ = _tempo_costs(_tempo_octaves(bpm[:, None], bpm[None, :]), rules)
    return np.float32(rules.key_weight) * costs + tempo_costs.astype(np.float32)


def _best_shift(first: Track, second: Track) -> tuple[int, float, float | None]:
    """The shift of the second key in semitones that gives the lowest cost, and the tuning after it: cost and cents.

    C# at -48 cents sounds like C at +52 cents, so it is the same key as C at +48 cents, 4 cents sharp.
    """
    known = first.tuning_cents is not None and second.tuning_cents is not None
    cents = second.tuning_cents - first.tuning_cents if known else 0.0  # type: ignore[operator]
    tuning = {shift: float(_tuning_costs(np.array(cents - 100.0 * shift))) for shift in (0, -1, 1)}

    def cost(shift: int) -> float:
        return tuning[shift] + KEY_COSTS[key_transition(first.key_out, second.key_in.transposed(shift))]

    shift = min(tuning, key=cost)
    return shift, tuning[shift], cents - 100.0 * shift if known else None


def _tuning_costs(cents: AnyFloats) -> AnyFloats:
    return np.maximum(np.abs(cents) - FREE_CENTS, 0.0) * COST_PER_CENT


def _tempo_octaves(first: AnyFloats, second: AnyFloats) -> tuple[AnyFloats, npt.NDArray[np.bool_]]:
    """The changes of tempo in octaves, with half or double tempo as the same where it costs less; and where it does.

    The change is not a number if a tempo is unknown.
    """
    octaves = np.log2(second / first)
    folded = octaves - np.sign(octaves)
    is_folded = _ratio_costs(folded) + HALF_TEMPO_COST < _ratio_costs(octaves)
    return np.where(is_folded, folded, octaves), is_folded


def _tempo_costs(
    octaves: tuple[AnyFloats, npt.NDArray[np.bool_]], rules: CostRules
) -> tuple[AnyFloats, npt.NDArray[np.bool_]]:
    """Costs of the changes of :func:`_tempo_octaves`, 0 for an unknown tempo; and which are beyond the limit."""
    change, is_folded = octaves
    costs = rules.tempo_weight * (_ratio_costs(change) + np.where(is_folded, HALF_TEMPO_COST, 0.0))
    limit = np.inf if rules.max_tempo_change is None else rules.max_tempo_change + MIN_PERCENT
    is_over_limit = _percent(change) > limit
    return np.nan_to_num(costs, nan=0.0) + np.where(is_over_limit, OVER_LIMIT_COST, 0.0), is_over_limit


def _ratio_costs(octaves: AnyFloats) -> AnyFloats:
    return np.minimum(_percent(octaves) * COST_PER_PERCENT, MAX_TEMPO_COST)


def _percent(octaves: AnyFloats) -> AnyFloats:
    """The size of a change of tempo in percent, the same in both directions."""
    return 100.0 * np.abs(np.exp2(np.abs(octaves)) - 1.0)
