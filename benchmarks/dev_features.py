"""Score a checkpoint on recordings that are available only as features: ``stone evaluate`` for features.

    python benchmarks/dev_features.py CKPT.pt --eval FOLDER

FOLDER contains ``dev_features.npz`` (or ``dev_features_a440.npz``: the same after correction to A = 440 Hz), with one
uint8 array [bins, frames] per track, and ``dev_labels.csv`` (id, source, key). The pitch fork finds the class order of
a model, as at export. Prints the scores per source and over all tracks, with 95 % bootstrap intervals of the MIREX
score and of KSEA; also the expected MIREX score and the log-loss (the mean negative log-likelihood of the right key),
which show small differences that the answers do not. ``--windows`` analyzes a track in windows, as ``stone`` does, and
also prints the calibration error and how many tracks would be rejected. ``--transposed`` also prints how often the
answer is transposed accordingly when the features are transposed by -5 to 6 semitones, and when the tempo changes as
well, as by a tape. (Transposition needs bins below the lowest one, which the features do not have; they are filled with
its values.)
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from stonecli.detection.pooling import pooled_posterior, recording_probabilities
from stonecli.evaluation.metrics import calibration_error, mirex_score, reliability, scores, track_points
from stonecli.key import Key
from stonecli.util.atomic_file import atomic_file
from stonecli_export.onnx_file import AudioNetwork
from stonecli_export.pitch_fork import find_class_order
from stonecli_export.published import read_checkpoint
from stonecli_train.calibrate import MIN_PROBABILITY, window_frames, window_lengths, window_logits
from stonecli_train.checkpoint import Checkpoint

CONFIDENT, LIKELY = 0.8, 0.5  # confidences
STEPS = (-5, -4, -3, -2, -1, 1, 2, 3, 4, 5, 6)  # semitones
WHOLE_SECONDS = 500.0  # no track is longer


def class_keys(checkpoint: Checkpoint) -> list[Key]:
    """The key (for 12 classes: the major one) of each output, by the pitch fork."""
    network = AudioNetwork(checkpoint).eval()

    def probabilities(audio: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(audio)).numpy()

    seconds, rate = checkpoint.window_seconds, checkpoint.vqt.sample_rate
    order = find_class_order(probabilities, checkpoint.chromanet.rows, seconds, rate, checkpoint.classes)
    return [Key.parse(name.split("/")[0]) for name in order]


@dataclass(frozen=True)
class Predictions:
    """The predictions of a checkpoint for some tracks.

    Attributes:
        probabilities: float32 [tracks, 24] by ``Key.index``, calibrated.
        rejected: bool [tracks], whether the largest mean probability is below the rejection threshold.
    """

    probabilities: npt.NDArray[np.float32]
    rejected: npt.NDArray[np.bool_]

    @property
    def answers(self) -> npt.NDArray[np.int64]:
        """``Key.index`` of the most probable key of each track, int64 [tracks]; also of rejected tracks."""
        return self.probabilities.argmax(axis=1)


def predict(checkpoint: Checkpoint, tracks: Sequence[np.ndarray], keys: list[Key], windows: bool = True) -> Predictions:
    """The predictions for tracks, uint8 [bins, frames].

    Args:
        checkpoint: the model.
        tracks: features, uint8 [bins, frames] per track.
        keys: key of each class; with 12 classes, the minor keys keep the probability 0.
        windows: whether to analyze windows, as stone does, instead of whole tracks.
    """
    size = window_frames(checkpoint)
    order = [key.index for key in keys]
    probabilities = np.zeros((len(tracks), 24), dtype=np.float32)
    rejected = np.zeros(len(tracks), dtype=bool)
    cut_by = checkpoint if windows else replace(checkpoint, window_seconds=WHOLE_SECONDS)
    for number, track in enumerate(tracks):
        logits = window_logits(cut_by, track.T) / checkpoint.chromanet.temperature
        softmax = np.exp(logits - logits.max(axis=1, keepdims=True))
        softmax /= softmax.sum(axis=1, keepdims=True)
        lengths = np.array(window_lengths(track.shape[1], size) if windows else [track.shape[1]], dtype=np.float64)
        seconds = track.shape[1] / size * checkpoint.window_seconds
        probabilities[number, order] = recording_probabilities(pooled_posterior(softmax, lengths), seconds, checkpoint)
        rejected[number] = np.average(softmax, axis=0, weights=lengths).max() < checkpoint.rejection_threshold
    return Predictions(probabilities, rejected)


def transposed(track: np.ndarray, semitones: int, as_tape: bool) -> np.ndarray:
    """The track, uint8 [bins, frames], transposed up by ``semitones``; ``as_tape`` changes the tempo as well."""
    moved = track[np.clip(np.arange(len(track)) - semitones, 0, len(track) - 1)]
    if not as_tape:
        return moved
    speed = 2.0 ** (semitones / 12.0)
    position = np.arange(int((track.shape[1] - 1) / speed)) * speed
    frame = position.astype(int)
    weight = position - frame
    resampled: np.ndarray = np.round(moved[:, frame] * (1 - weight) + moved[:, frame + 1] * weight).astype(np.uint8)
    return resampled


def equivariant(
    checkpoint: Checkpoint, tracks: Sequence[np.ndarray], keys: list[Key], found: np.ndarray, as_tape: bool
) -> np.ndarray:
    """Whether the answer is transposed with the features and not rejected, per step of ``STEPS``: bool [steps, tracks].

    ``found`` are the answers for the original tracks.
    """
    agrees = []
    for step in STEPS:
        predictions = predict(checkpoint, [transposed(track, step, as_tape) for track in tracks], keys)
        agrees.append((predictions.answers == (found + step) % 12 + found // 12 * 12) & ~predictions.rejected)
    return np.array(agrees)


def possible_points(truth: int) -> npt.NDArray[np.float64]:
    """MIREX score of each possible answer, float64 [24] by ``Key.index``, for the label ``truth``."""
    return np.array([mirex_score(Key.from_index(truth), Key.from_index(answer)) for answer in range(24)])


def interval(points: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of the mean, percentile method."""
    rng = np.random.default_rng(0)
    means = points[rng.integers(len(points), size=(2000, len(points)))].mean(axis=1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def draw_reliability(table: Sequence[tuple[float, float, int]], path: Path) -> None:
    """Plot accuracy over confidence to ``path``; the area of a bin's dot is its number of tracks."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(4, 4), layout="constrained")
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    confidence, share, count = zip(*table, strict=True)
    axes.scatter(confidence, share, s=[8 * number for number in count], color="#3366aa", alpha=0.7)
    for x, y, number in table:
        axes.annotate(str(number), (x, y), ha="center", va="center", fontsize=7, color="white")
    axes.set(xlim=(0, 1.05), ylim=(-0.05, 1.05), xlabel="confidence", ylabel="share of right keys")
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format=path.suffix.removeprefix(".") or "svg")


def main() -> None:
    """Print the scores of the checkpoint on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--eval", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--windows", action="store_true", help="analyze windows, as stone does, instead of whole tracks"
    )
    parser.add_argument("--plot", type=Path, help="save a reliability diagram as SVG; needs --windows")
    parser.add_argument(
        "--transposed", action="store_true", help="measure transposition equivariance; needs --windows; takes minutes"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)

    checkpoint = read_checkpoint(options.checkpoint)
    keys = class_keys(checkpoint)
    name = "dev_features_a440.npz" if checkpoint.corrects_tuning else "dev_features.npz"
    with np.load(options.eval / name) as features, (options.eval / "dev_labels.csv").open(newline="") as labels:
        rows = [row for row in csv.DictReader(labels) if row["id"] in features]
        tracks = [features[row["id"]] for row in rows]
    truth = np.array([Key.parse(row["key"]).index for row in rows])
    predictions = predict(checkpoint, tracks, keys, options.windows)
    found, confidence = predictions.answers, predictions.probabilities.max(axis=1)
    right_key = predictions.probabilities[np.arange(len(truth)), truth]
    expected = (predictions.probabilities * np.array([possible_points(index) for index in truth])).sum(axis=1)
    sources = np.array([row["source"] for row in rows])
    report: dict[str, dict[str, Any]] = {}
    for source in ["all", *sorted(set(sources))]:
        chosen = np.full(len(rows), True) if source == "all" else sources == source
        values: dict[str, Any] = {
            metric: round(100 * value, 1) for metric, value in scores(truth[chosen], found[chosen]).items()
        }
        points = track_points(truth[chosen], found[chosen])
        low, high = interval(points[:, 0])
        ksea_low, ksea_high = interval(points[:, 3])
        report[source] = {"tracks": int(chosen.sum()), **values}
        report[source] |= {"expected_mirex": round(100 * float(expected[chosen].mean()), 1)}
        report[source] |= {"loss": round(float(-np.log(right_key[chosen].clip(MIN_PROBABILITY)).mean()), 3)}
        report[source] |= {"mirex_95": [round(100 * low, 1), round(100 * high, 1)]}
        report[source] |= {"ksea_95": [round(100 * ksea_low, 1), round(100 * ksea_high, 1)]}
    if options.windows:
        right = found == truth
        confident = confidence > CONFIDENT
        report["confidence"] = {
            "expected_calibration_error": round(calibration_error(confidence, right), 3),
            "answers_above_0.8": int(confident.sum()),
            "right_of_those": round(float(right[confident].mean()), 3) if confident.any() else None,
            "rejected": int(predictions.rejected.sum()),
            "reliability": [tuple(round(value, 2) for value in row) for row in reliability(confidence, right)],
        }
        if options.plot:
            draw_reliability(reliability(confidence, right), options.plot)
    if options.windows and options.transposed:
        accepted = ~predictions.rejected
        for kind in ("pitch", "tape"):
            agrees = equivariant(checkpoint, tracks, keys, found, kind == "tape")
            likely = accepted & (confidence >= LIKELY)
            report[f"transposed, {kind}"] = {
                "equivariance": round(float(agrees[:, accepted].mean()), 4),
                "answers_from_0.5": int(likely.sum()),
                "equivariance_of_those": round(float(agrees[:, likely].mean()), 4),
                "by_step": dict(zip(STEPS, agrees[:, accepted].mean(axis=1).round(3).tolist(), strict=True)),
            }
    if options.json:
        print(json.dumps(report))
        return
    for source, values in report.items():
        print(source.ljust(22), "  ".join(f"{metric} {value}" for metric, value in values.items()))


if __name__ == "__main__":
    main()
