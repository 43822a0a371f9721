"""Calibrates the confidence of a trained checkpoint.

    python -m stonecli_train.calibrate CKPT.pt --labels RENDERS/labels.csv --recordings CACHE --out CALIBRATED.pt

Held-out renderings (``stonecli_train.corpus.render --held-out``) give two parameters. One is the temperature at which
the confidence, pooled over a track's windows, matches the accuracy (temperature scaling: Guo et al., *On Calibration
of Modern Neural Networks*, ICML 2017, section 4.2). The other is the rejection threshold for "no key", from the
renderings without a key; at most one unlabeled recording in a hundred may be below it. Neither changes the most likely
key of a window.

Training draws major and minor equally often (``data.balance_modes``), unlike music libraries. ``--major-odds`` gives
the prior odds of major in the intended library; ``stonecli.detection.pooling`` applies them once per recording.

Recordings are harder than renderings, and pooling many windows is more accurate than a single window of the same
confidence. Unlabeled recordings give the posterior exponent that corrects for this: the pooled key of a run of windows
is compared with that of all other windows of the same recording. The exponent is fitted so that the confidence matches
the share of agreement, as a function of the number of windows; ``stonecli.detection.pooling`` applies it. A recording
is weighted by the confidence of its other windows, because recordings that modulate give less evidence.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

try:
    import torch
except ModuleNotFoundError as error:
    if __name__ != "__main__":
        raise
    sys.exit(f"stonecli_train.calibrate needs {error.name}: pip install 'stonecli[train]'")
from torch import Tensor
from torch.nn import functional

from stonecli.detection.pooling import apply_exponent, pooled_posterior
from stonecli.errors import StoneError
from stonecli.evaluation.metrics import calibration_error
from stonecli.key import Key
from stonecli_train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from stonecli_train.chromanet import average_frames
from stonecli_train.data import cut, read_labels
from stonecli_train.errors import message
from stonecli_train.features import load_features

TEMPERATURES = np.exp(np.linspace(np.log(0.2), np.log(3.0), 55))
EXPONENTS = np.arange(0.4, 2.01, 0.025)
EXPONENTS_PER_DOUBLING = np.arange(0.0, 1.01, 0.05)
RUNS = (1, 2, 4)  # lengths of runs of consecutive windows
RUNS_PER_RECORDING = 6  # of each length
OTHERS = 4  # minimum number of other windows to compare with
MAX_WINDOWS = 50  # maximum per recording
MIN_PROBABILITY = 1e-6  # lower limit of a probability, so that the logarithmic score stays finite
MAX_REJECTED = 0.001  # maximum share of renderings with a key to reject
MAX_RECORDINGS_REJECTED = 0.01  # of unlabeled recordings: they are less certain than renderings, and some have no key
MIN_CONFIDENCE = 1.2  # times the uniform probability: an answer below that is always rejected
MAX_NO_KEY_REJECTED = 0.96  # maximum share rejected of the tracks without a key: more would reject more music

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Calibration:
    """Result of :func:`calibrate`.

    Attributes:
        temperature: divisor of the logits.
        rejection_threshold: rejection threshold of the largest mean probability over the windows.
        error: expected calibration error on the tracks with a key, 0..1.
        no_key_rejected: share of the tracks without a key below ``rejection_threshold``; None if there are none.
    """

    temperature: float
    rejection_threshold: float
    error: float
    no_key_rejected: float | None


def window_frames(checkpoint: Checkpoint) -> int:
    """VQT frames in a window of the checkpoint."""
    return int(checkpoint.window_seconds * checkpoint.vqt.sample_rate) // checkpoint.vqt.hop_length + 1


def window_lengths(frames: int, size: int) -> list[int]:
    """Frames of each window of a track as ``stonecli.detection.detect`` splits it: the last one is longer."""
    count = max(1, frames // size)
    return [size] * (count - 1) + [frames - (count - 1) * size]


def window_logits(checkpoint: Checkpoint, features: npt.NDArray[np.uint8]) -> Floats:
    """Logits of a track's windows at temperature 1, float32 [windows, classes].

    Args:
        checkpoint: the trained network and its window length.
        features: uint8 [frames, bins] of ``stonecli_train.features``.
    """
    network = checkpoint.network()
    with torch.inference_mode():
        logits = [network.logits(window)[0] for window in windows(checkpoint, features)]
        stacked: Floats = (torch.stack(logits) * checkpoint.chromanet.temperature).numpy()
    return stacked


def windows(checkpoint: Checkpoint, features: npt.NDArray[np.uint8]) -> Iterator[Tensor]:
    """Network input of each window of a track, float32 [1, 1, bins, frames]; ``features`` as above."""
    lengths = window_lengths(len(features), window_frames(checkpoint))
    min_frames = checkpoint.chromanet.min_frames * checkpoint.frames_averaged
    level = features[:, : checkpoint.chromanet.n_bins].astype(np.float32).T / np.float32(255.0)
    for window in np.split(level, np.cumsum(lengths)[:-1], axis=1):
        whole = cut(window.T, 0, max(min_frames, window.shape[1])).T
        averaged = average_frames(torch.from_numpy(np.ascontiguousarray(whole)), checkpoint.frames_averaged)
        yield averaged[None, None]


def confidences(logits: Sequence[Floats], temperature: float) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Confidence and class index of the prediction for each track, float32 [tracks] and int64 [tracks]."""
    means = np.array([_pooled(_probabilities(rows, temperature)) for rows in logits])
    return means.max(axis=1), means.argmax(axis=1)


