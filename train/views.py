"""Makes the views that the losses compare from a batch of segments; a crop of the VQT is a transposition."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from stonecli_train.chromanet import BINS_PER_OCTAVE, average_frames
from stonecli_train.config import TrainConfig
from stonecli_train.data import NO_KEY_INDEX, Batch
from stonecli_train.losses import (
    Views,
    mode_pseudo_labels,
    published_mode_labels,
    rotated_chroma,
    semi_tone_loss,
    skey_loss,
    soft_cross_entropy,
    stone_loss,
    tonic_offset,
)

LOWEST_PITCH_CLASS = 9  # pitch class of the VQT's lowest bin: A


def network_input(segments: Tensor, shifts: Tensor, config: TrainConfig) -> Tensor:
    """Input of the network: crops of ``segments``, float32 [rows, 1, n_bins, averaged frames] in 0..1.

    Args:
        segments: uint8 [rows, frames, bins].
        shifts: int64 [rows], bins cropped from below: each one transposes down by a semitone.
        config: configuration of the run.
    """
    level = average_frames(segments.float().transpose(1, 2) / 255.0, config.input.frames_averaged)
    bins = shifts[:, None] + torch.arange(config.network.n_bins, device=shifts.device)
    cropped = torch.gather(level, 1, bins[:, :, None].expand(-1, -1, level.shape[2]))
    return cropped[:, None].contiguous(memory_format=torch.channels_last)


def view_inputs(batch: Batch, config: TrainConfig) -> Tensor:
    """Network inputs for the views of a batch, float32 [views, rows, 1, n_bins, frames].

    The views of an unlabeled batch are the first segment, the second segment, and the first segment transposed; those
    of a labeled batch are the segment and the segment transposed. With ``cross_entropy`` or pseudo-labels, the segment
    is the only view.
    """
    plain, transposed = batch.shifts[:, 0], batch.shifts[:, 1]
    if batch.has_pseudo_labels or (batch.is_labeled and config.loss.name == "cross_entropy"):
        pairs = [(batch.first, plain)]
    elif not batch.is_labeled:
        pairs = [(batch.first, plain), (batch.second, plain), (batch.first, transposed)]
    else:
        pairs = [(batch.first, plain), (batch.first, transposed)]
    return torch.stack([network_input(segments, shifts, config) for segments, shifts in pairs])


def windows_per_row(config: TrainConfig, has_unlabeled: bool, has_labeled: bool) -> float:
    """Mean number of network inputs per row, over batches with and without labels."""
    loss = config.loss
    labeled = 1.0 if loss.name == "cross_entropy" else 2.0
    unlabeled = 1.0 if loss.name == "cross_entropy" and loss.unlabeled == "pseudo_labels" else 3.0
    if has_unlabeled and has_labeled:
        share = 1.0 / config.data.unlabeled_every
        return share * unlabeled + (1.0 - share) * labeled
    return labeled if has_labeled else unlabeled


def batch_loss(logits: Tensor, chroma: Tensor | None, batch: Batch, config: TrainConfig) -> dict[str, Tensor]:
    """The terms of the loss, scalars by name; ``total`` is the one to minimize.

    Args:
        logits: logits for :func:`view_inputs`, [views, rows, classes]. With a mean teacher, the first two views of an
            unlabeled batch are the teacher's logits, and the third is the network's.
        chroma: result of :func:`batch_chroma`, [rows, 12]; used by S-KEY only.
        batch: the batch, with its rows in the same order.
        config: configuration of the run.
    """
    loss = config.loss
    plain, transposed = batch.shifts[:, 0], batch.shifts[:, 1]
    if loss.name == "cross_entropy" and batch.is_labeled:
        target = label_profiles(batch.labels, plain, config)
        return {"total": loss.labeled_weight * soft_cross_entropy(logits[0], target)}
    if batch.has_pseudo_labels:
        target = pseudo_label_profiles(batch.pseudo_labels, plain)
        return {"total": loss.unlabeled_weight * soft_cross_entropy(logits[0], target)}
    profiles = functional.softmax(logits.float(), dim=-1)
    shift = transposed - plain
    if batch.is_labeled:
        views = Views(label_profiles(batch.labels, plain, config), profiles[0], profiles[1], shift)
        terms = (
            stone_loss(views, loss.circle)
            if loss.name == "stone"
            else semi_tone_loss(views, loss.circle, loss.mode_weight)
        )
        return terms | {"total": loss.labeled_weight * terms["total"]}
    views = Views(profiles[0], profiles[1], profiles[2], shift)
    if loss.name == "stone":
        return stone_loss(views, loss.circle)
    if loss.name == "semi_tone":
        return semi_tone_loss(views, loss.circle, loss.mode_weight)
    if loss.name == "cross_entropy" and loss.unlabeled == "mean_teacher":
        return {"total": loss.unlabeled_weight * mean_teacher_loss(logits, shift, loss.min_confidence)}
    if loss.name == "cross_entropy":
        first, second, third = (relative_rows(profile) for profile in profiles)
        views = Views(first, second, third, shift)
        terms = semi_tone_loss(views, loss.circle, loss.mode_weight)
        return terms | {"total": loss.unlabeled_weight * terms["total"]}
    if chroma is None:
        raise ValueError("S-KEY's loss needs the chroma of the batch")
    return skey_loss(views, _mode_labels(chroma, views, config), loss.circle, loss.skey_weights)


def _mode_labels(chroma: Tensor, views: Views, config: TrainConfig) -> Tensor:
    """S-KEY's pseudo-labels of the mode, float [rows], from both untransposed views."""
    profile = (views.first.detach() + views.second.detach()) / 2.0
    if config.loss.skey_tonic == "index":
        return published_mode_labels(chroma, profile)
    rotated = rotated_chroma(chroma, profile)
    return mode_pseudo_labels(rotated, tonic_offset(rotated))


