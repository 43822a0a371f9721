"""The tempo network: from periodicity on a logarithmic tempo axis to the logits of each tempo.

Both layers are convolutions over the tempo axis whose taps are the multiples and fractions of a tempo. So a track that
is played faster gives the same output, shifted: the equivariance that STONE has for transpositions. Only a learned bias
depends on the absolute tempo: the prior of which metrical level listeners perceive as the beat.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from stonecli.tempo.periodicity import CHANNELS, STEPS_PER_OCTAVE, TEMPOS

POOL = 2  # steps of the periodicity axis per step of the network
GRID: npt.NDArray[np.float64] = TEMPOS[::POOL]
STEPS = STEPS_PER_OCTAVE // POOL  # per octave
SLOWEST, FASTEST = 40.0, 250.0  # beats per minute; range of the output
FIRST = int(np.searchsorted(GRID, SLOWEST * 0.999))
LAST = int(np.searchsorted(GRID, FASTEST))
OUTPUT_TEMPOS: npt.NDArray[np.float64] = GRID[FIRST:LAST]


def _offsets(ratios: Sequence[float]) -> tuple[int, ...]:
    return tuple(round(STEPS * float(np.log2(ratio))) for ratio in ratios)


INPUT_OFFSETS = _offsets((1 / 4, 1 / 3, 1 / 2, 2 / 3, 3 / 4, 1, 4 / 3, 3 / 2, 2, 3, 4, 6, 8))
HIDDEN_OFFSETS = _offsets((1 / 3, 1 / 2, 2 / 3, 1, 3 / 2, 2, 3))
MARGIN = max(HIDDEN_OFFSETS)  # number of hidden values beyond each end of the output range
PADDING = max(INPUT_OFFSETS) + MARGIN
_KNOTS = 8  # number of knots of the learned bias over the absolute tempo


@dataclass(frozen=True)
class TempoNetConfig:
    """Size of the network.

    Attributes:
        hidden: channels of both layers.
        dropout: share of the inputs of both layers that is dropped in training.
    """

    hidden: int = 40
    dropout: float = 0.25


class TempoNet(nn.Module):
    """Logits of the tempos and of "no tempo".

    Args:
        config: size of the network.
        mean, deviation: mean and standard deviation of the pooled periodicity, float32 [CHANNELS, 1], which standardize
            the input.
    """

    mean: Tensor
    deviation: Tensor
    hats: Tensor

    def __init__(
        self, config: TempoNetConfig = TempoNetConfig(), mean: Tensor | None = None, deviation: Tensor | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.first = nn.Linear(CHANNELS * len(INPUT_OFFSETS), config.hidden)
        self.second = nn.Linear(config.hidden * len(HIDDEN_OFFSETS), config.hidden)
        self.tempo = nn.Linear(config.hidden, 1)
        self.none = nn.Linear(config.hidden, 1)
        self.bias = nn.Parameter(torch.zeros(_KNOTS))
        self.dropout = nn.Dropout(config.dropout)
        knots = np.linspace(0.0, _KNOTS - 1.0, LAST - FIRST)[:, None]
        hats = np.maximum(0.0, 1.0 - np.abs(knots - np.arange(_KNOTS)))
        self.register_buffer("hats", torch.tensor(hats, dtype=torch.float32))
        self.register_buffer("mean", torch.zeros(CHANNELS, 1) if mean is None else mean)
        self.register_buffer("deviation", torch.ones(CHANNELS, 1) if deviation is None else deviation)

    def forward(self, pooled: Tensor) -> Tensor:
        """Logits for :func:`pooled` periodicity, [batch, LAST - FIRST + 1], the last one for "no tempo"."""
        x = nn.functional.pad((pooled - self.mean) / self.deviation, (PADDING, PADDING))
        start, length = PADDING + FIRST - MARGIN, LAST - FIRST + 2 * MARGIN
        x = torch.cat([x[..., start + offset : start + offset + length] for offset in INPUT_OFFSETS], dim=1)
        x = torch.relu(self.first(self.dropout(x.transpose(1, 2)))).transpose(1, 2)
        x = torch.cat([x[..., MARGIN + o : MARGIN + o + LAST - FIRST] for o in HIDDEN_OFFSETS], dim=1)
        x = torch.relu(self.second(self.dropout(x.transpose(1, 2))))
        tempos = self.tempo(x)[..., 0] + self.hats @ self.bias
        return torch.cat([tempos, self.none(x.amax(dim=1))], dim=1)


def pooled(periodicity: Tensor) -> Tensor:
    """Max-pooled periodicity: [batch, CHANNELS, len(TEMPOS)] -> [batch, CHANNELS, len(GRID)]."""
    return nn.functional.max_pool1d(periodicity, 3, POOL, padding=1)
