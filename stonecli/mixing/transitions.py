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


@dataclass(frozen=True)
class Track:
    """The properties of a track that the cost of a transition depends on.

    Attributes:
        path: path of the file.
        key: the key.
        key_from: ``tag`` if the key is from the tags, ``detected`` if it is from the analysis.
        tuning_cents: deviation from A = 440 Hz; None if unknown.
        bpm: beats per minute; None if unknown.
        first_key, last_key: keys at the start and the end, from :func:`end_keys`; None if they are ``key``.
    """

    path: Path
    key: Key
    key_from: Literal["tag", "detected"] = "tag"
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
class Transition:
    """A transition and its costs.

    Attributes:
        name: name of the key transition between the keys as they sound: if the tunings differ by nearly a semitone, a
            key may sound like its neighbor on the keyboard.
        key_cost, tuning_cost, tempo_cost: costs of the differences in key, tuning and tempo.
    """

    name: KeyTransition
    key_cost: float
    tuning_cost: float
    tempo_cost: float

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


def transition(first: Track, second: Track) -> Transition:
    """The transition from the end of ``first`` to the start of ``second``, with its costs."""
    shift, tuning_cost = _best_shift(first, second)
    name = key_transition(first.key_out, second.key_in.transposed(shift))
    (tempo_cost,) = _tempo_costs(np.array([first.bpm or np.nan]), np.array([second.bpm or np.nan]))
    return Transition(name, KEY_COSTS[name], tuning_cost, float(tempo_cost))


def cost_matrix(tracks: Sequence[Track]) -> Floats:
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
    return costs + _tempo_costs(bpm[:, None], bpm[None, :]).astype(np.float32)


def _best_shift(first: Track, second: Track) -> tuple[int, float]:
    """The shift of the second key in semitones that gives the lowest cost, and the cost of the tuning after it.

    C# at -48 cents sounds like C at +52 cents, so it is the same key as C at +48 cents, 4 cents sharp.
    """
    known = first.tuning_cents is not None and second.tuning_cents is not None
    cents = second.tuning_cents - first.tuning_cents if known else 0.0  # type: ignore[operator]
    tuning = {shift: float(_tuning_costs(np.array(cents - 100.0 * shift))) for shift in (0, -1, 1)}

    def cost(shift: int) -> float:
        return tuning[shift] + KEY_COSTS[key_transition(first.key_out, second.key_in.transposed(shift))]

    shift = min(tuning, key=cost)
    return shift, tuning[shift]


def _tuning_costs(cents: AnyFloats) -> AnyFloats:
    return np.maximum(np.abs(cents) - FREE_CENTS, 0.0) * COST_PER_CENT


def _tempo_costs(first: AnyFloats, second: AnyFloats) -> AnyFloats:
    """Costs of the change of tempo in BPM; 0 if a tempo is unknown (not a number)."""
    octaves = np.log2(second / first)
    same = _ratio_costs(octaves)
    half_or_double = _ratio_costs(np.abs(octaves) - 1.0) + HALF_TEMPO_COST
    return np.nan_to_num(np.minimum(same, half_or_double), nan=0.0)


def _ratio_costs(octaves: AnyFloats) -> AnyFloats:
    percent = 100.0 * np.abs(np.exp2(np.abs(octaves)) - 1.0)
    return np.minimum(percent * COST_PER_PERCENT, MAX_TEMPO_COST)
