"""Compare the fast analysis with the reference: ``python benchmarks/agreement.py CHECKPOINT FOLDER...``.

Analyzes every music file twice: as ``stone`` does, and by the reference path (soxr HQ to 22.05 kHz, the VQT that the
network was trained with, soxr MQ for the tuning). Prints the share of equal keys, and the differences of the
probabilities. Needs the extra ``train``.
"""

from __future__ import annotations

import argparse
import math
import random
from pathlib import Path
from unittest import mock

import numpy as np

from stonecli.audio import resample as resampling
from stonecli.audio.decode import read_audio
from stonecli.detection.detect import detect_key, detect_key_in_audio
from stonecli.detection.estimate import KeyEstimate
from stonecli.errors import StoneError
from stonecli.library.walk import find_music
from stonecli.model.session import KeyModel
from stonecli_export.onnx_file import export_checkpoint, export_straightforward


def detect_straightforward(path: Path, model: KeyModel) -> KeyEstimate:
    """The estimate for the recording, resampled by soxr alone: HQ for the model, MQ for the tuning."""
    with mock.patch.object(resampling, "MIN_RATIO", math.inf):
        return detect_key_in_audio(read_audio(path, model.info.sample_rate), model, model.info.sample_rate)


def main() -> None:
    """Print the files whose key differs, and a summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--max-files", type=int, metavar="N", help="only N files, drawn at random")
    parser.add_argument("--work", type=Path, default=Path("/tmp"), help="folder for the two exported models")  # noqa: S108
    options = parser.parse_args()
    plain_path, fast_path = options.work / "straightforward.onnx", options.work / "fast.onnx"
    export_straightforward(options.checkpoint, plain_path)
    export_checkpoint(options.checkpoint, fast_path)
    plain, fast = KeyModel(plain_path, "cpu"), KeyModel(fast_path, "cpu")
    files = [finding.path for finding in find_music(options.folders) if finding.error is None]
    if options.max_files and options.max_files < len(files):
        files = random.Random(0).sample(files, options.max_files)
    equal, distances, cents = 0, [], []
    for path in files:
        try:
            one, other = detect_straightforward(path, plain), detect_key(path, fast)
        except StoneError as error:
            print(f"{path}: {error}")
            continue
        distance = float(np.abs(one.probabilities - other.probabilities).max())
        distances.append(distance)
        equal += one.key == other.key
        if one.tuning_cents is not None and other.tuning_cents is not None:
            cents.append(abs((one.tuning_cents - other.tuning_cents + 50) % 100 - 50))
        if one.key != other.key or distance > 0.02:
            keys = f"{one.key} {one.confidence:.3f}, {other.key} {other.confidence:.3f}"
            print(f"{path}: {keys}, largest difference {distance:.3f}")
    print(
        f"{len(distances)} files: {equal / len(distances):.2%} equal keys; difference of the probabilities: mean "
        f"{np.mean(distances):.4f}, 99 % below {np.quantile(distances, 0.99):.4f}, maximum {max(distances):.4f}; "
        f"difference of the tuning: mean {np.mean(cents):.2f}, maximum {max(cents):.2f} cents"
    )


if __name__ == "__main__":
    main()
