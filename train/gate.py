"""Fits a tonality gate to a checkpoint.

    python -m stonecli_train.gate CALIBRATED.pt --labels RENDERS/labels.csv --recordings CACHE --out GATED.pt

A key network predicts a key for any loud pitch, even that of a drum, and training it not to do so reduces its accuracy.
So the network stays unchanged, and a ``TonalGate`` on its blocks is fitted to separate music from drums, noise and
speech: a logistic regression with one hidden layer, with equal weight for both classes. Recordings without labels count
as music if the checkpoint is confident of their key. Without such recordings in the training data, one recording in
twenty is rejected, because renderings sound different.

Half of the examples are shorter than a window, down to half a second; with whole windows only, one in five short pieces
of music is rejected. Some examples are augmented or band-limited as by a telephone. After fitting, the bias is raised
until nearly all windows of music pass, and the score is scaled up for sharper decisions: intermediate values would
weight windows by something other than their key.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

try:
    import torch
except ModuleNotFoundError as error:
    if __name__ != "__main__":
        raise
    sys.exit(f"stonecli_train.gate needs {error.name}: pip install 'stonecli[train]'")
from torch import Tensor
from torch.nn import functional

from stonecli.errors import StoneError
from stonecli_train.augment import augmented, band_limited
from stonecli_train.calibrate import labeled_features, load_first_windows, recorded_features, window_frames, windows
from stonecli_train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from stonecli_train.chromanet import ChromaNet, TonalGate, block_levels
from stonecli_train.errors import message
from stonecli_train.features import load_features

WIDTH = 32
STATISTICS: Literal[4] = 4  # of each channel
MIN_CONFIDENCE = 0.45  # minimum mean probability over a recording's windows to count as music in a key
SHORTEST_SECONDS = 0.6  # minimum length of the random pieces of each recording, at most one window
STEPS, ROWS, LEARNING_RATE, WEIGHT_DECAY = 4000, 512, 3e-3, 0.1
DROPOUT = 0.1
TARGETS = (0.01, 0.99)  # label smoothing
SCORE_SCALE = 3.0  # scale of the fitted score
RIDGE = 30.0  # regularization of the regression that adapts a gate; by cross-validation on 6,900 windows and pieces
MAX_BLOCKED = 0.001  # maximum share of the windows with a key that the gate blocks (below 0.5)

Floats = npt.NDArray[np.float32]
Features = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Levels:
    """Features of the sounds of one class.

    Attributes:
        windows: ``block_levels`` of whole windows, float32 [windows, n].
        pieces: the same for shorter pieces, float32 [pieces, n]; may be empty.
    """

    windows: Floats
    pieces: Floats


@dataclass(frozen=True)
class Fit:
    """A fitted gate, and its accuracy on the training windows.

    Attributes:
        gate: the gate, in evaluation mode.
        passed: share of the windows with a key that pass (above 0.5).
        blocked: share of the windows without a key that are blocked.
    """

    gate: TonalGate
    passed: float
    blocked: float


def window_levels(network: ChromaNet, checkpoint: Checkpoint, features: Features) -> tuple[Floats, float]:
    """``block_levels`` of each window of a track, float32 [windows, n], and its largest mean probability, 0..1.

    Args:
        network: the network of the checkpoint; not changed.
        checkpoint: gives the window length.
        features: uint8 [frames, bins] of ``stonecli_train.features``.
    """
    levels, predictions = [], []
    with torch.inference_mode():
        for window in windows(checkpoint, features):
            outputs = network.blocks(window)
            levels.append(block_levels(outputs, STATISTICS)[0])
            predictions.append(functional.softmax(network.logits_of(outputs), dim=-1)[0])
        largest = float(torch.stack(predictions).mean(dim=0).max())
        return torch.stack(levels).numpy(), largest


def pieces(checkpoint: Checkpoint, features: Features, random: np.random.Generator) -> Iterator[Features]:
    """Three random segments of a track, uint8 [frames, bins], with log-uniform lengths of at most one window.

    The first is unchanged, the second augmented as in training, the third band-limited as by a telephone.
    """
    shortest = window_frames(replace(checkpoint, window_seconds=SHORTEST_SECONDS))
    longest = max(shortest, window_frames(checkpoint))
    for change in (None, augmented, band_limited):
        length = int(np.exp(random.uniform(np.log(shortest), np.log(longest))))
        start = int(random.integers(max(1, len(features) - length + 1)))
        piece = features[start : start + length]
        yield piece if change is None else change(piece, random)


def fit(tonal: Levels, keyless: Levels, seed: int = 0) -> Fit:
    """Fit a gate; deterministic for a ``seed``.

    Args:
        tonal, keyless: levels of sounds with and without a key.
        seed: seed of the initial weights, the order and dropout.

    Raises:
        StoneError: one class has no windows.
    """
    if not len(tonal.windows) or not len(keyless.windows):
        raise StoneError("fitting a gate needs tracks with a key and tracks without one (key none)")
    groups = [tonal.windows, tonal.pieces, keyless.windows, keyless.pieces]
    levels = torch.from_numpy(np.concatenate(groups))
    sizes = torch.tensor([len(group) for group in groups])
    group_of = torch.repeat_interleave(torch.arange(4), sizes)
    low, high = TARGETS
    target = torch.where(group_of < 2, high, low)
    parts = (sizes.view(2, 2) > 0).sum(dim=1).repeat_interleave(2)  # non-empty groups per class: windows and pieces
    weight = (len(levels) / (2 * parts * sizes.clamp(min=1)))[group_of]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        gate = TonalGate(levels.shape[1], WIDTH)
        gate.mean.copy_(levels.mean(dim=0))
        gate.deviation.copy_(levels.std(dim=0, correction=0) + 1e-4)
        optimizer = torch.optim.AdamW(gate.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        for _ in range(STEPS):
            rows = torch.randint(len(levels), (ROWS,))
            score = gate.score(_dropped(levels[rows], gate.mean))[:, 0]
            loss = functional.binary_cross_entropy_with_logits(score, target[rows], weight[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    with torch.inference_mode():
        passing = gate.eval().score(torch.from_numpy(tonal.windows))[:, 0].numpy()
        gate.out.bias.add_(max(0.0, -float(np.quantile(passing, MAX_BLOCKED))))
        for weights in gate.out.parameters():
            weights.mul_(SCORE_SCALE)
        passed, falsely_passed = (gate(torch.from_numpy(levels.windows))[:, 0] > 0.5 for levels in (tonal, keyless))
    return Fit(gate, float(passed.float().mean()), float((~falsely_passed).float().mean()))


def adapted(gate: TonalGate, before: Floats, after: Floats) -> TonalGate:
    """A gate for a fine-tuned network, whose output for the levels ``after`` matches that of ``gate`` for ``before``.

    The hidden layer is fitted by ridge regression towards the old weights. This needs no labels, and keeps what the
    gate learned from thousands of sounds when only hundreds are available.

    Args:
        gate: the gate of the old network; not changed.
        before, after: ``block_levels`` of the same sounds by the old and the new network, float32 [sounds, n].
    """
    new = TonalGate(after.shape[1], gate.hidden.out_features).eval()
    new.load_state_dict(gate.state_dict())
    with torch.no_grad():
        new.mean.add_(torch.from_numpy((after - before).mean(axis=0)))
        inputs = new.standardized(torch.from_numpy(after))
        missing = gate.hidden(gate.standardized(torch.from_numpy(before))) - new.hidden(inputs)
        inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1).double()
        penalty = RIDGE * torch.eye(inputs.shape[1], dtype=torch.float64)
        change = torch.linalg.solve(inputs.T @ inputs + penalty, inputs.T @ missing.double()).float()
        new.hidden.weight.add_(change[:-1].T)
        new.hidden.bias.add_(change[-1])
    return new


class _Collector:
    """Collects the ``Levels`` of the sounds of one class."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint, self._network = checkpoint, checkpoint.network()
        self._random = np.random.default_rng(0)
        empty = np.zeros((0, STATISTICS * sum(checkpoint.chromanet.out_channels)), dtype=np.float32)
        self._windows, self._pieces = [empty], [empty]

    def add(self, features: Features, min_confidence: float = 0.0) -> bool:
        """Add a track if its largest mean probability is above ``min_confidence``; returns whether it was added."""
        levels, confidence = window_levels(self._network, self._checkpoint, features)
        if confidence <= min_confidence:
            return False
        self._windows.append(levels)
        for piece in pieces(self._checkpoint, features, self._random):
            self._pieces.append(window_levels(self._network, self._checkpoint, piece)[0])
        return True

    def levels(self) -> Levels:
        """Levels of all added tracks."""
        return Levels(np.concatenate(self._windows), np.concatenate(self._pieces))


