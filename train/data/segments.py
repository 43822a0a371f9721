"""Chooses segments of a track, and crops them.

The rule for two segments of one track: both have ``segment_frames`` frames and do not overlap; the remaining frames are
distributed at random before, between and after them, and their order is random. A track shorter than two segments gives
two with minimal overlap: its first frames and its last. A track shorter than one segment is repeated.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Segment = npt.NDArray[np.uint8]


def two_starts(length: int, frames: int, rng: np.random.Generator) -> tuple[int, int]:
    """Starts of two segments of ``frames`` in a track of ``length``, by the rule above."""
    spare = length - 2 * frames
    if spare < 0:
        early, late = 0, max(0, length - frames)
    else:
        early, late = sorted(rng.integers(spare + 1, size=2).tolist())
        late += frames
    return (early, late) if rng.random() < 0.5 else (late, early)


def draw_shifts(spare: int, rng: np.random.Generator) -> tuple[int, int]:
    """Bins to crop for the plain and the transposed view, each 0..spare; their difference is -11..11 and not 0."""
    difference = int(rng.integers(1, min(11, spare) + 1)) * (1 if rng.random() < 0.5 else -1)
    low = int(rng.integers(spare - abs(difference) + 1))
    return (low, low + difference) if difference > 0 else (low - difference, low)


def cut(features: Segment, start: int, frames: int) -> Segment:
    """A copy of ``frames`` frames from ``start``; a track that is shorter is repeated."""
    segment = np.array(features[start : start + frames])  # a view would keep the feature file open
    return segment if len(segment) == frames else np.resize(segment, (frames, features.shape[1]))
