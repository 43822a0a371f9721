"""Windows' mean probabilities -> those of the recording: how sure many windows are together.

A window may be sure and wrong. The mean over many is less sure than most of them, for some always hear a neighbour, and
yet it is right more often than one window that is as sure: so it is raised to a power that grows with their number.
``train.calibrate`` finds the power for a model; without one, the mean stands as it is.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from stonecli.model_info import ModelInfo

Floats = npt.NDArray[np.float32]


def recording_probabilities(mean: Floats, seconds: float, info: ModelInfo) -> Floats:
    """Probabilities of the 24 keys, float32 [24]: calibrated, and in the order of ``mean``.

    Args:
        mean: float32 [24] over the windows; sums to 1.
        seconds: of music in those windows, counted once where they overlap.
        info: of the model that was asked.
    """
    windows = max(1.0, seconds / info.window_seconds)
    return sharpened(mean, info.sharpness + info.sharpness_per_doubling * math.log2(windows))


def sharpened(probabilities: Floats, power: float | npt.NDArray[np.float64]) -> Floats:
    """The probabilities, float32 [..., classes], to that power (or powers [..., 1]), scaled to sum to 1."""
    if np.ndim(power) == 0 and power == 1.0:
        return probabilities
    most = probabilities.max(axis=-1, keepdims=True)  # beside which nothing that matters becomes too small to be held
    raised = np.power(np.maximum(probabilities, 0.0) / most, power, dtype=np.float64)
    result: Floats = (raised / raised.sum(axis=-1, keepdims=True)).astype(np.float32)
    return result
