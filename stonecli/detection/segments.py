"""Windows -> segments: runs of windows in one key, so that a song in one key is one segment.

Read window by window, keys flicker to their neighbours: a song in C has bars in G and in A minor, and a model may be as
sure of them as they are clear. The most likely path through a hidden Markov model does not. Its states are the 24 keys
that the music is in; in each, a window is heard in a key of its own, and ``HEARD_AS`` says how often in which. So a
window in a neighbouring key says little against a key, one in a far key says much, and windows in several neighbours
of C are together a song in C. The emission of a window is the mean of the model's probabilities by ``HEARD_AS``,
counted once for each 15 s that pass however long the windows are and however they overlap.

A change costs ``CHANGE_COST``, more than the rarity of changes asks for: neighbouring windows hear the same chords, so
that their errors are not independent. A change for good needs two decided windows to a far key, three to a neighbour;
an excursion that returns needs three and five. What is left of segments below the least length goes to the neighbour
that it resembles more.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache, partial
from typing import Literal

import numpy as np
import numpy.typing as npt

from stonecli.key import Key

Relation = Literal["same", "fifth", "relative", "parallel", "diagonal", "far"]

HEARD_AS: dict[Relation, float] = {"same": 0.75, "fifth": 0.04, "relative": 0.05, "parallel": 0.04, "diagonal": 0.015}
"""Probability that a window of music in a key is heard in each key of that relation; the far keys share the rest.

About what models say of the windows of recordings whose key they get right.
"""

CHANGE_COST = 6.0  # nats: one window, however sure, changes nothing, not even the last
EVIDENCE_SECONDS = 15.0  # for which an emission counts once
LEAST_SEGMENT_SECONDS = 30.0
BORDER_TOLERANCE = 1e-6  # seconds: rounding
SHARE_STEPS = 30  # then it moves by less than a hundredth

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Segment:
    """A stretch of a recording in one key.

    Attributes:
        start, end: in seconds.
        key: its key.
        confidence: probability of the key over the segment, 0..1; of ``find_segments`` the mean over its windows.
    """

    start: float
    end: float
    key: Key
    confidence: float


def find_segments(
    starts: Floats, ends: Floats, probabilities: npt.NDArray[np.float32], least_seconds: float = LEAST_SEGMENT_SECONDS
) -> tuple[Segment, ...]:
    """The segments of a recording, in order, without gaps between them.

    Args:
        starts, ends: float64 [windows], seconds, ascending.
        probabilities: float32 [windows, 24] by ``Key.index``; a uniform row says nothing.
        least_seconds: length of the shortest segment, unless it is all there is.
    """
    if not len(probabilities):
        return ()
    advance = np.append(np.diff(starts), ends[-1] - starts[-1])
    heard = probabilities.astype(np.float64)
    evidence = np.log(heard @ _heard_as().T)
    evidence *= (advance / EVIDENCE_SECONDS)[:, None]
    path = _most_likely_path(evidence)
    border = cache(partial(_border, starts, ends, heard))  # most stay when a segment goes
    while True:
        changes = [0, *(np.flatnonzero(np.diff(path)) + 1).tolist(), len(path)]
        inner = [border(change, int(path[change - 1]), int(path[change])) for change in changes[1:-1]]
        borders = [float(starts[0]), *inner, float(ends[-1])]
        lengths = np.diff(borders)
        shortest = int(lengths.argmin())
        if len(lengths) == 1 or lengths[shortest] >= least_seconds - BORDER_TOLERANCE:
            break
        windows = slice(changes[shortest], changes[shortest + 1])
        beside = [path[changes[number]] for number in (shortest - 1, shortest + 1) if 0 <= number < len(lengths)]
        path[windows] = max(beside, key=lambda key: evidence[windows, key].sum())
    return tuple(
        Segment(
            start=borders[number],
            end=borders[number + 1],
            key=Key.from_index(int(path[first])),
            confidence=float(probabilities[first:last, path[first]].mean()),
        )
        for number, (first, last) in enumerate(itertools.pairwise(changes))
    )


def relation(one: Key, other: Key) -> Relation:
    """How ``other`` is related to ``one``."""
    if other == one:
        return "same"
    if other == one.relative:
        return "relative"
    if other in one.neighbours():
        return "fifth"
    if other == one.parallel:
        return "parallel"
    is_diagonal = other.mode != one.mode and (other.wheel - one.wheel) % 12 in (1, 11)
    return "diagonal" if is_diagonal else "far"


@cache
def _heard_as() -> Floats:
    """float64 [24, 24]: how probable it is that music in a key (row) is heard in each key (column)."""
    in_c = (Key(0, "major"), Key(0, "minor"))  # of the other tonics the same, so many semitones higher
    of_c = [
        [HEARD_AS.get(relation(one, other.transposed(by)), 0.0) for other in in_c for by in range(12)] for one in in_c
    ]
    from_c = np.array(of_c).reshape(2, 2, 12)
    rows = np.concatenate([[np.roll(row, tonic, axis=1).ravel() for tonic in range(12)] for row in from_c])
    rest = 1.0 - rows.sum(axis=1, keepdims=True)
    far = rows == 0
    return np.where(far, rest / far.sum(axis=1, keepdims=True), rows)


def _border(starts: Floats, ends: Floats, heard: Floats, change: int, old: int, new: int) -> float:
    """Where the key changes from ``old`` to ``new``, in seconds, between the windows ``change - 1`` and ``change``.

    Where windows overlap, two segments meet in the middle of the overlap. Else one of the two windows may hold the
    change, and then it hears some of either key: each is shared between the keys as they explain it best.
    """
    if starts[change] < ends[change - 1] - BORDER_TOLERANCE:
        return float(starts[change] + ends[change - 1]) / 2
    heard_as = _heard_as()
    border = float(starts[change - 1])
    for window in (change - 1, change):
        border += _share(heard[window], heard_as[old], heard_as[new]) * float(ends[window] - starts[window])
    return min(max(border, float(starts[change - 1])), float(ends[change]))


def _share(heard: Floats, old: Floats, new: Floats) -> float:
    """The part of a window, 0..1, that is most likely in the old key, where it is heard in these keys.

    Expectation and maximization for the weight of one of two known distributions, float64 [24] as ``heard``.
    """
    share = 0.5
    for _ in range(SHARE_STEPS):
        share = float((heard * (share * old / (share * old + (1.0 - share) * new))).sum() / heard.sum())
    return share


def _most_likely_path(emissions: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Viterbi path through log emissions [windows, states], with one cost for every change of state."""
    windows, states = emissions.shape
    came_from = np.zeros((windows, states), dtype=np.int64)
    score = emissions[0]
    for window in range(1, windows):
        best = int(score.argmax())
        stays = score >= score[best] - CHANGE_COST
        came_from[window] = np.where(stays, np.arange(states), best)
        score = np.where(stays, score, score[best] - CHANGE_COST) + emissions[window]
    path = np.empty(windows, dtype=np.int64)
    path[-1] = score.argmax()
    for window in range(windows - 1, 0, -1):
        path[window - 1] = came_from[window, path[window]]
    return path
