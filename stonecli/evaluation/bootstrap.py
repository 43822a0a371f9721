"""95 % bootstrap intervals of mean scores, and the exact test of a paired difference.

The intervals are by the percentile method: the tracks are resampled with replacement, and the interval contains the
scores of 95 % of the resamples (Efron and Tibshirani, *An Introduction to the Bootstrap*, 1993, chapter 13). There are
only a few different rows of points that a track can have. So a resample is drawn as the counts of these rows, which are
multinomially distributed; its cost does not depend on the number of tracks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESAMPLES = 10_000
INTERVAL = (0.025, 0.975)
TENTHS = 10  # points are multiples of 0.1; computing with integers makes ties exact

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Score:
    """A score and its 95 % interval, all 0..1."""

    value: float
    low: float
    high: float


def mean_scores(points: npt.NDArray[np.float64], resamples: int, seed: int) -> list[Score]:
    """The mean of each column of ``points`` [n, k], multiples of 0.1, with its interval; the seed decides the draws."""
    drawn = resampled_means(points, resamples, np.random.default_rng(seed))
    low, high = np.quantile(drawn, INTERVAL, axis=0).tolist()
    return [Score(*values) for values in zip(points.mean(axis=0).tolist(), low, high, strict=True)]


def resampled_means(
    points: npt.NDArray[np.float64], resamples: int, generator: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Means of the rows of ``points`` [n, k], resampled with replacement ``resamples`` times, float64 [resamples, k].

    Points must be multiples of 0.1, so that means are exact: a mean of zero is exactly zero.
    """
    rows, counts = np.unique(tenths(points), axis=0, return_counts=True)
    draws = generator.multinomial(len(points), counts / len(points), size=resamples)
    means: npt.NDArray[np.float64] = (draws @ rows) / (TENTHS * len(points))
    return means


def sign_flip_p_value(differences: npt.NDArray[np.float64]) -> float:
    """Exact two-sided p-value of the paired permutation test on ``differences`` [n], multiples of 0.1.

    Under the null hypothesis, all combinations of the signs of the differences are equally probable. The p-value is the
    share of the combinations whose sum is at least as far from 0 as the observed one. For points of 0 and 1 this is the
    sign test of McNemar. The distribution of the sum is computed, not sampled.
    """
    steps = tenths(differences)
    sizes = np.abs(steps[steps != 0])
    if not len(sizes):
        return 1.0
    unit = int(np.gcd.reduce(sizes))
    sizes, observed = sizes // unit, abs(int(steps.sum())) // unit
    middle = int(sizes.sum())
    probability = np.zeros(2 * middle + 1)  # of each sum from -middle to middle
    probability[middle] = 1.0
    for size in sizes.tolist():
        half = probability / 2
        probability = np.zeros_like(half)
        probability[size:] += half[:-size]
        probability[:-size] += half[size:]
    return min(1.0, float(probability[np.abs(np.arange(-middle, middle + 1)) >= observed].sum()))


def tenths(points: npt.NDArray[np.float64]) -> Integers:
    """Points, which are multiples of 0.1, as integers."""
    return np.rint(points * TENTHS).astype(np.int64)
