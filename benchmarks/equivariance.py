"""Measure the transposition equivariance of checkpoints, as ``robustness.py`` does for models, but on features.

    python benchmarks/equivariance.py CKPT.pt ... --labels LABELS.csv --music FOLDER --cache FOLDER

The middle minute of the recordings in LABELS.csv and of ``--tracks`` others in FOLDER (with 40, the 47 of the model
card), and of up to ``--others`` more, is transposed as by a tape (with its speed) by -5, -2, 3 and 6 semitones. The
rejection threshold is not applied, so this measures the network alone. The features are stored in the cache; all
checkpoints have to use the same features.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soxr
import torch
from dev_features import class_keys, predict
from robustness import RATE, middle

from stonecli.errors import StoneError
from stonecli.library.walk import find_music
from stonecli_export.published import read_checkpoint
from stonecli_train.checkpoint import Checkpoint
from stonecli_train.features import save_atomically, track_features

STEPS = (0, -5, -2, 3, 6)  # semitones

Features = npt.NDArray[np.uint8]


def transposed_features(path: Path, checkpoint: Checkpoint, cache: Path) -> list[Features]:
    """Features of the middle minute, uint8 [frames, bins], for each of ``STEPS``; empty if it cannot be decoded."""
    config = checkpoint.vqt
    name = hashlib.sha256(f"{path.resolve()} {path.stat().st_mtime_ns} {STEPS} {config}".encode()).hexdigest()[:32]
    entries = [cache / f"{name}_{step}.npy" for step in STEPS]
    if not all(entry.is_file() for entry in entries):
        try:
            samples = middle(path)
            for step, entry in zip(STEPS, entries, strict=True):
                rate = RATE * 2.0 ** (step / 12.0)
                played = soxr.resample(samples, rate, config.sample_rate, quality="HQ")
                save_atomically(entry, track_features(played, config, checkpoint.corrects_tuning))
        except StoneError:
            return []
    return [np.load(entry, allow_pickle=False) for entry in entries]


def equivariance(checkpoint: Checkpoint, recordings: list[list[Features]]) -> float:
    """Share of the transpositions after which the answer is transposed by the same interval, 0..1."""
    keys = class_keys(checkpoint)
    agrees = []
    for versions in recordings:
        untouched, *others = predict(checkpoint, [version.T for version in versions], keys).answers.tolist()
        for step, answer in zip(STEPS[1:], others, strict=True):
            agrees.append(answer == (untouched + step) % 12 + untouched // 12 * 12)
    return float(np.mean(agrees))


def main() -> None:
    """Print one line per checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--labels", type=Path, required=True, help="CSV with the column path")
    parser.add_argument("--music", type=Path, required=True, help="folder of other music")
    parser.add_argument("--tracks", type=int, default=40, help="tracks of --music for the first score (default: 40)")
    parser.add_argument("--others", type=int, default=141, help="those for the second score (default: 141)")
    parser.add_argument("--cache", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)

    with options.labels.open(newline="", encoding="utf-8") as file:
        first = [options.labels.parent / row["path"] for row in csv.DictReader(file)]
    music = [finding.path for finding in find_music([options.music]) if finding.error is None]
    first += music[:: max(1, len(music) // options.tracks)][: options.tracks]
    rest = [path for path in music if path not in set(first)]
    second = rest[:: max(1, len(rest) // options.others)][: options.others]

    checkpoints = [read_checkpoint(path) for path in options.checkpoints]
    with ProcessPoolExecutor() as executor:
        of_file = partial(transposed_features, checkpoint=checkpoints[0], cache=options.cache)
        found = [[each for each in executor.map(of_file, paths) if each] for paths in (first, second)]
    for path, checkpoint in zip(options.checkpoints, checkpoints, strict=True):
        shares = [f"{equivariance(checkpoint, recordings):.1%} of {len(recordings)}" for recordings in found]
        print(f"{path.name}: equivariance {', '.join(shares)} recordings", flush=True)


if __name__ == "__main__":
    main()
