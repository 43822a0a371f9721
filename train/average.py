"""Averages the weights of checkpoints with the same architecture.

    python -m stonecli_train.average A.pt B.pt --out MEAN.pt

A checkpoint that is given twice has twice the weight.

The weights of one run are in one flat region of the loss, and their mean is closer to its center (Izmailov et al.,
*Averaging Weights Leads to Wider Optima and Better Generalization*, UAI 2018). The same holds for runs that were
fine-tuned from one checkpoint (Wortsman et al., *Model soups*, ICML 2022), but not for runs from random weights.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

try:
    import torch
except ModuleNotFoundError as error:
    if __name__ != "__main__":
        raise
    sys.exit(f"stonecli_train.average needs {error.name}: pip install 'stonecli[train]'")

from stonecli.errors import StoneError
from stonecli_train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from stonecli_train.errors import message


def average(checkpoints: Sequence[Checkpoint]) -> Checkpoint:
    """The last checkpoint with the mean of all weights, and without the state for resuming.

    Raises:
        StoneError: there are no checkpoints, or they have different architectures.
    """
    if not checkpoints:
        raise StoneError("there are no checkpoints to average")
    last = checkpoints[-1]
    # Calibration sets the temperature, and dense_blocks does not change the weights: neither has to agree.
    kinds = [(replace(each.chromanet, temperature=1.0, dense_blocks=0), each.vqt, each.classes) for each in checkpoints]
    if any(kind != kinds[-1] for kind in kinds):
        raise StoneError("the checkpoints have different architectures or classes and cannot be averaged")
    weights = {}
    for name, tensor in last.weights.items():
        stacked = torch.stack([each.weights[name] for each in checkpoints])
        weights[name] = stacked.mean(dim=0) if tensor.dtype.is_floating_point else tensor
    return replace(last, weights=weights, state={})


def main(arguments: Sequence[str]) -> int:
    """Exit code after writing the average."""
    parser = argparse.ArgumentParser(prog="python -m stonecli_train.average", description=__doc__.split("\n")[0])
    parser.add_argument("checkpoints", type=Path, nargs="+", help="checkpoints of stone train")
    parser.add_argument("--out", type=Path, required=True, help="write the averaged checkpoint to this file")
    options = parser.parse_args(arguments)
    try:
        save_checkpoint(average([load_checkpoint(path) for path in options.checkpoints]), options.out)
    except (StoneError, OSError) as error:
        print(message(error), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
