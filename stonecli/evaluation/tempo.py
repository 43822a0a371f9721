"""Score estimated tempos: Accuracy 1 and Accuracy 2 (Gouyon et al., *An experimental comparison of audio tempo
induction algorithms*, IEEE TASLP 2006)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stonecli.evaluation.bootstrap import RESAMPLES, Score, mean_scores
from stonecli.evaluation.labels import Prediction

TOLERANCE = 0.04
FACTORS = (1.0, 2.0, 3.0, 1 / 2, 1 / 3)  # metrical levels that Accuracy 2 accepts


@dataclass(frozen=True)
class TempoScores:
    """The scores of the tempos of a group of tracks.

    Attributes:
        count: number of tracks with a true tempo.
        accuracy_1: share of tempos within 4 % of the true one.
        accuracy_2: the same, also for two and three times, half and a third of it.
        no_tempo: number of tracks without an estimated tempo; they count as wrong.
    """

    count: int
    accuracy_1: Score
    accuracy_2: Score
    no_tempo: int


def is_same_tempo(bpm: float | None, reference: float, factors: Iterable[float] = (1.0,)) -> bool:
    """Whether ``bpm`` is within 4 % of ``reference`` times one of the factors; False for None."""
    return bpm is not None and any(abs(bpm / (factor * reference) - 1.0) <= TOLERANCE for factor in factors)


def tempo_scores(predictions: Iterable[Prediction], *, resamples: int = RESAMPLES, seed: int = 0) -> TempoScores | None:
    """The scores of the predictions for tracks with a true tempo, with 95 % intervals; None if there are none."""
    found = [(one.bpm, one.track.tempo) for one in predictions if one.error is None and one.track.tempo is not None]
    if not found:
        return None
    hits = [(is_same_tempo(bpm, true), is_same_tempo(bpm, true, FACTORS)) for bpm, true in found]
    points = np.array(hits, dtype=np.float64)
    first, second = mean_scores(points, resamples, seed)
    return TempoScores(len(found), first, second, sum(bpm is None for bpm, _ in found))
