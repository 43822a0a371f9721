"""Labels and answers -> scores with intervals, per genre and source, and whether one estimator beats another.

The intervals are 95 % bootstrap intervals by the percentile method: the tracks are drawn anew with replacement, as
many as there are, and the scores of 95 % of these draws lie inside (Efron and Tibshirani, *An Introduction to the
Bootstrap*, 1993, chapter 13). A track adds one of a few possible rows of points, so a draw is made as a multinomial one
of how often each row comes: the same distribution, and no slower for a hundred thousand tracks.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stonecli.errors import StoneError
from stonecli.evaluation.metrics import (
    METRICS,
    NO_KEY,
    RELATIONS,
    Indices,
    Metric,
    Relation,
    confusion_matrix,
    relation,
    relations,
    track_points,
)
from stonecli.key import Key, parse_or_none
from stonecli.util.atomic_file import atomic_file
from stonecli.util.csv_text import csv_cells, csv_line
from stonecli.util.text import unescaped

RESAMPLES = 10_000
INTERVAL = (0.025, 0.975)
PREDICTION_COLUMNS = ("path", "key", "camelot", "confidence", "label", "relation", "genre", "source", "error")
_NO_KEY_WORDS = frozenset({"", "-", "–", "none", "no key", "n", "x"})  # n: chord files; x: mir_eval
_TENTHS = 10  # every point is a multiple of 0.1; whole numbers make ties exact

Integers = npt.NDArray[np.int64]
Answers = tuple[int | None, ...]
"""For each track ``Key.index``, ``NO_KEY``, or None where there is no answer."""


class LabelsError(StoneError):
    """A CSV of labels or predictions that cannot be used; the message names the line."""


@dataclass(frozen=True)
class Label:
    """One labelled track.

    Attributes:
        path: of the music file; relative names are taken from the folder of the CSV.
        name: the path as the CSV has it.
        key: the right key.
        genre, source: as the CSV has them; empty where it does not say.
        line: of the CSV, from 1.
    """

    path: Path
    name: str
    key: Key
    genre: str
    source: str
    line: int


@dataclass(frozen=True)
class Prediction:
    """The detected key of one track (None: no key), or the reason why it could not be analyzed."""

    track: Label
    key: Key | None
    confidence: float
    error: str | None


@dataclass(frozen=True)
class Predictions:
    """Answers of another estimator to a list of labels.

    Attributes:
        answers: one for each label; None where the file says nothing of the track.
        unmatched: rows for other tracks.
        kept: rows of ``stone tag`` whose key came from the tags of the file instead of being detected.
    """

    answers: Answers
    unmatched: int
    kept: int


@dataclass(frozen=True)
class Score:
    """A score and its 95 % interval, all 0..1."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Scores:
    """The scores of some tracks.

    Attributes:
        count: tracks.
        metrics: the four scores.
        parts: tracks in each of the five relations of MIREX.
        no_key: tracks for which no key was found; among ``parts["other"]``.
    """

    count: int
    metrics: dict[Metric, Score]
    parts: dict[Relation, int]
    no_key: int


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The scores of all tracks and of its groups (by name, empty for none; no groups where nothing is named).

    ``confusion`` is that of :func:`stonecli.evaluation.metrics.confusion_matrix`.
    """

    overall: Scores
    genres: dict[str, Scores]
    sources: dict[str, Scores]
    confusion: Integers


@dataclass(frozen=True)
class Difference:
    """One metric of two estimators on the same tracks, ours minus theirs.

    Attributes:
        ours, theirs: the two scores, 0..1.
        value: their difference, -1..1.
        low, high: its 95 % interval, paired: each draw takes both answers to a track.
        share_above: of the draws in which ours is better; ties are not.
        p_value: of the two-sided sign-flip test, exact: how often a difference at least as large would come about if
            for each track it were a coin's toss which of the two answers is ours.
        better, worse: tracks for which ours has more, or fewer, points.
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
    """Two estimators on the ``count`` tracks that both have answered."""

    count: int
    metrics: dict[Metric, Difference]


def read_labels(path: Path) -> tuple[list[Label], list[int]]:
    """The tracks of a labels CSV in its order, and the numbers of the lines that only repeat a track.

    The first line names the columns, in any order and case: ``path`` and ``key`` (any spelling that :meth:`Key.parse`
    reads), and if wanted ``genre`` and ``source``; others are passed over.

    Raises:
        LabelsError: no such columns, no tracks, a line without a path or a readable key, or a track with two keys.
        OSError: the file cannot be read.
    """
    tracks: dict[str, Label] = {}
    repeated, problems = [], []
    for line, row in _rows(path):
        name, key = row["path"], parse_or_none(row["key"])
        if not name or "\0" in name:
            problems.append(f"line {line}: no path")
        elif key is None:
            problems.append(f"line {line}: {'not a key: ' + repr(row['key'][:40]) if row['key'] else 'no key'}")
        else:
            label = Label(path.parent / name, name, key, row.get("genre", ""), row.get("source", ""), line)
            first = tracks.setdefault(_identity(label.path), label)
            if first.key != key:
                problems.append(
                    f"line {line}: {name} is in {key.name}, but in {first.key.name} according to line {first.line}"
                )
            elif first is not label:
                repeated.append(line)
    if problems:
        more = f" (and {len(problems) - 1} more such lines)" if len(problems) > 1 else ""
        raise LabelsError(problems[0] + more)
    if not tracks:
        raise LabelsError("no tracks in it")
    return list(tracks.values()), repeated


