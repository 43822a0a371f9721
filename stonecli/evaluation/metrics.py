"""Metrics of key detection: MIREX relation and weighted score, accuracy, key signature, KSEA, confusion matrix.

Functions for one pair of keys take :class:`Key`, those for many take integer arrays of ``Key.index`` (0..23), with
``NO_KEY`` for the answer "no key". That answer is always wrong, because every label names a key.

**Which fifths count.** MIREX gives half a point for a key at the "distance of perfect fifth". Here that is a fifth up
or down, as in MIREX itself since 2017 (in the development version of ``mir_eval.key.weighted_score``, it is
``allow_descending_fifths=True``; the release 0.8.2 has no such option). ``mir_eval`` by default, and MIREX before 2017,
only count an estimate a fifth above the label. ``fifths="above"`` selects this rule; scores are then lower or equal.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from stonecli.key import Key

Relation = Literal["same", "fifth", "relative", "parallel", "other"]
Fifths = Literal["both", "above"]
Metric = Literal["mirex", "accuracy", "signature", "ksea"]
Indices = npt.NDArray[np.integer]
Floats = npt.NDArray[np.float64]

RELATIONS: tuple[Relation, ...] = ("same", "fifth", "relative", "parallel", "other")
"""The five parts of the MIREX score, best first."""

MIREX_POINTS: dict[Relation, float] = {"same": 1.0, "fifth": 0.5, "relative": 0.3, "parallel": 0.2, "other": 0.0}
KSEA_FIFTH = 0.5  # points for a key signature that is a fifth away

METRICS: tuple[Metric, ...] = ("mirex", "accuracy", "signature", "ksea")
"""The columns of :func:`track_points`."""

NO_KEY = -1
"""Index of the answer "no key"."""

_KEYS = tuple(Key.all())
CIRCLE: tuple[Key, ...] = tuple(
    major if mode == "major" else major.relative
    for mode in ("major", "minor")
    for major in (Key(7 * fifths % 12, "major") for fifths in range(12))
)
"""The 24 keys along the circle of fifths: C, G, D .. F major, then their relatives A, E, B .. D minor."""

_CIRCLE_INDICES = np.array([CIRCLE.index(key) for key in _KEYS])  # index in CIRCLE, by Key.index
_SIGNATURES = np.array([key.signature for key in _KEYS])


def relation(reference: Key, estimate: Key | None, *, fifths: Fifths = "both") -> Relation:
    """The MIREX category of ``estimate``; ``other`` for None.

    Args:
        reference: the label.
        estimate: the detected key, or None for no key.
        fifths: ``"both"`` counts a fifth up or down, ``"above"`` only a fifth up from the reference (see above).
    """
    found = "other" if estimate is None else estimate.relation_to(reference)
    if found == "fifth up" or (found == "fifth down" and fifths == "both"):
        return "fifth"
    return "other" if found == "fifth down" else found


_TABLES: dict[Fifths, Indices] = {
    fifths: np.array(
        [
            # The last column, which NO_KEY = -1 selects.
            [RELATIONS.index(relation(reference, estimate, fifths=fifths)) for estimate in (*_KEYS, None)]
            for reference in _KEYS
        ]
    )
    for fifths in ("both", "above")
}


def mirex_score(reference: Key, estimate: Key | None, *, fifths: Fifths = "both") -> float:
    """MIREX points of one estimate: 1 same, 0.5 fifth, 0.3 relative, 0.2 parallel, 0 other or no key."""
    return MIREX_POINTS[relation(reference, estimate, fifths=fifths)]


def relations(reference: Indices, estimate: Indices, *, fifths: Fifths = "both") -> Indices:
    """The relation of each pair, int [n], as indices into ``RELATIONS``.

    Args:
        reference: int [n], 0..23.
        estimate: int [n], 0..23 or ``NO_KEY``.
        fifths: as in :func:`relation`.

    Raises:
        ValueError: the shapes differ, or an index is out of range.
    """
    reference, estimate = _checked(reference, estimate, classes=24)
    return _TABLES[fifths][reference, estimate]


def signatures(indices: Indices) -> Indices:
    """Key signatures, int [n], 0..11 by ``Key.signature``, of keys, int [n]; ``NO_KEY`` is unchanged."""
    _, indices = _checked(np.zeros_like(indices), indices, classes=24)
    return np.where(indices == NO_KEY, NO_KEY, _SIGNATURES[indices])


def signature_points(reference: Indices, estimate: Indices) -> Floats:
    """KSEA points of each pair of key signatures, float64 [n]: 1 correct, 0.5 a fifth up or down, 0 other or no key.

    KSEA, key signature estimation accuracy, is their mean (Kong et al., *STONE*, ISMIR 2024).

    Args:
        reference: int [n], 0..11: the pitch class of the signature's major key, as ``Key.signature``.
        estimate: the same, or ``NO_KEY``.

    Raises:
        ValueError: the shapes differ, or a number is out of range.
    """
    reference, estimate = _checked(reference, estimate, classes=12)
    interval = (estimate - reference) % 12
    points = np.select([interval == 0, np.isin(interval, (5, 7))], [1.0, KSEA_FIFTH], 0.0)
    return np.where(estimate == NO_KEY, 0.0, points)


def track_points(reference: Indices, estimate: Indices, *, fifths: Fifths = "both") -> Floats:
    """The points of each track in each metric, float64 [n, 4] in the order of ``METRICS``, each 0..1.

    The mean over the tracks is the score: the MIREX weighted score, the share of correct keys, the share of correct key
    signatures, and KSEA = (correct + fifths / 2) / all on key signatures.

    Arguments and errors as in :func:`relations`.
    """
    codes = relations(reference, estimate, fifths=fifths)
    mirex = np.array([MIREX_POINTS[name] for name in RELATIONS])[codes]
    ksea = signature_points(signatures(reference), signatures(estimate))
    return np.stack([mirex, codes == RELATIONS.index("same"), ksea == 1.0, ksea], axis=1).astype(np.float64)


def scores(reference: Indices, estimate: Indices, *, fifths: Fifths = "both") -> dict[Metric, float]:
    """The four scores, each 0..1; arguments and errors as in :func:`relations`.

    Raises:
        ValueError: also if there are no tracks.
    """
    points = track_points(reference, estimate, fifths=fifths)
    if not len(points):
        raise ValueError("there are no tracks to score")
    return dict(zip(METRICS, points.mean(axis=0).tolist(), strict=True))


def confusion_matrix(reference: Indices, estimate: Indices) -> npt.NDArray[np.int64]:
    """Counts, int64 [24, 25]: a row per label and a column per answer, both in the order of ``CIRCLE``.

    The last column counts "no key". In the square matrix without it, correct answers are on the diagonal, fifths next
    to it, and relative keys on the diagonals of the other two quadrants.

    Arguments and errors as in :func:`relations`.
    """
    reference, estimate = _checked(reference, estimate, classes=24)
    matrix = np.zeros((24, 25), dtype=np.int64)
    columns = np.where(estimate == NO_KEY, 24, _CIRCLE_INDICES[estimate])
    np.add.at(matrix, (_CIRCLE_INDICES[reference], columns), 1)
    return matrix


def signature_confusion(confusion: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The counts of :func:`confusion_matrix` by key signature, int64 [12, 13]: relative keys are added.

    Rows and columns are in the order of the majors of ``CIRCLE``; the last column counts "no key".
    """
    rows = confusion[:12] + confusion[12:]
    return np.concatenate([rows[:, :12] + rows[:, 12:24], rows[:, 24:]], axis=1)


