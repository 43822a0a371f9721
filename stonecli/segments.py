"""Windows -> segments: runs of windows in one key, so that a song in one key is one segment.

Read window by window, keys flicker to their neighbours. The most likely path through a hidden Markov model does not:
its states are the 24 keys, an emission is the model's probability for the key, counted once for each 15 s that pass
however long the windows are and however they overlap, and a change of key costs ``CHANGE_COST`` wherever it goes.
That is more than the rarity of changes alone would ask: neighbouring windows hear the same chords, so that their
errors are not independent. A change for good needs two or three decided windows, an excursion that returns about five.
What is left of segments below the least length goes to the neighbour that it resembles more.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stonecli.key import Key

CHANGE_COST = 13.0  # nats: the least with no more than one false change in seven recordings, overlapping or not
EVIDENCE_SECONDS = 15.0  # for which an emission counts once
LEAST_SEGMENT_SECONDS = 30.0
LEAST_PROBABILITY = 1e-4  # above exp(-CHANGE_COST): one window, however sure, changes nothing, not even the last


BORDER_TOLERANCE = 1e-6  # seconds: rounding

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Segment:
    """A stretch of a recording in one key.

    Attributes:
        start, end: in seconds.
        key: its key.
        confidence: mean probability of the key over the segment, 0..1.
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
    evidence = np.log(np.maximum(probabilities.astype(np.float64), LEAST_PROBABILITY))
    evidence *= (advance / EVIDENCE_SECONDS)[:, None]
    path = _most_likely_path(evidence)
    while True:
        changes = [0, *(np.flatnonzero(np.diff(path)) + 1).tolist(), len(path)]
        inner = [_border(starts, ends, probabilities, path, change) for change in changes[1:-1]]
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


def _border(
    starts: Floats, ends: Floats, probabilities: npt.NDArray[np.float32], path: npt.NDArray[np.int64], change: int
) -> float:
    """Where the key changes, in seconds, between the windows ``change - 1`` and ``change``.

    Where windows overlap, two segments meet in the middle of the overlap. Else one of the two windows may hold the
    change, and then it hears some of either key: each is shared between the keys as it hears them.
    """
    if starts[change] < ends[change - 1] - BORDER_TOLERANCE:
        return float(starts[change] + ends[change - 1]) / 2
    old, new = path[change - 1], path[change]
    border = float(starts[change - 1])
    for window in (change - 1, change):
        both = float(probabilities[window, old] + probabilities[window, new])
        share = float(probabilities[window, old]) / both if both > 0 else 0.5
        border += share * float(ends[window] - starts[window])
    return min(max(border, float(starts[change - 1])), float(ends[change]))


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
