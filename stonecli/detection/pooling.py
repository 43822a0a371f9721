"""Pool the posteriors of windows into the calibrated posterior of a recording.

The pooled posterior is the weighted geometric mean of the windows' posteriors (logarithmic opinion pool), weighted by
their durations. The network's own scores are means over time, so this is close to one very long window. The mean is
less confident than most windows, because some windows always favor a neighboring key. Yet it is right more often than
one window of the same confidence. So it is raised to an exponent (inverse temperature) that grows with the number of
windows. ``stonecli_train.calibrate`` fits the exponent of a model; without it, the exponent is 1.

The prior odds of major (most libraries have more major than minor) count once per recording and not once per window,
as in Saerens et al., *Adjusting the Outputs of a Classifier to New a Priori Probabilities*, Neural Computation 2002.
A network that was trained on equal shares of both modes does not contain this prior.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import numpy.typing as npt

MIN_PROBABILITY = 1e-6  # of a key in a window: one window cannot rule out the key of all others

Floats = npt.NDArray[np.float32]


class Calibrated(Protocol):
    """The calibration of a model: a ``ModelInfo``, or the checkpoint that the model was exported from."""

    @property
    def window_seconds(self) -> float:
        """Duration of a window in seconds."""

    @property
    def posterior_exponent(self) -> float:
        """Exponent of the posterior of one window."""

    @property
    def exponent_per_doubling(self) -> float:
        """Added to the exponent for each doubling of the number of windows."""

    @property
    def major_prior_odds(self) -> float:
        """Prior odds of major; 1 if major and minor are equally likely, as in training."""


def pooled_posterior(windows: Floats, seconds: npt.NDArray[np.float64]) -> Floats:
    """The pooled posterior, float32 [classes], of windows [windows, classes] with these durations; sums to 1."""
    logarithms = np.log(np.maximum(windows, MIN_PROBABILITY, dtype=np.float64))
    mean = np.exp(np.average(logarithms, axis=0, weights=seconds))
    result: Floats = (mean / mean.sum()).astype(np.float32)
    return result


def recording_probabilities(mean: Floats, seconds: float, info: Calibrated) -> Floats:
    """Calibrated probabilities, float32 [classes], in the order of ``mean``.

    Args:
        mean: float32 [classes], from :func:`pooled_posterior`; of 24 classes, the major keys come first.
        seconds: duration of the windows in seconds; overlaps count once.
        info: calibration of the model that analyzed the windows.
    """
    windows = max(1.0, seconds / info.window_seconds)
    if info.major_prior_odds != 1.0:
        weighted = mean.copy()
        weighted[: len(mean) // 2] *= info.major_prior_odds
        mean = weighted / weighted.sum()
    return apply_exponent(mean, info.posterior_exponent + info.exponent_per_doubling * math.log2(windows))


def apply_exponent(probabilities: Floats, exponent: float | npt.NDArray[np.float64]) -> Floats:
    """The probabilities, float32 [..., classes], raised to the exponent (or exponents [..., 1]) and normalized."""
    if np.ndim(exponent) == 0 and exponent == 1.0:
        return probabilities
    largest = probabilities.max(axis=-1, keepdims=True)  # dividing by it prevents underflow of the larger ones
    raised = np.power(np.maximum(probabilities, 0.0) / largest, exponent, dtype=np.float64)
    result: Floats = (raised / raised.sum(axis=-1, keepdims=True)).astype(np.float32)
    return result