def _probabilities(logits: Floats, temperature: float) -> Floats:
    softmax: Floats = functional.softmax(torch.from_numpy(logits) / temperature, dim=-1).numpy()
    return softmax


def _mean_probabilities(logits: Sequence[Floats], temperature: float) -> Floats:
    """Largest mean probability of each track, float32 [tracks]: compared with the rejection threshold."""
    return np.array([_probabilities(rows, temperature).mean(axis=0).max() for rows in logits], dtype=np.float32)


def _pooled(windows: Floats) -> Floats:
    return pooled_posterior(windows, np.ones(len(windows)))


@dataclass(frozen=True)
class Exponents:
    """Posterior exponents for ``stonecli.detection.pooling``.

    Attributes:
        exponent: posterior exponent for one window.
        per_doubling: increment of the exponent per doubling of the number of windows.
        agreement: share of the runs of windows with the same key as the rest of the recording, 0..1.
        error: expected calibration error of the runs, with agreement as the truth.
    """

    exponent: float
    per_doubling: float
    agreement: float
    error: float


def fit_exponents(recordings: Iterable[Floats], temperature: float) -> Exponents:
    """Fit the exponents by the logarithmic score of runs of windows, with the rest of the recording as the truth.

    Unlike the Brier score, the logarithmic score penalizes confident errors most.

    Args:
        recordings: logits of the windows of each recording, float32 [windows, classes].
        temperature: temperature of the softmax.

    Raises:
        StoneError: no recording is long enough.
    """
    random = np.random.default_rng(0)
    means, lengths, agrees, weights = [], [], [], []
    for logits in recordings:
        windows = _probabilities(logits, temperature)
        for length in RUNS:
            for _ in range(RUNS_PER_RECORDING if len(windows) >= length + OTHERS else 0):
                start = int(random.integers(len(windows) - length + 1))
                rest = _pooled(np.delete(windows, range(start, start + length), axis=0))
                means.append(_pooled(windows[start : start + length]))
                lengths.append(length)
                agrees.append(means[-1].argmax() == rest.argmax())
                weights.append(rest.max())
    if not means:
        raise StoneError(f"no recording has the {RUNS[0] + OTHERS} windows that this calibration needs")
    doublings, right, weight = np.log2(lengths), np.array(agrees), np.array(weights, dtype=np.float64)

    def confidence(powers: tuple[float, float]) -> Floats:
        largest: Floats = apply_exponent(np.array(means), (powers[0] + powers[1] * doublings)[:, None]).max(axis=1)
        return largest

    best = min(
        itertools.product(EXPONENTS.tolist(), EXPONENTS_PER_DOUBLING.tolist()),
        key=lambda powers: -float((weight * np.log(np.abs(confidence(powers) - ~right).clip(MIN_PROBABILITY))).sum()),
    )
    error = calibration_error(confidence(best).astype(np.float64), right)
    return Exponents(round(best[0], 2), round(best[1], 2), float(right.mean()), error)


