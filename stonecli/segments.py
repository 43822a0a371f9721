"""Windows -> segments: runs of windows in one key, so that a song in one key is one segment.

Read window by window, keys flicker to their neighbours. The most likely path through a hidden Markov model does not:
its states are the 24 keys, an emission is the model's probability for the key, and a change of key costs
``CHANGE_COST`` wherever it goes. A change for good thus needs about two decided windows (30 s), an excursion that
returns about four.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stonecli.key import Key

CHANGE_COST = 6.0  # nats
LEAST_PROBABILITY = 3e-3  # above exp(-CHANGE_COST): one window, however sure, changes nothing, not even the last


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
    starts: npt.NDArray[np.float64], ends: npt.NDArray[np.float64], probabilities: npt.NDArray[np.float32]
) -> tuple[Segment, ...]:
    """The segments of a recording, in order, without gaps between them.

    Args:
        starts, ends: float64 [windows], seconds, ascending.
        probabilities: float32 [windows, 24] by ``Key.index``; a uniform row says nothing.
    """
    if not len(probabilities):
        return ()
    path = _most_likely_path(np.log(np.maximum(probabilities.astype(np.float64), LEAST_PROBABILITY)))
    changes = [0, *(np.flatnonzero(np.diff(path)) + 1).tolist(), len(path)]
    # Where windows overlap, two segments meet in the middle of the overlap.
    borders = [
        float(starts[0]),
        *((float(starts[change]) + float(ends[change - 1])) / 2 for change in changes[1:-1]),
        float(ends[-1]),
    ]
    return tuple(
        Segment(
            start=borders[number],
            end=borders[number + 1],
            key=Key.from_index(int(path[first])),
            confidence=float(probabilities[first:last, path[first]].mean()),
        )
        for number, (first, last) in enumerate(itertools.pairwise(changes))
    )


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
