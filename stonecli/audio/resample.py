"""Resampling by a ratio near 1 as matrix products: what the correction of a tuning takes.

soxr computes the filter anew for each sample of such a ratio, for it looks for no period. Here the ratio is a fraction,
so many samples of the result to so many of the original, after which everything repeats. What lies at the same place in
all the periods is one matrix, the rows of which are the periods; times the filter it is a few outputs of each.

The filter is that of ``stonecli.audio.decode``'s decimation, with the same guarantee: up to 0.35 of the lower rate the
spectrum is that of the original (0.001 dB of ripple, and 76 dB above what is folded to there); above, it may be folded.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import soxr

from stonecli.audio.decode import KAISER_BETA, Samples

LOWEST_RATIO, HIGHEST_RATIO = 0.88, 1.04  # 12 kHz to 11.025 and half a semitone down; half a semitone up
TOLERANCE = 5e-6  # of the ratio, 0.01 cents; twice that where no period comes so near
_ZEROS = 8  # of the filter on either side of its middle
_STEPS = 512  # of the table of the filter from zero to zero
_SHORTEST, _LONGEST = 500, 4000  # period; a few long ones cost less than many short ones. Of 0.5 cents it is 3404.
_BLOCK = 32  # outputs of each period that one matrix product makes
_ONE_THREAD = 1 << 18  # multiplications up to which OpenBLAS does a product in the calling thread


class Resampler:
    """Brings samples from one rate to another, both in Hz. Ratios that are not near 1 are left to soxr (MQ).

    Attributes:
        ratio: of the rates as it is wanted.
        period: samples of the original and of the result after which everything repeats; None where soxr does it, or
            where there is nothing to do.
    """

    def __init__(self, rate: float, target: float) -> None:
        self.ratio = target / rate
        self.period: tuple[int, int] | None = None
        self._rates = rate, target
        if self.ratio != 1.0 and LOWEST_RATIO < self.ratio < HIGHEST_RATIO:
            self.period = inputs, outputs = _nearest_period(self.ratio)
            cutoff = min(1.0, outputs / inputs)  # half of the lower rate
            self._reach = math.ceil(_ZEROS / cutoff)  # samples on either side that an output is made of
            self._blocks = _blocks(inputs, outputs, cutoff, self._reach)

    def __call__(self, samples: Samples) -> Samples:
        """``samples``, float32 [n], at the other rate: float32 [n * ratio, rounded].

        The first samples of both lie at the same time; before and after is silence.
        """
        if self.ratio == 1.0:
            return samples
        if self.period is None:
            return np.asarray(soxr.resample(samples, *self._rates, quality="MQ"))
        inputs, outputs = self.period
        runs = -(-len(samples) // inputs)
        padded = np.zeros((runs + 1) * inputs + 2 * self._reach, dtype=np.float32)
        padded[self._reach : self._reach + len(samples)] = samples
        out = np.empty((runs, outputs), dtype=np.float32)
        first = 0
        for start, matrix in self._blocks:
            rows = padded[start : start + runs * inputs].reshape(runs, inputs)[:, : len(matrix)]
            end = first + matrix.shape[1]
            step = _ONE_THREAD // matrix.size
            for row in range(0, runs, step):
                np.matmul(rows[row : row + step], matrix, out=out[row : row + step, first:end])
            first = end
        return out.ravel()[: round(len(samples) * self.ratio)]


def _nearest_period(ratio: float) -> tuple[int, int]:
    """The shortest period that meets the ratio: samples of the original and of the result."""
    candidates = np.arange(_SHORTEST, _LONGEST + 1)
    errors = np.abs(np.rint(candidates * ratio) / candidates - ratio)
    near = errors < TOLERANCE
    inputs = int(candidates[near.argmax() if near.any() else errors.argmin()])
    return inputs, round(inputs * ratio)


def _blocks(inputs: int, outputs: int, cutoff: float, reach: int) -> list[tuple[int, Samples]]:
    """What makes each ``_BLOCK`` outputs of a period.

    Where the samples that they are made of begin, counted from ``reach`` before the period, and the matrix
    [inputs, outputs] that makes them.
    """
    time = np.arange(outputs) * (inputs / outputs)
    before = time.astype(np.int64)
    taps = np.arange(2 * reach + 1)
    distance = np.abs(taps - reach - (time - before)[:, None]) * cutoff
    weights = (cutoff * np.interp(distance.ravel(), *_filter())).reshape(distance.shape).astype(np.float32)
    blocks = []
    for first in range(0, outputs, _BLOCK):
        places = before[first : first + _BLOCK] - before[first]
        matrix = np.zeros((places[-1] + len(taps), len(places)), dtype=np.float32)
        matrix[places[:, None] + taps, np.arange(len(places))[:, None]] = weights[first : first + _BLOCK]
        blocks.append((int(before[first]), matrix))
    return blocks


@lru_cache(maxsize=1)
def _filter() -> tuple[Samples, Samples]:
    """Distances from the middle, in zeros, and there the value of the filter: a sinc under a Kaiser window."""
    distance = np.arange(_ZEROS * _STEPS + 1) / _STEPS
    values = np.sinc(distance) * np.kaiser(2 * len(distance) - 1, KAISER_BETA)[len(distance) - 1 :]
    values[-1] = 0.0  # and so beyond
    return distance.astype(np.float32), values.astype(np.float32)