def read_predictions(path: Path, tracks: Sequence[Label], folder: Path) -> Predictions:
    """What a CSV with the columns ``path,key`` answers for ``tracks``: of ``--predictions``, ``stone tag`` or any tool.

    A row is for the track whose label has the same text as path; else for the one that its path leads to from the
    folder of this CSV, from the current folder, or from ``folder``, that of the labels. An empty key, ``none`` or ``-``
    means that no key was found; a row with an ``error``, or whose key text ``stone tag`` could not read, says nothing
    of its track.

    Raises:
        LabelsError: no such columns, a key that nobody can read, or two answers for a track.
        OSError: the file cannot be read.
    """
    by_name = {track.name: place for place, track in enumerate(tracks)}
    by_path = {_identity(track.path): place for place, track in enumerate(tracks)}
    answers: list[int | None] = [None] * len(tracks)
    lines: dict[int, int] = {}
    unmatched = kept = 0
    for line, row in _rows(path):
        name = row["path"]
        if not name or "\0" in name:
            raise LabelsError(f"line {line}: no path")
        if row.get("error") or row.get("status") == "unreadable key":
            continue
        key = parse_or_none(row["key"])
        if key is None and row["key"].casefold() not in _NO_KEY_WORDS:
            raise LabelsError(f"line {line}: not a key: {row['key'][:40]!r}")
        answer = NO_KEY if key is None else key.index
        place = by_name.get(name, by_name.get(unescaped(name)))
        for start in (path.parent, Path(), folder):
            for spelling in (name, unescaped(name)):  # stone escapes names that are not plain text, other tools do not
                if place is None and "\0" not in spelling:
                    place = by_path.get(_identity(start / spelling))
        if place is None:
            unmatched += 1
            continue
        if place in lines and answers[place] != answer:
            raise LabelsError(f"line {line}: another key for {name} than in line {lines[place]}")
        answers[place] = answer
        lines[place] = line
        kept += row.get("status") == "kept"
    return Predictions(tuple(answers), unmatched, kept)


def answers_of(tracks: Sequence[Label], predictions: Iterable[Prediction]) -> Answers:
    """The answers for ``tracks`` among ``predictions``; None for a track that failed or is not there."""
    by_path = {one.track.path: one for one in predictions if one.error is None}
    found = [by_path.get(track.path) for track in tracks]
    return tuple(None if one is None else NO_KEY if one.key is None else one.key.index for one in found)


def evaluate(tracks: Sequence[Label], answers: Answers, *, resamples: int = RESAMPLES, seed: int = 0) -> Evaluation:
    """The evaluation of ``answers`` to ``tracks``; a track without one is left out.

    Raises:
        ValueError: no answers.
    """
    answered = [(track, answer) for track, answer in zip(tracks, answers, strict=True) if answer is not None]
    reference = np.array([track.key.index for track, _ in answered], dtype=np.int64)
    estimate = np.array([answer for _, answer in answered], dtype=np.int64)

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
        genres=by_group([track.genre for track, _ in answered]),
        sources=by_group([track.source for track, _ in answered]),
        confusion=confusion_matrix(reference, estimate),
    )


def compare_answers(
    tracks: Sequence[Label], ours: Answers, theirs: Answers, *, resamples: int = RESAMPLES, seed: int = 0
) -> Comparison:
    """The comparison of two estimators on the tracks that both have answered.

    Raises:
        ValueError: there are none.
    """
    common = [
        (track.key.index, our, their)
        for track, our, their in zip(tracks, ours, theirs, strict=True)
        if our is not None and their is not None
    ]
    reference, our_keys, their_keys = np.array(common, dtype=np.int64).reshape(-1, 3).T
    return Comparison(len(common), compare(reference, our_keys, their_keys, resamples=resamples, seed=seed))


def score(reference: Indices, estimate: Indices, *, resamples: int = RESAMPLES, seed: int = 0) -> Scores:
    """The scores with intervals of ``estimate`` (int [n], 0..23 or ``NO_KEY``) against ``reference`` (int [n], 0..23).

    The order of the tracks does not matter; the same ``seed`` gives the same intervals.

    Raises:
        ValueError: no tracks, or indices that are none.
    """
    points = track_points(reference, estimate)
    if not len(points):
        raise ValueError("no tracks, no score")
    drawn = resampled_means(points, resamples, np.random.default_rng(seed))
    low, high = np.quantile(drawn, INTERVAL, axis=0).tolist()
    values = points.mean(axis=0).tolist()
    counts = np.bincount(relations(reference, estimate), minlength=len(RELATIONS)).tolist()
    return Scores(
        count=len(points),
        metrics={metric: Score(values[i], low[i], high[i]) for i, metric in enumerate(METRICS)},
        parts=dict(zip(RELATIONS, counts, strict=True)),
        no_key=int(np.count_nonzero(estimate == NO_KEY)),
    )


