"""Weights and audio by formula, for which ``golden_values/golden_network.npz`` holds what the original code computed.

The numbers were computed by the published code of STONE (deezer/stone: ChromaNet of 12 and of 24 classes, HarmonicVQT,
and the windows of its inference), with these weights, on these inputs. ``N/`` is 12 or 24, the number of classes:

- ``N/eval``, ``N/train``: probabilities of ``features()`` in evaluation, and in training without drop path.
- ``N/gradient_names``, ``N/gradient_norms``: norm of the gradient of each parameter of sum(w * train).
- ``vqt``: of the first 15 s of ``audio()``, every eighth frame.
- ``N/windows``, ``N/overlap``, ``N/short``: probabilities of its windows of 15 s, of those that overlap by half, and of
  its first 6.1 s alone.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stonecli_train.chromanet import ChromaNet, ChromaNetConfig

GOLDEN: dict[str, npt.NDArray[np.float32]] = dict(
    np.load(Path(__file__).parent / "golden_values" / "golden_network.npz")
)
RATE = 22050
CONFIGS = {
    "12": ChromaNetConfig(rows=1, normalization="affine", drop_path=0.0),
    "24": ChromaNetConfig(rows=2, normalization="plain", drop_path=0.0),
}


def network(classes: str) -> ChromaNet:
    """The published network with weights by formula."""
    made = ChromaNet(CONFIGS[classes])
    made.load_state_dict(weights(made.state_dict()))
    return made


def weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the shapes of ``state``, drawn in the order of their names."""
    rng = np.random.default_rng(12)
    found = {}
    for name in sorted(state):
        value = state[name]
        if not value.dtype.is_floating_point:
            found[name] = value.clone()
            continue
        drawn: npt.NDArray[Any] = rng.standard_normal(tuple(value.shape)).astype(np.float32)
        if name.endswith("running_var"):
            drawn = 0.5 + np.abs(drawn)
        elif name.endswith("norm.weight"):
            drawn = 1 + 0.1 * drawn
        elif name.endswith("gamma"):
            drawn = 0.3 * drawn
        elif name == "classifier.weight":
            drawn = 8 * drawn
        elif value.ndim > 1:
            drawn = drawn / np.float32(math.sqrt(value[0].numel()))
        else:
            drawn = 0.1 * drawn
        found[name] = torch.from_numpy(np.asarray(drawn, dtype=np.float32))
    return found


def features() -> Tensor:
    """Input of the network, float32 [4, 1, 84, 200]."""
    return torch.from_numpy(np.random.default_rng(3).random((4, 1, 84, 200), dtype=np.float32))


def audio() -> npt.NDArray[np.float32]:
    """Four chords of 10 s with noise, at ``RATE``, float32 with a peak of 1."""
    time = np.arange(40 * RATE) / RATE
    sound = np.zeros_like(time)
    for start, notes in ((0, (57, 61, 64)), (10, (50, 54, 57)), (20, (52, 56, 59)), (30, (45, 57, 64))):
        on = (time >= start) & (time < start + 10)
        for note in notes:
            pitch = 440 * 2 ** ((note - 69) / 12)
            for overtone in range(1, 6):
                decay = np.exp(-0.3 * (time - start).clip(0))
                sound += on * np.sin(2 * np.pi * pitch * overtone * time) * decay / overtone
    sound /= np.abs(sound).max()
    sound += 0.03 * np.random.default_rng(5).standard_normal(len(sound))
    return (sound / np.abs(sound).max()).astype(np.float32)