def mean_teacher_loss(logits: Tensor, shift: Tensor, min_confidence: float) -> Tensor:
    """Cross-entropy of the transposed view against the teacher's prediction for two segments; scalar, >= 0.

    The teacher is the average of the network's own weights (Tarvainen and Valpola, *Mean teachers are better role
    models*, NeurIPS 2017). Its prediction, the mean over both segments, is transposed accordingly. Major and minor
    have equal weight, so that a biased teacher does not bias the network further.

    Args:
        logits: [3, rows, 24]: those of the teacher for both segments, those of the network for the transposed first.
        shift: integer [rows], semitones from the key in the transposed segment up to that in the first.
        min_confidence: minimum confidence of the teacher; rows below it are ignored. The loss is 0 if no row remains.
    """
    predicted = functional.softmax(logits[:2].detach().float(), dim=-1).mean(dim=0)
    indices = (torch.arange(BINS_PER_OCTAVE, device=shift.device) + shift[:, None]) % BINS_PER_OCTAVE
    target = torch.cat([half.gather(1, indices) for half in predicted.chunk(2, dim=1)], dim=1)
    minor = target.argmax(dim=1) >= BINS_PER_OCTAVE
    confident = target.amax(dim=1) >= min_confidence
    weight = torch.zeros_like(predicted[:, 0])
    for mode in (confident & minor, confident & ~minor):
        weight[mode] = 1.0 / mode.sum().clamp(min=1)
    errors = -(target * torch.log_softmax(logits[2].float(), dim=-1)).sum(dim=1)
    return (weight * errors).sum() / weight.sum().clamp(min=1.0)


def relative_rows(profile: Tensor) -> Tensor:
    """Realign a KSP [rows, 24] from parallel to relative keys in the same column.

    Index p of the second row becomes the minor key three semitones below the major key at index p of the first.
    """
    major, minor = profile[:, :BINS_PER_OCTAVE], profile[:, BINS_PER_OCTAVE:]
    return torch.cat([major, torch.roll(minor, 3, dims=1)], dim=1)


def batch_chroma(inputs: Tensor, batch: Batch, config: TrainConfig) -> Tensor | None:
    """Mean chroma of both segments, float32 [rows, 12]; None if the loss does not use it.

    Args:
        inputs: result of :func:`view_inputs` for the batch.
        batch: the batch.
        config: configuration of the run.
    """
    if config.loss.name != "skey" or batch.is_labeled:
        return None
    first, second = (segment_chroma(segment, config.loss.skey_chroma) for segment in inputs[:2])
    return (first + second) / 2.0


