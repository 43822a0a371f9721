"""Trained checkpoint -> one whose confidence means something.

    python -m train.calibrate CKPT.pt --labels RENDERS/labels.csv --out CALIBRATED.pt

Renderings that training never heard (``train.corpus.render --held-out``) give the temperature at which the probability
of the answer, averaged over a track's windows, is as often right as it says (temperature scaling: Guo et al., *On
Calibration of Modern Neural Networks*, ICML 2017, section 4.2); and the confidence below which an answer is "no key",
from the tracks among them that have none. Neither changes which key comes first in a window.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from stonecli.errors import StoneError
from stonecli.key import Key
from stonecli.metrics import calibration_error
from train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from train.chromanet import average_frames
from train.data import cut, read_labels

TEMPERATURES = np.exp(np.linspace(np.log(0.2), np.log(3.0), 55))
REFUSED = 0.001  # share of the renderings with a key that may be refused one; of recordings it is some ten times that

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Calibration:
    """What was found.

    Attributes:
        temperature: by which the logits are divided.
        least_confidence: below which there is no key.
        error: expected calibration error on the tracks with a key, 0..1.
        keyless_refused: share of the tracks without a key that are below ``least_confidence``; None without any.
    """

    temperature: float
    least_confidence: float
    error: float
    keyless_refused: float | None


def window_logits(checkpoint: Checkpoint, features: npt.NDArray[np.uint8]) -> Floats:
    """Logits of a track's windows at temperature 1, float32 [windows, classes]; cut as ``stonecli.detect`` does.

    Args:
        checkpoint: of the network.
        features: uint8 [frames, bins] of ``train.features``.
    """
    network = checkpoint.network()
    size = int(checkpoint.window_seconds * checkpoint.vqt.sample_rate) // checkpoint.vqt.hop_length + 1
    count = max(1, len(features) // size)
    windows = np.stack([cut(features, number * size, size) for number in range(count)])
    level = torch.from_numpy(windows[:, :, : checkpoint.chromanet.n_bins].astype(np.float32) / 255.0).transpose(1, 2)
    with torch.inference_mode():
        logits = network.logits(average_frames(level, checkpoint.frames_averaged)[:, None])
    scaled: Floats = (logits * checkpoint.chromanet.temperature).numpy()
    return scaled


def confidences(logits: Sequence[Floats], temperature: float) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Probability and place of the answer for each track, float32 [tracks] and int64 [tracks]."""
    means = np.array(
        [functional.softmax(torch.from_numpy(rows) / temperature, dim=-1).mean(dim=0).numpy() for rows in logits]
    )
    return means.max(axis=1), means.argmax(axis=1)


def calibrate(logits: Sequence[Floats], places: Sequence[int | None]) -> Calibration:
    """The temperature with the least Brier score of the answers, and the least confidence that goes with it.

    Args:
        logits: of each track's windows, float32 [windows, classes].
        places: of each track's key among the classes; None for a track without a key.

    Raises:
        StoneError: no track has a key.
    """
    tonal = [rows for rows, place in zip(logits, places, strict=True) if place is not None]
    keyless = [rows for rows, place in zip(logits, places, strict=True) if place is None]
    truth = np.array([place for place in places if place is not None])
    if not tonal:
        raise StoneError("no tracks with a key to calibrate on")

    def brier(temperature: float) -> float:
        confidence, answer = confidences(tonal, temperature)
        return float(((confidence - (answer == truth)) ** 2).mean())

    temperature = min(TEMPERATURES.tolist(), key=brier)
    confidence, answer = confidences(tonal, temperature)
    least = float(np.quantile(confidence, REFUSED))
    refused = float((confidences(keyless, temperature)[0] < least).mean()) if keyless else None
    error = calibration_error(confidence.astype(np.float64), answer == truth)
    return Calibration(temperature, least if keyless else 0.0, error, refused)


def main(arguments: Sequence[str]) -> int:
    """Exit code after writing the calibrated checkpoint."""
    parser = argparse.ArgumentParser(prog="python -m train.calibrate", description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--labels", type=Path, required=True, help="CSV of held-out renderings")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--licence", default=None)
    parser.add_argument("--trained-on", default=None, help="one line for the model card")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        checkpoint = load_checkpoint(options.checkpoint)
        if checkpoint.classes is None or checkpoint.chromanet.rows != 2:
            raise StoneError("only a model of 24 keys that was trained with labels can be calibrated")
        order = [Key.parse(name) for name in checkpoint.classes]
        labels = read_labels(options.labels)
        logits = [window_logits(checkpoint, np.load(path, allow_pickle=False)) for path, _ in labels]
        found = calibrate(logits, [order.index(key) if key else None for _, key in labels])
        save_checkpoint(
            replace(
                checkpoint,
                chromanet=replace(checkpoint.chromanet, temperature=found.temperature),
                least_confidence=found.least_confidence,
                licence=options.licence if options.licence is not None else checkpoint.licence,
                trained_on=options.trained_on if options.trained_on is not None else checkpoint.trained_on,
                state={},
            ),
            options.out,
        )
    except (StoneError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(found)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