def reliability(confidence: Floats, right: npt.NDArray[np.bool_], bins: int = 10) -> list[tuple[float, float, int]]:
    """Mean confidence, accuracy and number of answers of each bin of confidence that is not empty.

    Args:
        confidence: confidence of each answer, float [n], 0..1.
        right: whether it is correct, bool [n].
        bins: number of bins of equal width.
    """
    confidence, right = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=bool)
    in_bin = np.clip((confidence * bins).astype(np.int64), 0, bins - 1)
    return [
        (float(confidence[in_bin == bin_].mean()), float(right[in_bin == bin_].mean()), int((in_bin == bin_).sum()))
        for bin_ in np.unique(in_bin)
    ]


def calibration_error(confidence: Floats, right: npt.NDArray[np.bool_], bins: int = 10) -> float:
    """Expected calibration error, 0..1 (Guo et al., *On Calibration of Modern Neural Networks*, ICML 2017).

    It is the mean distance between confidence and accuracy over the bins of :func:`reliability`, weighted by their
    number of answers; arguments as there.

    Raises:
        ValueError: there are no answers.
    """
    table = reliability(confidence, right, bins)
    if not table:
        raise ValueError("there are no answers")
    total = sum(count for _, _, count in table)
    return sum(count * abs(mean - share) for mean, share, count in table) / total


def _checked(reference: Indices, estimate: Indices, *, classes: int) -> tuple[Indices, Indices]:
    """Both as integer arrays [n], or ValueError."""
    reference, estimate = np.asarray(reference), np.asarray(estimate)
    if reference.ndim != 1 or reference.shape != estimate.shape:
        raise ValueError(f"shapes must be equal and one-dimensional, not {reference.shape} and {estimate.shape}")
    if not len(reference):
        return reference.astype(np.int64), estimate.astype(np.int64)  # an empty list has the type float
    if not (np.issubdtype(reference.dtype, np.integer) and np.issubdtype(estimate.dtype, np.integer)):
        raise ValueError(f"indices must be integers, not {reference.dtype} and {estimate.dtype}")
    if reference.min() < 0 or reference.max() >= classes:
        raise ValueError(f"a reference must be 0..{classes - 1}")
    if estimate.min() < NO_KEY or estimate.max() >= classes:
        raise ValueError(f"an estimate must be 0..{classes - 1}, or {NO_KEY} for no key")
    return reference, estimate