def segment_chroma(inputs: Tensor, scale: str) -> Tensor:
    """Chroma: the mean of each pitch class over octaves and frames, float32 [rows, 12], ascending from the lowest bin.

    Args:
        inputs: log-VQT [rows, 1, bins, frames] in 0..1, where 1 is the maximum and 0 is 80 dB below it.
        scale: quantity to average: the ``log`` levels, the square ``root`` of the magnitude, or the ``linear``
            magnitude.
    """
    levels = inputs[:, 0].float()
    if scale != "log":
        levels = 10.0 ** ((levels - 1.0) * (8.0 if scale == "linear" else 4.0))
    return levels.mean(dim=2).reshape(len(inputs), -1, BINS_PER_OCTAVE).mean(dim=1)


def label_indices(labels: Tensor, shifts: Tensor, config: TrainConfig) -> Tensor:
    """Index of each label among the network's outputs for its crop, int64 [rows].

    The first row of outputs is major: index p is the key whose tonic is p semitones above the lowest bin of the crop.
    In the second row, each minor key is in the column of its relative major, because the CPSD losses sum the rows to
    key signatures. For ``cross_entropy``, it is in the column of its parallel major, so that each column is a tonic.
    """
    tonic, minor = labels % 12, labels >= 12
    if config.loss.name != "cross_entropy":
        tonic = torch.where(minor, tonic + 3, tonic)
    index = (tonic - LOWEST_PITCH_CLASS - shifts) % 12
    return index if config.network.rows == 1 else index + 12 * minor


def label_profiles(labels: Tensor, shifts: Tensor, config: TrainConfig) -> Tensor:
    """Target KSPs of the labels, float32 [rows, classes], each with the sum 1.

    They are one-hot. For ``cross_entropy``, label smoothing gives a share to the keys that score in MIREX, in its
    proportions: 0.5 for each fifth, 0.3 for the relative, 0.2 for the parallel key. The target of "no key" is uniform.
    """
    if (labels == NO_KEY_INDEX).any():
        profiles = label_profiles(labels.clamp(max=NO_KEY_INDEX - 1), shifts, config)
        return torch.where((labels == NO_KEY_INDEX)[:, None], 1.0 / profiles.shape[1], profiles)
    indices = label_indices(labels, shifts, config)
    classes = BINS_PER_OCTAVE * config.network.rows
    hot = functional.one_hot(indices, classes).float()
    if config.loss.name != "cross_entropy" or config.loss.smoothing == 0.0:
        return hot
    row, tonic = indices // 12, indices % 12
    relative = torch.where(row == 0, 12 + (tonic - 3) % 12, (tonic + 3) % 12)
    related = (
        (12 * row + (tonic + 7) % 12, 0.5),
        (12 * row + (tonic + 5) % 12, 0.5),
        (relative, 0.3),
        (12 * (1 - row) + tonic, 0.2),
    )
    soft = torch.zeros_like(hot)
    for index, weight in related:
        soft += weight * functional.one_hot(index, classes)
    return (1.0 - config.loss.smoothing) * hot + config.loss.smoothing * soft / soft.sum(dim=1, keepdim=True)


def pseudo_label_profiles(pseudo_labels: Tensor, shifts: Tensor) -> Tensor:
    """Target KSPs of pseudo-labels, float32 [rows, 24], in the order of the network's outputs for each crop.

    Args:
        pseudo_labels: float32 [rows, 24] by ``Key.index``.
        shifts: int64 [rows], bins cropped from below.
    """
    indices = torch.arange(BINS_PER_OCTAVE, device=shifts.device)
    tonics = (indices + LOWEST_PITCH_CLASS + shifts[:, None]) % BINS_PER_OCTAVE
    return torch.cat([half.gather(1, tonics) for half in pseudo_labels.chunk(2, dim=1)], dim=1)


def class_names(config: TrainConfig) -> tuple[str, ...]:
    """Names of the classes in output order after training with labels; the pitch fork of the export verifies them."""
    from stonecli.key import Key

    majors = [Key((LOWEST_PITCH_CLASS + index) % 12, "major") for index in range(12)]
    if config.network.rows == 1:
        return tuple(f"{key.name}/{key.relative.name}" for key in majors)
    minors = [key.parallel if config.loss.name == "cross_entropy" else key.relative for key in majors]
    return tuple(key.name for key in (*majors, *minors))
