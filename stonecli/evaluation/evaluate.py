"""Score answers against labels, overall and per genre and source, and compare two estimators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stonecli.evaluation.bootstrap import (
    INTERVAL,
    RESAMPLES,
    TENTHS,
    Integers,
    Score,
    mean_scores,
    resampled_means,
    sign_flip_p_value,
    tenths,
)
from stonecli.evaluation.labels import Answers, Label
from stonecli.evaluation.metrics import (
    METRICS,
    NO_KEY,
    RELATIONS,
    Indices,
    Metric,
    Relation,
    confusion_matrix,
    relations,
    track_points,
)
from stonecli.evaluation.tempo import TempoScores


@dataclass(frozen=True)
class Scores:
    """The scores of a group of tracks.

    Attributes:
        count: number of tracks.
        metrics: the four scores.
        parts: number of tracks in each of the five relations of MIREX.
        no_key: number of tracks without a detected key; they are part of ``parts["other"]``.
    """

    count: int
    metrics: dict[Metric, Score]
    parts: dict[Relation, int]
    no_key: int


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The scores of all tracks and of their groups.

    Attributes:
        overall: scores of all tracks with a key label; the count is 0 if there are only tempos.
        genres, sources: scores by name, "" for tracks without one; empty if no track has one.
        confusion: from :func:`stonecli.evaluation.metrics.confusion_matrix`.
        tempo: scores of the tempos; None if no label has one.
    """

    overall: Scores
    genres: dict[str, Scores]
    sources: dict[str, Scores]
    confusion: Integers
    tempo: TempoScores | None = None


@dataclass(frozen=True)
class Difference:
    """The paired difference of one metric between two estimators on the same tracks, ours minus theirs.

    Attributes:
        ours, theirs: the two scores, 0..1.
        value: their difference, -1..1.
        low, high: its 95 % interval; a resample takes both answers for a track.
        share_above: share of the resamples in which ours is better; ties do not count.
        p_value: exact p-value of the two-sided sign-flip test: the probability of a difference at least as large if the
            two answers for each track were assigned to the estimators at random.
        better, worse: number of tracks for which ours has more, or fewer, points.
    """

    ours: float
    theirs: float
    value: float
    low: float
    high: float
    share_above: float
    p_value: float
    better: int
    worse: int


@dataclass(frozen=True)
class Comparison:
    """Two estimators on the ``count`` tracks for which both have an answer."""

    count: int
    metrics: dict[Metric, Difference]


def evaluate_answers(
    tracks: Sequence[Label], answers: Answers, *, resamples: int = RESAMPLES, seed: int = 0
) -> Evaluation:
    """The scores of ``answers`` for ``tracks``; tracks without an answer or without a key are ignored.

    Raises:
        ValueError: there are no answers.
    """
    if not any(answer is not None for answer in answers):
        raise ValueError("there are no answers to score")
    answered = [
        (track, track.key.index, answer)
        for track, answer in zip(tracks, answers, strict=True)
        if answer is not None and track.key is not None
    ]
    if not answered:
        nothing = Scores(0, {}, dict.fromkeys(RELATIONS, 0), 0)
        return Evaluation(nothing, {}, {}, np.zeros((24, 25), dtype=np.int64))
    reference = np.array([index for _, index, _ in answered], dtype=np.int64)
    estimate = np.array([answer for _, _, answer in answered], dtype=np.int64)

    def by_group(names: list[str]) -> dict[str, Scores]:
        if not any(names):
            return {}
        members = np.array(names)
        groups = sorted(set(names), key=lambda name: (not name, name.casefold(), name))
        return {
            name: score(reference[members == name], estimate[members == name], resamples=resamples, seed=seed)
            for name in groups
        }

    return Evaluation(
        overall=score(reference, estimate, resamples=resamples, seed=seed),
        genres=by_group([track.genre for track, _, _ in answered]),
        sources=by_group([track.source for track, _, _ in answered]),
        confusion=confusion_matrix(reference, estimate),
    )


def can_be_compared(tracks: Sequence[Label], ours: Answers, theirs: Answers) -> bool:
    """Whether a track with a key has an answer from both estimators."""
    return any(
        track.key is not None and our is not None and their is not None
        for track, our, their in zip(tracks, ours, theirs, strict=True)
    )


def compare_answers(
    tracks: Sequence[Label], ours: Answers, theirs: Answers, *, resamples: int = RESAMPLES, seed: int = 0
) -> Comparison:
    """The comparison of two estimators on the tracks for which both have an answer.

    Raises:
        ValueError: there are none.
    """
    common = [
        (track.key.index, our, their)
        for track, our, their in zip(tracks, ours, theirs, strict=True)
        if our is not None and their is not None and track.key is not None
    ]
    if not common:
        raise ValueError("there are no tracks to compare")
    reference, our_keys, their_keys = np.array(common, dtype=np.int64).reshape(-1, 3).T
    return Comparison(len(common), compare(reference, our_keys, their_keys, resamples=resamples, seed=seed))


def score(reference: Indices, estimate: Indices, *, resamples: int = RESAMPLES, seed: int = 0) -> Scores:
    """The scores with intervals of ``estimate`` (int [n], 0..23 or ``NO_KEY``) against ``reference`` (int [n], 0..23).

    The result does not depend on the order of the tracks; the same ``seed`` gives the same intervals.

    Raises:
        ValueError: there are no tracks, or an index is invalid.
    """
    points = track_points(reference, estimate)
    if not len(points):
        raise ValueError("there are no tracks to score")
    scores = mean_scores(points, resamples, seed)
    counts = np.bincount(relations(reference, estimate), minlength=len(RELATIONS)).tolist()
    return Scores(
        count=len(points),
        metrics=dict(zip(METRICS, scores, strict=True)),
        parts=dict(zip(RELATIONS, counts, strict=True)),
        no_key=int(np.count_nonzero(estimate == NO_KEY)),
    )


def compare(
    reference: Indices, ours: Indices, theirs: Indices, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[Metric, Difference]:
    """The difference of each metric between ``ours`` and ``theirs``; all three int [n] as in :func:`score`.

    Raises:
        ValueError: there are no tracks, or an index is invalid.
    """
    our_points, their_points = track_points(reference, ours), track_points(reference, theirs)
    if not len(our_points):
        raise ValueError("there are no tracks to compare")
    differences = our_points - their_points
    drawn = resampled_means(differences, resamples, np.random.default_rng(seed))
    low, high = np.quantile(drawn, INTERVAL, axis=0).tolist()
    return {
        metric: Difference(
            ours=float(our_points[:, i].mean()),
            theirs=float(their_points[:, i].mean()),
            value=float(tenths(differences[:, i]).sum() / (TENTHS * len(differences))),
            low=low[i],
            high=high[i],
            share_above=float((drawn[:, i] > 0).mean()),
            p_value=sign_flip_p_value(differences[:, i]),
            better=int(np.count_nonzero(tenths(differences[:, i]) > 0)),
            worse=int(np.count_nonzero(tenths(differences[:, i]) < 0)),
        )
        for i, metric in enumerate(METRICS)
    }
