"""Draws the positions of segments and crops in a track.

Two segments of one track do not overlap; the remaining frames are distributed at random before, between and after them,
and their order is random. In a track shorter than two segments, the overlap is minimal: the segments are its first and
its last frames. A track shorter than one segment is repeated.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Segment = npt.NDArray[np.uint8]


def two_starts(length: int, frames: int, rng: np.random.Generator) -> tuple[int, int]:
    """Start frames of two segments of ``frames`` frames in a track of ``length`` frames, as described above."""
    spare = length - 2 * frames
    if spare < 0:
        early, late = 0, max(0, length - frames)
    else:
        early, late = sorted(rng.integers(spare + 1, size=2).tolist())
        late += frames
    return (early, late) if rng.random() < 0.5 else (late, early)


def draw_shifts(spare: int, rng: np.random.Generator) -> tuple[int, int]:
    """Bins to crop from below for the plain and the transposed view, each 0..spare; they differ by 1 to 11."""
    difference = int(rng.integers(1, min(11, spare) + 1)) * (1 if rng.random() < 0.5 else -1)
    low = int(rng.integers(spare - abs(difference) + 1))
    return (low, low + difference) if difference > 0 else (low - difference, low)


def cut(features: Segment, start: int, frames: int) -> Segment:
    """A copy of ``frames`` frames from ``start``, [frames, bins]; a track that ends earlier is repeated."""
    segment = np.array(features[start : start + frames])  # a view would keep the feature file open
    return segment if len(segment) == frames else np.resize(segment, (frames, features.shape[1]))
