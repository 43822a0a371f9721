"""Segment a recording into runs of windows in one key, so that a song in one key is one segment.

Window by window, the estimate jumps between neighboring keys: a song in C has bars in G and in A minor, and the model
may be confident of them. The most likely path through a hidden Markov model is stable. Its states are the 24 keys of
the music. ``CONFUSION`` is the probability that a window of music in one key is estimated as another key. So a window
in a neighboring key is weak evidence against a key, and one in a distant key is strong evidence. Windows in several
neighbors of C together are evidence for C. The emission of a window is the mean of the model's probabilities weighted
by ``CONFUSION``. It counts once per 15 s, whatever the length and the overlap of the windows.

A change of key costs ``CHANGE_COST``, which is more than its rarity requires, because adjacent windows share chords and
so their errors are correlated. A lasting change needs two confident windows in a distant key or three in a neighboring
one; a temporary change needs three and five. A segment below the minimum length is merged into the adjacent segment
whose key fits it better.
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

CONFUSION: dict[Relation, float] = {"same": 0.75, "fifth": 0.04, "relative": 0.05, "parallel": 0.04, "diagonal": 0.015}
"""Probability that a window of music in a key is estimated as each key of that relation; far keys share the rest.

This is about what models output for the windows of recordings whose key they estimate correctly.
"""

CHANGE_COST = 6.0  # nats: a single window never changes the key, however confident it is, not even the last one
EVIDENCE_SECONDS = 15.0  # an emission counts once per this duration
MIN_SEGMENT_SECONDS = 30.0
BORDER_TOLERANCE = 1e-6  # seconds: rounding
SHARE_STEPS = 30  # after these, the share changes by less than 0.01 per step

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Segment:
    """A part of a recording in one key.

    Attributes:
        start, end: in seconds.
        key: the key of the segment.
        confidence: probability of the key over the segment, 0..1; from ``find_segments`` the mean over its windows.
    """

    start: float
    end: float
    key: Key
    confidence: float


def find_segments(
    starts: Floats, ends: Floats, probabilities: npt.NDArray[np.float32], min_seconds: float = MIN_SEGMENT_SECONDS
) -> tuple[Segment, ...]:
    """The segments of a recording, in order, without gaps between them.

    Args:
        starts, ends: float64 [windows], seconds, ascending.
        probabilities: float32 [windows, 24] by ``Key.index``; a uniform row is no evidence.
        min_seconds: minimum duration of a segment; a shorter recording is one segment.
    """
    if not len(probabilities):
        return ()
    advance = np.append(np.diff(starts), ends[-1] - starts[-1])
    posteriors = probabilities.astype(np.float64)
    evidence = np.log(posteriors @ _confusion_matrix().T)
    evidence *= (advance / EVIDENCE_SECONDS)[:, None]
    path = _most_likely_path(evidence)
    border = cache(partial(_border, starts, ends, posteriors))  # cached: merging a segment changes few borders
    while True:
        changes = [0, *(np.flatnonzero(np.diff(path)) + 1).tolist(), len(path)]
        inner = [border(change, int(path[change - 1]), int(path[change])) for change in changes[1:-1]]
        borders = [float(starts[0]), *inner, float(ends[-1])]
        lengths = np.diff(borders)
        shortest = int(lengths.argmin())
        if len(lengths) == 1 or lengths[shortest] >= min_seconds - BORDER_TOLERANCE:
            break
        windows = slice(changes[shortest], changes[shortest + 1])
        adjacent = [path[changes[number]] for number in (shortest - 1, shortest + 1) if 0 <= number < len(lengths)]
        path[windows] = max(adjacent, key=lambda key: evidence[windows, key].sum())
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
    if other in one.neighbors():
        return "fifth"
    if other == one.parallel:
        return "parallel"
    is_diagonal = other.mode != one.mode and (other.wheel - one.wheel) % 12 in (1, 11)
    return "diagonal" if is_diagonal else "far"


@cache
def _confusion_matrix() -> Floats:
    """Probability that a window of music in a key (row) is estimated as each key (column), float64 [24, 24]."""
    in_c = (Key(0, "major"), Key(0, "minor"))  # the rows of other tonics are these, transposed
    of_c = [
        [CONFUSION.get(relation(one, other.transposed(by)), 0.0) for other in in_c for by in range(12)] for one in in_c
    ]
    from_c = np.array(of_c).reshape(2, 2, 12)
    rows = np.concatenate([[np.roll(row, tonic, axis=1).ravel() for tonic in range(12)] for row in from_c])
    rest = 1.0 - rows.sum(axis=1, keepdims=True)
    far = rows == 0
    return np.where(far, rest / far.sum(axis=1, keepdims=True), rows)


def _border(starts: Floats, ends: Floats, posteriors: Floats, change: int, old: int, new: int) -> float:
    """The time in seconds when the key changes from ``old`` to ``new``, between windows ``change - 1`` and ``change``.

    If the windows overlap, the border is in the middle of the overlap. Otherwise the key may change within one of the
    two windows, whose posterior is then a mixture of both keys. Each window is divided by the most likely mixture.
    """
    if starts[change] < ends[change - 1] - BORDER_TOLERANCE:
        return float(starts[change] + ends[change - 1]) / 2
    confusion = _confusion_matrix()
    border = float(starts[change - 1])
    for window in (change - 1, change):
        border += _share(posteriors[window], confusion[old], confusion[new]) * float(ends[window] - starts[window])
    return min(max(border, float(starts[change - 1])), float(ends[change]))


def _share(posterior: Floats, old: Floats, new: Floats) -> float:
    """The most likely share of a window, 0..1, that is in the old key, given its posterior, float64 [24].

    Expectation maximization of the weight of the first of two known distributions, ``old`` and ``new``.
    """
    share = 0.5
    for _ in range(SHARE_STEPS):
        share = float((posterior * (share * old / (share * old + (1.0 - share) * new))).sum() / posterior.sum())
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
