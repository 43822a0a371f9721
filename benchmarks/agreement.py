"""Compare the fast analysis with the reference: ``python benchmarks/agreement.py CHECKPOINT FOLDER...``.

Analyzes every music file twice: as ``stone`` does, and by the reference path (soxr HQ to 22.05 kHz, the VQT that the
network was trained with, soxr MQ for the tuning). Prints how many keys are equal, and by how much the probabilities
differ. Needs the extra ``train``.
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


def straightforward(path: Path, model: KeyModel) -> KeyEstimate:
    """The key of the recording, resampled by soxr alone: to the model's rate with HQ, for the tuning with MQ."""
    with mock.patch.object(resampling, "MIN_RATIO", math.inf):
        return detect_key_in_audio(read_audio(path, model.info.sample_rate), model, model.info.sample_rate)


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--most", type=int, help="this many files, chosen at random")
    parser.add_argument("--work", type=Path, default=Path("/tmp"), help="where the two models go")  # noqa: S108
    options = parser.parse_args()
    plain_path, fast_path = options.work / "straightforward.onnx", options.work / "fast.onnx"
    export_straightforward(options.checkpoint, plain_path)
    export_checkpoint(options.checkpoint, fast_path)
    plain, fast = KeyModel(plain_path, "cpu"), KeyModel(fast_path, "cpu")
    files = [finding.path for finding in find_music(options.folders) if finding.error is None]
    if options.most and options.most < len(files):
        files = random.Random(0).sample(files, options.most)
    equal, distances, cents = 0, [], []
    for path in files:
        try:
            one, other = straightforward(path, plain), detect_key(path, fast)
        except StoneError as error:
            print(f"{path}: {error}")
            continue
        distance = float(np.abs(one.probabilities - other.probabilities).max())
        distances.append(distance)
        equal += one.key == other.key
        if one.tuning_cents is not None and other.tuning_cents is not None:
            cents.append(abs((one.tuning_cents - other.tuning_cents + 50) % 100 - 50))
        if one.key != other.key or distance > 0.02:
            print(f"{path}: {one.key} {one.confidence:.3f}, {other.key} {other.confidence:.3f}, {distance:.3f} apart")
    print(
        f"{len(distances)} files: {equal / len(distances):.2%} equal keys; probabilities apart: mean "
        f"{np.mean(distances):.4f}, 99 % below {np.quantile(distances, 0.99):.4f}, most {max(distances):.4f}; "
        f"tuning apart: mean {np.mean(cents):.2f}, most {max(cents):.2f} cents"
    )


if __name__ == "__main__":
    main()
