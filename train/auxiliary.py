"""Auxiliary heads: losses on the score and the style of renderings; dropped at export.

A network that also predicts chord, bass and melody must model harmony; for the key alone, a histogram of pitches may be
enough (Caruana, *Multitask Learning*, Machine Learning 1997). The heads are not part of ``ChromaNet``: a checkpoint
stores them in the state of the run, from which training resumes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from stonecli_train.chromanet import BINS_PER_OCTAVE, ChromaNetConfig, CircularHead
from stonecli_train.corpus.annotation import MAJOR, MINOR, UNKNOWN
from stonecli_train.corpus.styles import STYLES
from stonecli_train.data import UNKNOWN_STYLE, Batch
from stonecli_train.views import LOWEST_PITCH_CLASS

STYLE_NAMES = tuple(STYLES)
SCORE_BLOCK = 2  # block whose output predicts the score, counted from 0: frames of about 1.5 s
WIDTH = 48
ROWS = 5  # of twelve pitch classes each: roots of major, minor and other chords, bass, melody
MIN_SHARE = 0.3  # minimum share of known labels for a frame to count


class AuxiliaryHeads(nn.Module):
    """Losses of chord, bass, melody and style from the block outputs of a ``ChromaNet``.

    Args:
        config: configuration of the network.
    """

    def __init__(self, config: ChromaNetConfig) -> None:
        super().__init__()
        self._block = min(SCORE_BLOCK, len(config.out_channels) - 1)
        channels, octaves = config.out_channels[self._block], config.n_bins // BINS_PER_OCTAVE
        self.around = CircularHead(channels, octaves, WIDTH)
        self.score = nn.Conv2d(WIDTH, ROWS, kernel_size=1)
        self.style = nn.Linear(2 * sum(config.out_channels), len(STYLE_NAMES))

    def forward(self, outputs: Sequence[Tensor], batch: Batch) -> dict[str, Tensor]:
        """Scalar losses ``score`` and ``style``; 0 if the batch has no such labels.

        Args:
            outputs: output of each block for the first view, from ``ChromaNet.blocks``.
            batch: a labeled batch with ``score`` and ``styles``.
        """
        return {"score": self._score_loss(outputs[self._block], batch), "style": self._style_loss(outputs, batch)}

    def _score_loss(self, output: Tensor, batch: Batch) -> Tensor:
        rows, channels, bins, frames = output.shape
        each = output.permute(0, 3, 1, 2).reshape(rows * frames, channels, bins, 1)
        logits = self.score(self.around(each)).reshape(rows, frames, ROWS, BINS_PER_OCTAVE).float()
        target, known = score_targets(batch.score, batch.shifts[:, 0], frames)
        chord = functional.log_softmax(logits[:, :, :3].flatten(2), dim=-1).reshape(rows, frames, 3, BINS_PER_OCTAVE)
        lines = functional.log_softmax(logits[:, :, 3:], dim=-1)
        errors = -(target * torch.cat([chord, lines], dim=2)).sum(dim=-1)
        by_task = torch.stack([errors[:, :, :3].sum(dim=2), errors[:, :, 3], errors[:, :, 4]], dim=2)
        loss: Tensor = (by_task * known).sum() / known.sum().clamp(min=1.0)
        return loss

    def _style_loss(self, outputs: Sequence[Tensor], batch: Batch) -> Tensor:
        is_known = batch.styles != UNKNOWN_STYLE
        if not is_known.any():
            return outputs[0].new_zeros(())
        levels = [output.float().mean(dim=3) for output in outputs]  # [rows, channels, bins]
        pooled = torch.cat([torch.cat([level.mean(dim=2), level.amax(dim=2)], dim=1) for level in levels], dim=1)
        normed = functional.layer_norm(pooled[is_known], pooled.shape[1:])
        return functional.cross_entropy(self.style(normed), batch.styles[is_known])


def score_targets(score: Tensor, shifts: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """Target distributions of the heads for each frame, and their masks.

    Args:
        score: uint8 [rows, score frames, 4], labels of ``stonecli_train.corpus.annotation``, evenly over the segment.
        shifts: int64 [rows], bins cropped from below.
        frames: number of frames of the block's output; score frames beyond the last whole one are ignored.

    Returns:
        float32 [rows, frames, 5, 12]: distributions over the chord (the first three rows of twelve together), the bass
        (the fourth row) and the melody (the fifth), each with the sum 1 where it is known; float32 [rows, frames, 3]:
        1 where chord, bass and melody are known, otherwise 0.
    """
    rows, score_frames, _ = score.shape
    per_frame = max(1, score_frames // frames)
    inside = score[:, : per_frame * frames].long().reshape(rows, frames, per_frame, -1)
    root, quality, bass, melody = inside.unbind(dim=-1)
    kinds = torch.where(quality == MAJOR, 0, torch.where(quality == MINOR, 1, 2))
    parts = [_histogram(torch.where(kinds == kind, root, UNKNOWN), shifts) for kind in range(3)]
    counts = torch.stack([*parts, _histogram(bass, shifts), _histogram(melody, shifts)], dim=2)
    totals = torch.stack([counts[:, :, :3].sum(dim=(2, 3)), counts[:, :, 3].sum(dim=2), counts[:, :, 4].sum(dim=2)], 2)
    known = (totals >= MIN_SHARE * per_frame).float()
    divisor = totals.clamp(min=1.0)[:, :, [0, 0, 0, 1, 2], None]
    return counts / divisor, known


def _histogram(pitch_classes: Tensor, shifts: Tensor) -> Tensor:
    """Histogram of pitch classes relative to the crop: int64 [rows, frames, n] -> float32 [rows, frames, 12]."""
    is_known = pitch_classes != UNKNOWN
    indices = (pitch_classes - LOWEST_PITCH_CLASS - shifts[:, None, None]) % BINS_PER_OCTAVE
    hot = functional.one_hot(indices, BINS_PER_OCTAVE).float() * is_known[..., None]
    return hot.sum(dim=2)
