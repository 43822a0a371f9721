"""Polyphase resampling by a rational ratio L/M near 1, as matrix products: it corrects the tuning.

For such ratios soxr computes filter coefficients for every sample, because it does not look for a period. Here the
ratio is approximated by L/M: M input samples give L output samples, and then the filter phases repeat. The inputs of
all periods are the rows of one matrix; a product with the filter matrix gives a few outputs of every period at once.

The filter is that of the decimation in ``stonecli.audio.convert``, with the same guarantee: up to 0.35 of the lower
rate the spectrum is that of the input (0.001 dB of ripple, aliases at -76 dB); above, it may be aliased.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import soxr

from stonecli.audio.channels import Samples
from stonecli.audio.convert import KAISER_BETA

MIN_RATIO, MAX_RATIO = 0.88, 1.04  # 12 kHz to 11.025 kHz and half a semitone down; half a semitone up
TOLERANCE = 5e-6  # of the ratio: 0.01 cents; up to twice that if no period is so close
_ZEROS = 8  # zero crossings of the filter on either side of its center
_STEPS = 512  # table entries of the filter per zero crossing
_MIN_INPUTS, _MAX_INPUTS = 500, 4000  # M; few long periods take less time than many short ones. 3404 for 0.5 cents.
_BLOCK = 32  # outputs of each period per matrix product
_ONE_THREAD = 1 << 18  # multiplications up to which OpenBLAS does a product in the calling thread


class Resampler:
    """Resamples from one rate to another, both in Hz. soxr (MQ) resamples by ratios that are not near 1.

    Attributes:
        ratio: target rate divided by input rate.
        period: M and L, the input and output samples per period; None if soxr resamples, or if the rates are equal.
    """

    def __init__(self, rate: float, target: float) -> None:
        self.ratio = target / rate
        self.period: tuple[int, int] | None = None
        self._rates = rate, target
        if self.ratio != 1.0 and MIN_RATIO < self.ratio < MAX_RATIO:
            self.period = inputs, outputs = _rational_ratio(self.ratio)
            cutoff = min(1.0, outputs / inputs)  # relative to half the input rate
            self._reach = math.ceil(_ZEROS / cutoff)  # input samples on either side that an output depends on
            self._filters = _filter_matrices(inputs, outputs, cutoff, self._reach)

    def __call__(self, samples: Samples) -> Samples:
        """``samples``, float32 [n], at the target rate: float32 [round(n * ratio)].

        The first input and output samples are at the same time. The input is padded with zeros.
        """
        if self.ratio == 1.0:
            return samples
        if self.period is None:
            return np.asarray(soxr.resample(samples, *self._rates, quality="MQ"))
        inputs, outputs = self.period
        periods = -(-len(samples) // inputs)
        padded = np.zeros((periods + 1) * inputs + 2 * self._reach, dtype=np.float32)
        padded[self._reach : self._reach + len(samples)] = samples
        out = np.empty((periods, outputs), dtype=np.float32)
        first = 0
        for start, matrix in self._filters:
            rows = padded[start : start + periods * inputs].reshape(periods, inputs)[:, : len(matrix)]
            end = first + matrix.shape[1]
            step = _ONE_THREAD // matrix.size
            for row in range(0, periods, step):
                np.matmul(rows[row : row + step], matrix, out=out[row : row + step, first:end])
            first = end
        return out.ravel()[: round(len(samples) * self.ratio)]


def _rational_ratio(ratio: float) -> tuple[int, int]:
    """M and L of the shortest period whose L/M is within ``TOLERANCE`` of the ratio, or else is the closest."""
    candidates = np.arange(_MIN_INPUTS, _MAX_INPUTS + 1)
    errors = np.abs(np.rint(candidates * ratio) / candidates - ratio)
    near = errors < TOLERANCE
    inputs = int(candidates[near.argmax() if near.any() else errors.argmin()])
    return inputs, round(inputs * ratio)


def _filter_matrices(inputs: int, outputs: int, cutoff: float, reach: int) -> list[tuple[int, Samples]]:
    """The polyphase filter: for each ``_BLOCK`` outputs of a period, an input offset and a matrix.

    The offset of the first input is counted from ``reach`` samples before the period. The matrix, float32
    [inputs, outputs], turns the inputs from there on into the outputs.
    """
    time = np.arange(outputs) * (inputs / outputs)
    before = time.astype(np.int64)
    taps = np.arange(2 * reach + 1)
    distance = np.abs(taps - reach - (time - before)[:, None]) * cutoff
    weights = (cutoff * np.interp(distance.ravel(), *_filter())).reshape(distance.shape).astype(np.float32)
    filters = []
    for first in range(0, outputs, _BLOCK):
        offsets = before[first : first + _BLOCK] - before[first]
        matrix = np.zeros((offsets[-1] + len(taps), len(offsets)), dtype=np.float32)
        matrix[offsets[:, None] + taps, np.arange(len(offsets))[:, None]] = weights[first : first + _BLOCK]
        filters.append((int(before[first]), matrix))
    return filters


@lru_cache(maxsize=1)
def _filter() -> tuple[Samples, Samples]:
    """Table of the filter, a sinc under a Kaiser window: distances from the center in zero crossings, and values."""
    distance = np.arange(_ZEROS * _STEPS + 1) / _STEPS
    values = np.sinc(distance) * np.kaiser(2 * len(distance) - 1, KAISER_BETA)[len(distance) - 1 :]
    values[-1] = 0.0  # np.interp returns the last value for all larger distances
    return distance.astype(np.float32), values.astype(np.float32)