def compare(
    reference: Indices, ours: Indices, theirs: Indices, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[Metric, Difference]:
    """For each metric, how much better ``ours`` is than ``theirs``; all three int [n] as in :func:`score`.

    Raises:
        ValueError: no tracks, or indices that are none.
    """
    our_points, their_points = track_points(reference, ours), track_points(reference, theirs)
    if not len(our_points):
        raise ValueError("no tracks, no comparison")
    differences = our_points - their_points
    drawn = resampled_means(differences, resamples, np.random.default_rng(seed))
    low, high = np.quantile(drawn, INTERVAL, axis=0).tolist()
    return {
        metric: Difference(
            ours=float(our_points[:, i].mean()),
            theirs=float(their_points[:, i].mean()),
            value=float(_tenths(differences[:, i]).sum() / (_TENTHS * len(differences))),
            low=low[i],
            high=high[i],
            share_above=float((drawn[:, i] > 0).mean()),
            p_value=sign_flip_p_value(differences[:, i]),
            better=int(np.count_nonzero(_tenths(differences[:, i]) > 0)),
            worse=int(np.count_nonzero(_tenths(differences[:, i]) < 0)),
        )
        for i, metric in enumerate(METRICS)
    }


def resampled_means(
    points: npt.NDArray[np.float64], resamples: int, generator: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Means of ``resamples`` draws with replacement from the rows of ``points`` [n, k], float64 [resamples, k].

    All points are multiples of 0.1; a draw whose mean is zero gives exactly zero.
    """
    rows, counts = np.unique(_tenths(points), axis=0, return_counts=True)
    draws = generator.multinomial(len(points), counts / len(points), size=resamples)
    means: npt.NDArray[np.float64] = (draws @ rows) / (_TENTHS * len(points))
    return means


def sign_flip_p_value(differences: npt.NDArray[np.float64]) -> float:
    """Two-sided p-value of the paired permutation test on ``differences`` [n], multiples of 0.1; exact.

    Under the null hypothesis each difference could as well have had the other sign, each choice of signs alike. The
    p-value is the share of the choices whose sum is at least as far from 0 as the real one: for points of 0 and 1 the
    sign test, which is McNemar's. It is summed over the distribution itself, so there is nothing random in it.
    """
    steps = _tenths(differences)
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


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """Write one row a track in the columns of ``PREDICTION_COLUMNS``, as ``--against`` reads it.

    Raises:
        OSError: the file cannot be written; an old one is whole.
    """
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.write(csv_line(PREDICTION_COLUMNS))
        for one in predictions:
            file.write(csv_line(csv_cells(_prediction_row(one), PREDICTION_COLUMNS)))


def _prediction_row(prediction: Prediction) -> dict[str, str]:
    track, key, failed = prediction.track, prediction.key, prediction.error is not None
    return {
        "path": track.name,
        "key": key.musical if key else "",
        "camelot": key.camelot if key else "",
        "confidence": "" if failed else f"{prediction.confidence:.4f}",
        "label": track.key.musical,
        "relation": "" if failed else relation(track.key, key),
        "genre": track.genre,
        "source": track.source,
        "error": prediction.error or "",
    }


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """First line and stripped fields of each row that is not empty; ``path`` and ``key`` are among them."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file)
        header: list[str] | None = None
        line = 1
        try:
            for fields in reader:
                line, next_line = line, reader.line_num + 1
                values = [field.strip() for field in fields]
                if header is None:
                    header = _header(values)
                elif any(values):
                    if len(values) > len(header):
                        raise LabelsError(
                            f"line {line}: {len(values)} fields for {len(header)} columns"
                            " (a path with a comma stands in quotes)"
                        )
                    values += [""] * (len(header) - len(values))
                    yield line, dict(zip(header, values, strict=True))
                line = next_line
        except csv.Error as error:
            raise LabelsError(f"line {line}: not CSV: {error}") from error
        if header is None:
            raise LabelsError("the file is empty")


def _header(values: list[str]) -> list[str]:
    header = [value.casefold() for value in values]
    missing = [name for name in ("path", "key") if name not in header]
    if missing:
        found = ", ".join(values)[:80] or "nothing"
        raise LabelsError(f"line 1: no column {' and no column '.join(missing)} (the columns are: {found})")
    twice = next((name for name in header if name and header.count(name) > 1), None)
    if twice:
        raise LabelsError(f"line 1: two columns {twice}")
    return header


def _identity(path: Path) -> str:
    """What is the same for two spellings of one path; links are not followed."""
    return os.path.normcase(os.path.normpath(path.absolute()))


def _tenths(points: npt.NDArray[np.float64]) -> Integers:
    return np.rint(points * _TENTHS).astype(np.int64)
