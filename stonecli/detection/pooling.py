"""What the windows say -> the probabilities of the recording: how sure many windows are together.

Windows are joined by the mean of their logarithms, weighted by their lengths: as a network of this kind would hear them
all at once, for its scores are means over time. A mean is less sure than most windows, for some always hear a
neighbour, and yet it is right more often than one window that is as sure: so it is raised to a power that grows with
their number. ``stonecli_train.calibrate`` finds the power for a model; without one, the mean stands as it is.

What is likelier before anything was heard (major, in most libraries) counts once for a recording and not in each
window, as in Saerens et al., *Adjusting the Outputs of a Classifier to New a Priori Probabilities*, Neural Computation
2002: a network that was trained on as much minor as major does not know of it.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import numpy.typing as npt

LEAST_PROBABILITY = 1e-6  # that one window can give a key: it does not rule out what all others hear

Floats = npt.NDArray[np.float32]


class Calibrated(Protocol):
    """What says how sure windows are together: a ``ModelInfo``, or the checkpoint that the model came from."""

    @property
    def window_seconds(self) -> float:
        """Length of a window."""

    @property
    def sharpness(self) -> float:
        """Power of one window's probabilities."""

    @property
    def sharpness_per_doubling(self) -> float:
        """What is added to it with every doubling of the windows."""

    @property
    def major_odds(self) -> float:
        """Of major against minor before anything was heard, where in training they were as likely."""


def together(windows: Floats, seconds: npt.NDArray[np.float64]) -> Floats:
    """Probabilities float32 [classes] of windows [windows, classes] that are so many ``seconds`` long; sums to 1."""
    logarithms = np.log(np.maximum(windows, LEAST_PROBABILITY, dtype=np.float64))
    mean = np.exp(np.average(logarithms, axis=0, weights=seconds))
    result: Floats = (mean / mean.sum()).astype(np.float32)
    return result


def recording_probabilities(mean: Floats, seconds: float, info: Calibrated) -> Floats:
    """Calibrated probabilities, float32 [classes], in the order of ``mean``.

    Args:
        mean: float32 [classes], of :func:`together`; of 24 classes, the major ones come first.
        seconds: of music in those windows, counted once where they overlap.
        info: the model that was asked, by what it says of itself.
    """
    windows = max(1.0, seconds / info.window_seconds)
    if info.major_odds != 1.0:
        leaning = mean.copy()
        leaning[: len(mean) // 2] *= info.major_odds
        mean = leaning / leaning.sum()
    return sharpened(mean, info.sharpness + info.sharpness_per_doubling * math.log2(windows))


def sharpened(probabilities: Floats, power: float | npt.NDArray[np.float64]) -> Floats:
    """The probabilities, float32 [..., classes], to that power (or powers [..., 1]), scaled to sum to 1."""
    if np.ndim(power) == 0 and power == 1.0:
        return probabilities
    most = probabilities.max(axis=-1, keepdims=True)  # beside which nothing that matters becomes too small to be held
    raised = np.power(np.maximum(probabilities, 0.0) / most, power, dtype=np.float64)
    result: Floats = (raised / raised.sum(axis=-1, keepdims=True)).astype(np.float32)
    return result
