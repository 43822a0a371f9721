"""Score checkpoints on the development sets, and compare them in pairs with bootstrap intervals.

    python benchmarks/development_set.py BASELINE.pt [OTHER.pt ...] --eval FOLDER [--renderings RENDERINGS/labels.csv]

FOLDER contains features of real recordings with labels: ``dev_features_a440.npz`` with ``dev_labels.csv`` and
``modern_features_a440.npz`` with ``modern_labels.csv`` (uint8 [bins, frames] per id, tuning corrected). RENDERINGS is a
folder of ``stonecli_train.corpus.render --held-out``: the second development set, whose groups are its styles. Every
checkpoint analyzes a track as ``stone`` does: in windows, pooled by their geometric mean.

``PATH@ODDS`` scores a checkpoint with other prior odds of major than its own; ``PATH@1`` is without prior odds.
For each group, the table has the log-loss of the right key, the expected MIREX score, and the MIREX score and exact
keys of the answers, in percent. Probabilities are first raised to the exponent with the lowest loss over all tracks, a
linear function of the logarithm of the number of windows as in ``stonecli.detection.pooling``, so that uncalibrated
checkpoints can be compared with calibrated ones. The first checkpoint is the baseline: the others are followed by
their paired differences to the baseline, each with its 95 % interval (bootstrap over tracks). A positive difference is
better for the MIREX columns, a negative one for the loss.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))  # beside dev_features, also when imported by a test

from dev_features import class_keys, possible_points, predict

from stonecli.errors import StoneError
from stonecli.evaluation.metrics import track_points
from stonecli.key import Key
from stonecli_export.published import read_checkpoint
from stonecli_train.calibrate import window_frames
from stonecli_train.checkpoint import Checkpoint
from stonecli_train.data import read_labels
from stonecli_train.features import load_features

EXPONENTS = np.exp(np.linspace(np.log(0.3), np.log(3.0), 47))
EXPONENTS_PER_DOUBLING = np.arange(0.0, 0.61, 0.05)
MIN_PROBABILITY = 1e-6
DRAWS = 4000
SOURCES = {"isophonics-beatles": "sixties", "gtzan-lerch": "gtzan"}
MIN_GROUP_TRACKS = 5  # smaller groups are not printed

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Track:
    """A labeled track of a development set.

    Attributes:
        features: uint8 [bins, frames].
        key: the label.
        groups: names of the groups that the track belongs to, ``all`` first.
    """

    features: npt.NDArray[np.uint8]
    key: Key
    groups: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Points:
    """The scores of a checkpoint on each track.

    Attributes:
        loss: negative log-probability of the right key, float64 [tracks].
        expected: expected MIREX score under the probabilities, 0..1, float64 [tracks].
        mirex, exact: MIREX score and exact match of the answer, 0..1, float64 [tracks].
    """

    loss: Floats
    expected: Floats
    mirex: Floats
    exact: Floats

    def columns(self) -> dict[str, Floats]:
        """The scores by name, in percent except for the loss."""
        return {
            "loss": self.loss, "expected": 100 * self.expected, "mirex": 100 * self.mirex, "exact": 100 * self.exact,
        }  # fmt: skip


def recordings(folder: Path) -> Iterator[Track]:
    """The real recordings whose features are in ``folder``.

    Raises:
        OSError: a file is missing.
    """
    for name, features_name in (("dev", "dev_features_a440.npz"), ("modern", "modern_features_a440.npz")):
        with np.load(folder / features_name) as features, (folder / f"{name}_labels.csv").open(newline="") as labels:
            for row in csv.DictReader(labels):
                key = Key.parse(row["key"])
                groups = ["all", SOURCES.get(row["source"], row["source"])]
                if row["source"] == "modern":
                    groups.append(row["genre"])
                yield Track(features[row["id"]], key, (*groups, key.mode))


def renderings(labels: Path, bins: int) -> Iterator[Track]:
    """The renderings with a key that ``labels`` lists, grouped by style.

    Raises:
        StoneError: a row does not have the format of ``stonecli_train.corpus.render``.
        OSError: a file is missing.
    """
    with labels.open(newline="", encoding="utf-8") as file:
        styles = {(labels.parent / row["path"]).resolve(): row.get("style", "") for row in csv.DictReader(file)}
    for path, key in read_labels(labels):
        if key is not None:
            yield Track(np.asarray(load_features(path, bins)).T, key, ("all", key.mode, styles[path.resolve()]))


def points(probabilities: npt.NDArray[np.float32], truth: npt.NDArray[np.int64], windows: Floats) -> Points:
    """Points of probabilities after scaling with the exponents that minimize the loss.

    Args:
        probabilities: float32 [tracks, 24] by ``Key.index``, pooled but not calibrated.
        truth: int64 [tracks], ``Key.index`` of the right key.
        windows: float64 [tracks], number of windows of each track, at least 1.
    """
    doublings = np.log2(windows)
    logarithms = np.log(probabilities.astype(np.float64).clip(MIN_PROBABILITY))

    def raised(exponents: tuple[float, float]) -> Floats:
        exponent = (exponents[0] + exponents[1] * doublings)[:, None]
        scaled = np.exp(exponent * (logarithms - logarithms.max(axis=1, keepdims=True)))
        normalized: Floats = scaled / scaled.sum(axis=1, keepdims=True)
        return normalized

    def losses(exponents: tuple[float, float]) -> Floats:
        right: Floats = raised(exponents)[np.arange(len(truth)), truth]
        return -np.log(right.clip(MIN_PROBABILITY))

    choices = itertools.product(EXPONENTS.tolist(), EXPONENTS_PER_DOUBLING.tolist())
    best = min(choices, key=lambda exponents: float(losses(exponents).mean()))
    possible = np.array([possible_points(int(index)) for index in truth])
    answers = track_points(truth, probabilities.argmax(axis=1))
    return Points(losses(best), (raised(best) * possible).sum(axis=1), answers[:, 0], answers[:, 1])


def analyze(checkpoint: Checkpoint, tracks: Sequence[Track]) -> Points:
    """The scores of a checkpoint with 24 classes on each track."""
    truth = np.array([track.key.index for track in tracks])
    plain = replace(checkpoint, posterior_exponent=1.0, exponent_per_doubling=0.0)
    predictions = predict(plain, [track.features for track in tracks], class_keys(checkpoint))
    size = window_frames(checkpoint)
    windows = np.array([max(1.0, track.features.shape[1] / size) for track in tracks])
    return points(predictions.probabilities, truth, windows)


def interval(differences: Floats) -> tuple[float, float, float]:
    """Mean of paired differences, and its 95 % bootstrap interval (percentile method)."""
    rng = np.random.default_rng(0)
    means = differences[rng.integers(len(differences), size=(DRAWS, len(differences)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(differences.mean()), float(low), float(high)


def group_members(tracks: Sequence[Track]) -> dict[str, npt.NDArray[np.bool_]]:
    """Membership of each track in each group of at least ``MIN_GROUP_TRACKS`` tracks, bool [tracks] by name."""
    names = dict.fromkeys(group for track in tracks for group in track.groups)
    members = {name: np.array([name in track.groups for track in tracks]) for name in names}
    return {name: chosen for name, chosen in members.items() if chosen.sum() >= MIN_GROUP_TRACKS}


def compare(found: dict[str, Points], tracks: Sequence[Track]) -> dict[str, dict[str, dict[str, list[float]]]]:
    """The mean per checkpoint, group and column; except for the first, also the difference and its interval."""
    members = group_members(tracks)
    baseline = next(iter(found.values()))
    report: dict[str, dict[str, dict[str, list[float]]]] = {}
    for name, mine in found.items():
        report[name] = {}
        for group, chosen in members.items():
            cells = {}
            for (column, values), theirs in zip(mine.columns().items(), baseline.columns().values(), strict=True):
                cells[column] = [float(values[chosen].mean())]
                if mine is not baseline:
                    cells[column] += interval(values[chosen] - theirs[chosen])
            report[name][group] = cells | {"tracks": [float(chosen.sum())]}
    return report


def print_report(report: dict[str, dict[str, dict[str, list[float]]]]) -> None:
    """One line per group: means, and paired differences with their intervals where there is a baseline."""
    for name, groups in report.items():
        print(name)
        for group, cells in groups.items():
            line = f"  {group:16s}{cells['tracks'][0]:4.0f}"
            for column in ("loss", "expected", "mirex", "exact"):
                mean, *difference = cells[column]
                digits = 3 if column == "loss" else 1
                line += f"  {column} {mean:.{digits}f}"
                if difference:
                    change, low, high = difference
                    line += f" ({change:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}])"
            print(line)


def read_with_odds(text: str) -> Checkpoint:
    """The checkpoint of ``PATH`` or ``PATH@ODDS``.

    Raises:
        StoneError: the file is not a checkpoint of 24 keys, or the odds are not a positive number.
        OSError: it cannot be read.
    """
    path, separator, odds = text.rpartition("@")
    checkpoint = read_checkpoint(Path(path if separator else text))
    if checkpoint.chromanet.rows != 2 or not checkpoint.corrects_tuning:
        raise StoneError(f"{text}: must be a checkpoint of 24 keys that corrects tuning")
    if not separator:
        return checkpoint
    try:
        number = float(odds)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise StoneError(f"{text}: the odds after @ must be a positive number")
    return replace(checkpoint, major_prior_odds=number)


def main(arguments: Sequence[str]) -> int:
    """Print the scores of the checkpoints; the exit code, 1 if a file cannot be read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", metavar="CKPT[@ODDS]")
    parser.add_argument("--eval", type=Path, metavar="FOLDER", help="features of labeled real recordings")
    parser.add_argument("--renderings", type=Path, metavar="LABELS.csv", help="held-out renderings")
    parser.add_argument("--window-seconds", type=float, help="analyze in windows of this length")
    parser.add_argument(
        "--dense-blocks", type=int, help="number of blocks at the end with stride 1, instead of the checkpoint's"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if not (options.eval or options.renderings):
        parser.error("needs --eval or --renderings")
    torch.set_num_threads(1)
    try:
        read = {text: read_with_odds(text) for text in options.checkpoints}
        if options.window_seconds:
            read = {text: replace(each, window_seconds=options.window_seconds) for text, each in read.items()}
        if options.dense_blocks is not None:
            read = {
                text: replace(each, chromanet=replace(each.chromanet, dense_blocks=options.dense_blocks))
                for text, each in read.items()
            }
        reports = {}
        if options.eval:
            tracks = list(recordings(options.eval))
            reports["recordings"] = compare({text: analyze(each, tracks) for text, each in read.items()}, tracks)
        if options.renderings:
            tracks = list(renderings(options.renderings, next(iter(read.values())).vqt.n_bins))
            reports["renderings"] = compare({text: analyze(each, tracks) for text, each in read.items()}, tracks)
    except (StoneError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(reports))
        return 0
    for name, report in reports.items():
        print(f"== {name} ==")
        print_report(report)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
