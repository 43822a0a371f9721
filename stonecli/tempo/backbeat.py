"""Which octave of a tempo is the beat: the alternation of kick and snare.

In most popular music, the kick is on the first and third beat of a bar, and the snare on the second and fourth: from
beat to beat, the lowest band and the high bands alternate in opposite directions. At twice the tempo, where every
second beat is an off-beat, all bands are louder on the same beats.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from stonecli.tempo.novelty import GROUPS

CHUNK_SECONDS = 12.0
OCTAVES = (0.5, 1.0, 2.0)  # factors of the tempo that are compared
_STEPS = 8  # steps per beat that the onsets are counted in
_HIGH = slice(2, len(GROUPS))  # groups of bands with the snare; the kick is in the first

Floats = npt.NDArray[np.float32]


def backbeat(novelty: Floats, frame_rate: float, bpm: float) -> npt.NDArray[np.float64]:
    """How clearly kick and snare alternate at half the tempo, at the tempo and at twice the tempo.

    Args:
        novelty: float32 [frames, bands], at least one frame.
        frame_rate: frames per second.
        bpm: the tempo.

    Returns:
        float64 [len(OCTAVES)], each from -1 to 1: 1 if the kick is on every other beat and the snare on those between,
        -1 if both are on the same beats, 0 if all beats are alike.
    """
    size = min(len(novelty), round(CHUNK_SECONDS * frame_rate))
    count = 1 + round((len(novelty) - size) / (size / 2))
    starts = np.linspace(0, len(novelty) - size, count).astype(int)
    chunks = [novelty[start : start + size] for start in starts]
    step = bpm / 60.0 / frame_rate * _STEPS  # per frame
    return np.array([_alternation(chunks, step, round(_STEPS / octave)) for octave in OCTAVES])


def _alternation(chunks: Sequence[Floats], step: float, steps: int) -> float:
    """The mean of all chunks, float32 [frames, bands], at ``steps`` per beat, of which each frame takes ``step``."""
    index = (np.arange(len(chunks[0])) * step).astype(int) % (2 * steps)
    folding = (index == np.arange(2 * steps)[:, None]).astype(np.float32)
    folding /= np.maximum(folding.sum(axis=1, keepdims=True), 1.0)
    pairs = np.stack([folding @ chunk for chunk in chunks])  # of two beats: [chunks, 2 * steps, bands]
    smooth = 0.25 * (np.roll(pairs, 1, axis=1) + 2.0 * pairs + np.roll(pairs, -1, axis=1))
    onsets = (smooth / (smooth.mean(axis=1, keepdims=True) + 1e-6)).sum(axis=2)
    beat = (onsets[:, :steps] + onsets[:, steps:]).argmax(axis=1)  # the phase: where most onsets are
    rows = np.arange(len(pairs))
    one, other = smooth[rows, beat], smooth[rows, beat + steps]
    contrast = (one - other) / (one + other + 1e-6)
    return float(-(contrast[:, 0] * contrast[:, _HIGH].mean(axis=1)).mean())