def calibrate(
    logits: Sequence[Floats],
    classes: Sequence[int | None],
    temperature: float | None = None,
    recordings: Sequence[Floats] = (),
) -> Calibration:
    """Find the temperature with the lowest Brier score, and the rejection threshold for it.

    Args:
        logits: logits of the windows of each track, float32 [windows, classes].
        classes: class index of each track's key; None for a track without a key.
        temperature: the temperature to use; None for the one with the lowest Brier score.
        recordings: logits of the windows of unlabeled recordings, of which nearly all must stay above the threshold.

    Raises:
        StoneError: no track has a key.
    """
    tonal = [rows for rows, index in zip(logits, classes, strict=True) if index is not None]
    without_key = [rows for rows, index in zip(logits, classes, strict=True) if index is None]
    truth = np.array([index for index in classes if index is not None])
    if not tonal:
        raise StoneError("the labels have no track with a key, which calibration needs")

    def brier(temperature: float) -> float:
        confidence, answer = confidences(tonal, temperature)
        return float(((confidence - (answer == truth)) ** 2).mean())

    if temperature is None:
        temperature = min(TEMPERATURES.tolist(), key=brier)
    confidence, answer = confidences(tonal, temperature)
    error = calibration_error(confidence.astype(np.float64), answer == truth)
    if not without_key:
        return Calibration(temperature, 0.0, error, None)
    no_key_means = _mean_probabilities(without_key, temperature)
    limits = [
        float(np.quantile(_mean_probabilities(tonal, temperature), MAX_REJECTED)),
        float(np.quantile(no_key_means, MAX_NO_KEY_REJECTED, method="higher")),
    ]
    if recordings:
        limits.append(float(np.quantile(_mean_probabilities(recordings, temperature), MAX_RECORDINGS_REJECTED)))
    threshold = max(min(limits), MIN_CONFIDENCE / without_key[0].shape[1])
    return Calibration(temperature, threshold, error, float((no_key_means < threshold).mean()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m stonecli_train.calibrate", description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path, help="checkpoint of stone train with 24 keys")
    parser.add_argument("--labels", type=Path, required=True, help="CSV with the labels of held-out renderings")
    parser.add_argument("--out", type=Path, required=True, help="write the calibrated checkpoint to this file")
    parser.add_argument(
        "--recordings",
        type=Path,
        metavar="FOLDER",
        help="cached features (.npy) of unlabeled recordings, for the posterior exponent and the rejection threshold",
    )
    parser.add_argument(
        "--window-seconds", type=float, help="window length of the model in seconds (default: that of the training)"
    )
    parser.add_argument(
        "--dense-blocks", type=int, help="number of blocks at the end with stride 1 (default: that of the training)"
    )
    parser.add_argument(
        "--temperature", type=float, help="temperature of the softmax (default: the one that fits the renderings best)"
    )
    parser.add_argument("--major-odds", type=float, default=1.0, help="prior odds of major against minor (default: 1)")
    parser.add_argument("--license", default=None, help="license of the weights (default: that of the checkpoint)")
    parser.add_argument("--trained-on", default=None, help="one line for the model card (default: as trained)")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Exit code after writing the calibrated checkpoint."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(1)
    try:
        checkpoint = load_checkpoint(options.checkpoint)
        if options.window_seconds is not None:
            checkpoint = replace(checkpoint, window_seconds=options.window_seconds)
        if options.dense_blocks is not None:
            chromanet = replace(checkpoint.chromanet, dense_blocks=options.dense_blocks)
            checkpoint = replace(checkpoint, chromanet=chromanet)
        if checkpoint.classes is None or checkpoint.chromanet.rows != 2:
            raise StoneError("only a model of 24 keys that was trained with labels (ks_mode) can be calibrated")
        order = [Key.parse(name) for name in checkpoint.classes]
        bins = checkpoint.vqt.n_bins
        labels = labeled_features(options.labels, bins)
        features = recorded_features(options.recordings, bins) if options.recordings else []
        logits = [window_logits(checkpoint, load_features(path, bins)) for path, _ in labels]
        classes = [order.index(key) if key else None for _, key in labels]
        recordings = [window_logits(checkpoint, load_first_windows(path, checkpoint)) for path in features]
        calibration = calibrate(logits, classes, options.temperature, recordings)
        unchanged = Exponents(1.0, 0.0, float("nan"), float("nan"))
        exponents = fit_exponents(recordings, calibration.temperature) if options.recordings else unchanged
        save_checkpoint(
            replace(
                checkpoint,
                major_prior_odds=options.major_odds,
                posterior_exponent=exponents.exponent,
                exponent_per_doubling=exponents.per_doubling,
                chromanet=replace(checkpoint.chromanet, temperature=calibration.temperature),
                rejection_threshold=calibration.rejection_threshold,
                license=options.license if options.license is not None else checkpoint.license,
                trained_on=options.trained_on if options.trained_on is not None else checkpoint.trained_on,
                state={},
            ),
            options.out,
        )
    except (StoneError, OSError, ValueError) as error:
        print(message(error), file=sys.stderr)
        return 1
    print(calibration, *([exponents] if options.recordings else []), sep="\n")
    return 0


def labeled_features(labels: Path, bins: int) -> list[tuple[Path, Key | None]]:
    """The rows of a CSV, as from ``read_labels``, after checking that each file contains features.

    Raises:
        DataError: the labels are invalid.
        AudioError: a row's file does not contain features of ``bins`` bins.
        OSError: a file cannot be read.
    """
    rows = read_labels(labels)
    for path, _ in rows:
        load_features(path, bins)
    return rows


def recorded_features(folder: Path, bins: int) -> list[Path]:
    """The .npy files in ``folder`` sorted by name, after checking that each contains features.

    Raises:
        StoneError: the folder does not exist, or has no .npy files.
        AudioError, OSError: as :func:`labeled_features`.
    """
    paths = sorted(folder.glob("*.npy"))
    if not paths:
        raise StoneError(f"{folder}: " + ("the folder has no .npy files" if folder.is_dir() else "no such folder"))
    for path in paths:
        load_features(path, bins)
    return paths


def load_first_windows(path: Path, checkpoint: Checkpoint) -> npt.NDArray[np.uint8]:
    """The first windows of the features at ``path``, uint8 [frames, bins]; errors as ``load_features``."""
    return load_features(path, checkpoint.vqt.n_bins)[: MAX_WINDOWS * window_frames(checkpoint)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
