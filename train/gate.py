"""A checkpoint, and sounds with and without a key -> it with a gate: python -m train.gate A.pt ... --out B.pt

A network of keys names one for any pitch that is loud, be it of a drum; taught otherwise, it is worse at keys. So the
network stays as it is, and a ``TonalGate`` of its blocks is fitted to tell music from drums, noise and speech: a
logistic regression with one hidden layer, each kind weighing half. Recordings without labels count as music where the
checkpoint itself is sure of their key; without them, one in twenty is taken for a drum: renderings sound different.
Then it is opened as far as nearly all music needs: half open, it would weigh windows by what is no matter of keys.
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
from torch import Tensor
from torch.nn import functional

from stonecli.errors import StoneError
from train.calibrate import beginning, windows
from train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from train.chromanet import ChromaNet, TonalGate, block_levels
from train.data import read_labels

WIDTH = 16
SURE = 0.45  # mean probability over a recording's windows from which on it is music in a key
STEPS, ROWS, LEARNING_RATE, WEIGHT_DECAY = 2000, 512, 3e-3, 0.1
DROPOUT = 0.1
TARGETS = (0.01, 0.99)  # no label is certain
HELD_BACK = 0.001  # share of the windows with a key that may be below 0.5; what is near it wavers between keys

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Fit:
    """What was found, on the windows that it was fitted to.

    Attributes:
        gate: in evaluation mode.
        tonal: share of the windows with a key that are above 0.5.
        keyless: share of the windows without one that are below.
    """

    gate: TonalGate
    tonal: float
    keyless: float


def window_levels(network: ChromaNet, checkpoint: Checkpoint, features: npt.NDArray[np.uint8]) -> tuple[Floats, float]:
    """``block_levels`` of each window of a track, float32 [windows, n], and its largest mean probability, 0..1.

    Args:
        network: of the checkpoint; not changed.
        checkpoint: says how long windows are.
        features: uint8 [frames, bins] of ``train.features``.
    """
    levels, heard = [], []
    with torch.inference_mode():
        for window in windows(checkpoint, features):
            outputs = network.blocks(window)
            levels.append(block_levels(outputs)[0])
            heard.append(functional.softmax(network.logits_of(outputs), dim=-1)[0])
        most = float(torch.stack(heard).mean(dim=0).max())
        return torch.stack(levels).numpy(), most


def fit(tonal: Floats, keyless: Floats, seed: int = 0) -> Fit:
    """The gate that tells the one from the other; the same again for the same ``seed``.

    Args:
        tonal, keyless: levels of windows with and without a key, float32 [windows, n].
        seed: of the first weights, the order and what is dropped.

    Raises:
        StoneError: there is nothing of one kind.
    """
    if not len(tonal) or not len(keyless):
        raise StoneError("a gate needs windows with a key and windows without one")
    both = torch.from_numpy(np.concatenate([tonal, keyless]))
    is_tonal = torch.arange(len(both)) < len(tonal)
    low, high = TARGETS
    target = torch.where(is_tonal, high, low)
    weight = torch.where(is_tonal, 0.5 / len(tonal), 0.5 / len(keyless)) * len(both)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        gate = TonalGate(both.shape[1], WIDTH)
        gate.mean.copy_(both.mean(dim=0))
        gate.deviation.copy_(both.std(dim=0, correction=0) + 1e-4)
        optimiser = torch.optim.AdamW(gate.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        for _ in range(STEPS):
            rows = torch.randint(len(both), (ROWS,))
            score = gate.score(_dropped(both[rows], gate.mean))[:, 0]
            loss = functional.binary_cross_entropy_with_logits(score, target[rows], weight[rows])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    with torch.inference_mode():
        passing = gate.eval().score(both[is_tonal])[:, 0].numpy()
        gate.out.bias.add_(max(0.0, -float(np.quantile(passing, HELD_BACK))))
        opened = gate(both)[:, 0] > 0.5
    return Fit(gate, float(opened[is_tonal].float().mean()), float((~opened[~is_tonal]).float().mean()))


def _dropped(levels: Tensor, mean: Tensor) -> Tensor:
    """Some levels put to their mean: the gate must not lean on one of them."""
    return torch.where(torch.rand_like(levels) < DROPOUT, mean, levels)


def with_gate(checkpoint: Checkpoint, gate: TonalGate) -> Checkpoint:
    """The checkpoint with the gate, instead of one that it had."""
    weights = checkpoint.without_gate().weights
    weights |= {f"gate.{name}": value.detach().clone() for name, value in gate.state_dict().items()}
    config = replace(checkpoint.chromanet, gate_channels=gate.hidden.out_features)
    return replace(checkpoint, chromanet=config, weights=weights, state={})


def main(arguments: Sequence[str]) -> int:
    """Exit code after writing the checkpoint with a gate."""
    parser = argparse.ArgumentParser(prog="python -m train.gate", description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path, help="calibrated, for its own certainty counts")
    parser.add_argument("--labels", type=Path, required=True, help="CSV of renderings, some of them without a key")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--recordings",
        type=Path,
        metavar="FOLDER",
        help="of .npy features, as training caches them, of unlabelled recordings",
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        checkpoint = load_checkpoint(options.checkpoint).without_gate()
        network = checkpoint.network()
        tonal: list[Floats] = []
        keyless: list[Floats] = []
        for path, key in read_labels(options.labels):
            levels, _ = window_levels(network, checkpoint, np.load(path, allow_pickle=False))
            (tonal if key else keyless).append(levels)
        sure = 0
        for path in sorted(options.recordings.glob("*.npy")) if options.recordings else []:
            levels, most = window_levels(network, checkpoint, beginning(path, checkpoint))
            if most > SURE:
                tonal.append(levels)
                sure += 1
        empty = np.zeros((0, 1), dtype=np.float32)
        found = fit(np.concatenate(tonal or [empty]), np.concatenate(keyless or [empty]), options.seed)
        save_checkpoint(with_gate(checkpoint, found.gate), options.out)
    except (StoneError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{found.tonal:.3f} of the windows with a key pass, {found.keyless:.3f} of those without are held back")
    if options.recordings:
        print(f"{sure} recordings counted as music")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