def _dropped(levels: Tensor, mean: Tensor) -> Tensor:
    """Dropout of input levels, replaced by their mean."""
    return torch.where(torch.rand_like(levels) < DROPOUT, mean, levels)


def with_gate(checkpoint: Checkpoint, gate: TonalGate) -> Checkpoint:
    """The checkpoint with the gate, which replaces any earlier one."""
    weights = checkpoint.without_gate().weights
    weights |= {f"gate.{name}": value.detach().clone() for name, value in gate.state_dict().items()}
    config = replace(checkpoint.chromanet, gate_channels=gate.hidden.out_features, gate_statistics=STATISTICS)
    return replace(checkpoint, chromanet=config, weights=weights, state={})


def adapted_gate(origin: Checkpoint, checkpoint: Checkpoint, sounds: Sequence[Path]) -> TonalGate:
    """The gate of ``origin``, adapted to a ``checkpoint`` that was fine-tuned from it.

    Args:
        origin: the earlier checkpoint, with a gate.
        checkpoint: the fine-tuned checkpoint.
        sounds: .npy files with features, for which both gates should have the same output.

    Raises:
        StoneError: the origin has no gate for a network of this architecture.
        AudioError, OSError: a file does not contain features, or cannot be read.
    """
    gate, channels = origin.network().gate, checkpoint.chromanet.out_channels
    if gate is None or (origin.chromanet.out_channels, origin.chromanet.gate_statistics) != (channels, STATISTICS):
        raise StoneError("the checkpoint of --like has no gate for a network of this architecture")
    levels = []
    for each in (origin.without_gate(), checkpoint):
        collector = _Collector(each)  # draws the same pieces for both
        for path in sounds:
            collector.add(load_first_windows(path, each))
        levels.append(np.concatenate([collector.levels().windows, collector.levels().pieces]))
    return adapted(gate, *levels)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m stonecli_train.gate", description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path, help="calibrated checkpoint, which decides which recordings are music")
    parser.add_argument(
        "--labels", type=Path, required=True, help="CSV with the labels of renderings, some without a key (none)"
    )
    parser.add_argument("--out", type=Path, required=True, help="write the checkpoint with its gate to this file")
    parser.add_argument(
        "--recordings",
        type=Path,
        metavar="FOLDER",
        help="cached features (.npy) of unlabeled recordings, as more examples of music (default: none)",
    )
    parser.add_argument(
        "--like", type=Path, metavar="CKPT", help="adapt the gate of this earlier checkpoint (default: fit a new gate)"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed of the fit (default: 0)")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Exit code after writing the checkpoint with a gate."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(1)
    try:
        checkpoint = load_checkpoint(options.checkpoint).without_gate()
        tonal, keyless = _Collector(checkpoint), _Collector(checkpoint)
        bins = checkpoint.vqt.n_bins
        labels = labeled_features(options.labels, bins)
        recordings = recorded_features(options.recordings, bins) if options.recordings else []
        if options.like is not None:
            sounds = [path for path, _ in labels] + recordings
            origin = load_checkpoint(options.like)
            if origin.window_seconds != checkpoint.window_seconds:
                raise StoneError(f"{options.like.name} and {options.checkpoint.name} have different window lengths")
            gate = adapted_gate(origin, checkpoint, sounds)
            save_checkpoint(with_gate(checkpoint, gate), options.out)
            print(f"adapted the gate of {options.like.name} with {len(sounds)} sounds")
            return 0
        for path, key in labels:
            (tonal if key else keyless).add(load_features(path, bins))
        confident = 0
        for path in recordings:
            confident += tonal.add(load_first_windows(path, checkpoint), MIN_CONFIDENCE)
        found = fit(tonal.levels(), keyless.levels(), options.seed)
        save_checkpoint(with_gate(checkpoint, found.gate), options.out)
    except (StoneError, OSError, ValueError) as error:
        print(message(error), file=sys.stderr)
        return 1
    print(f"{found.passed:.3f} of the windows with a key pass, {found.blocked:.3f} of those without a key are blocked")
    if options.recordings:
        print(f"{confident} recordings counted as music")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
