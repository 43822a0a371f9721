"""The rows of a training step."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

NO_KEY_INDEX = 24


@dataclass(frozen=True)
class Batch:
    """Rows of a step.

    Attributes:
        first: uint8 [rows, frames, bins], a segment of each track.
        second: the same, another segment; empty (0 rows) for a labeled batch, and for one with pseudo-labels.
        labels: int64 [rows], ``Key.index`` or ``NO_KEY_INDEX``; empty for an unlabeled batch.
        shifts: int64 [rows, 2], bins cropped from below for the plain and the transposed view, 0..15 each.
        pseudo_labels: float32 [rows, 24], the teachers' probabilities by ``Key.index``; empty without teachers.
        score: uint8 [rows, frames, 4], labels of ``stonecli_train.corpus.annotation`` for each input frame of the
            network, for a labeled batch; empty if the run has no auxiliary losses.
        styles: int64 [rows], ``Track.style``; empty if ``score`` is empty.
    """

    first: Tensor
    second: Tensor
    labels: Tensor
    shifts: Tensor
    pseudo_labels: Tensor = field(default_factory=lambda: torch.empty(0))
    score: Tensor = field(default_factory=lambda: torch.empty(0))
    styles: Tensor = field(default_factory=lambda: torch.empty(0))

    @property
    def is_labeled(self) -> bool:
        """Whether the batch has labels."""
        return len(self.labels) > 0

    @property
    def has_pseudo_labels(self) -> bool:
        """Whether the batch has pseudo-labels."""
        return len(self.pseudo_labels) > 0

    @property
    def is_scored(self) -> bool:
        """Whether the batch has scores and styles, for auxiliary losses."""
        return len(self.score) > 0

    def to(self, device: torch.device) -> Batch:
        """The batch on ``device``."""
        return Batch(*(getattr(self, item.name).to(device) for item in fields(self)))
