"""Training objectives of STONE, Semi-TONE and S-KEY.

[1] Kong, Lostanlen, Meseguer-Brocal, Wong, Lagrange, Hennequin, *STONE: Self-supervised Tonality Estimator*,
    ISMIR 2024. [2] Kong, Meseguer-Brocal, Lostanlen, Lagrange, Hennequin, *S-KEY: Self-supervised Learning of Major and
    Minor Keys from Audio*, ICASSP 2025.

A key signature profile (KSP) is float [batch, 12], or [batch, 24] as two rows of 12, one for each mode; it sums to one.
Complex numbers are stored as pairs of float32, which autocast does not change and every device can differentiate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

CLASSES = 12  # key signatures
MIN_PROBABILITY = math.exp(-80.0)  # lower limit in logarithms; exp(-88) is the smallest that float32 can represent
MODE_WEIGHT = 1.5  # weight of the mode loss in Semi-TONE [1]
SKEY_WEIGHTS = (1.0, 1.7, 1.0)  # weights of CPSD, mode and balance in S-KEY [2], times the two constants below
SKEY_MODE_FACTOR = 1.5
SKEY_BALANCE_FACTOR = 20.0
PUBLISHED_RELATIVE = 3  # semitones from the first to the second of the two bins that S-KEY's code compares
MAJOR_SCALE = (0, 2, 4, 5, 7, 9, 11)
MINOR_TONIC = -3  # semitones from the major tonic of a key signature to its minor tonic


@dataclass(frozen=True)
class Views:
    """KSPs of three views of a batch of tracks: two segments in one key, and a transposition of the first.

    In supervised training, the labels replace ``first``.

    Attributes:
        first, second: [batch, classes], in the same key.
        transposed: [batch, classes], of the transposed first segment.
        shift: integer [batch], semitones from the key in ``transposed`` up to that in ``first``, -11..11.
    """

    first: Tensor
    second: Tensor
    transposed: Tensor
    shift: Tensor


def dft(ksp: Tensor, circle: int) -> Tensor:
    """Real and imaginary part of the KSP's discrete Fourier transform at one frequency, float [batch, 2] ([1], eq. 2).

    F[y](omega) = sum_q y[q] exp(2 pi i omega q) with omega = circle / 12: ``circle`` 7 makes fifths neighbors on the
    unit circle, 1 makes semitones neighbors. The length is 1 for a one-hot KSP, 0 for a flat one.

    Args:
        ksp: [batch, 12].
        circle: 1 or 7.

    Raises:
        ValueError: any other circle, which would not reach all twelve pitch classes in steps of a fifth or a semitone.
    """
    if circle not in (1, 7):
        raise ValueError(f"the circle is 1 (semitones) or 7 (fifths), not {circle}")
    angles = _angles(torch.arange(CLASSES, device=ksp.device), circle)
    basis = torch.stack([torch.cos(angles), torch.sin(angles)], dim=1)
    # Elementwise, not a matmul: autocast would run that in half precision.
    return (ksp.float()[:, :, None] * basis).sum(dim=1)


def cpsd_loss(first: Tensor, second: Tensor, shift: Tensor, circle: int) -> Tensor:
    """Distance of the cross-power spectral density from that of the transposition, [1], eq. 5; scalar, 0..4.

    mean |exp(2 pi i omega shift) - F[first] conj(F[second])|^2. It is 0 if both KSPs are one-hot and ``first`` is
    ``shift`` semitones above ``second``; for flat ones it is 1.

    Args:
        first, second: KSPs [batch, 12].
        shift: integer [batch].
        circle: 1 or 7.
    """
    a, b = dft(first, circle), dft(second, circle)
    cross_real = a[:, 0] * b[:, 0] + a[:, 1] * b[:, 1]
    cross_imaginary = a[:, 1] * b[:, 0] - a[:, 0] * b[:, 1]
    angle = _angles(shift, circle)
    return ((torch.cos(angle) - cross_real) ** 2 + (torch.sin(angle) - cross_imaginary) ** 2).mean()


def _angles(indices: Tensor, circle: int) -> Tensor:
    """2 pi circle indices / 12, float32, reduced modulo 2 pi before the conversion to float."""
    return 2.0 * math.pi / CLASSES * (circle * indices % CLASSES).float()


def key_loss(views: Views, circle: int) -> Tensor:
    """CPSD loss of the pair in one key and of both transposed pairs ([1], section 3); scalar, 0..12.

    The views are of key signatures; those of 24 classes are summed over modes first ([1], eq. 13).
    """
    first, second, transposed = (signatures(ksp) for ksp in (views.first, views.second, views.transposed))
    same = cpsd_loss(first, second, torch.zeros_like(views.shift), circle)
    return same + cpsd_loss(first, transposed, views.shift, circle) + cpsd_loss(second, transposed, views.shift, circle)


def signatures(ksp: Tensor) -> Tensor:
    """KSP of key signatures, [batch, 12]: the sum over modes of [batch, 24] ([1], eq. 13), or the KSP itself."""
    return ksp if ksp.shape[1] == CLASSES else ksp[:, :CLASSES] + ksp[:, CLASSES:]


def first_mode(ksp: Tensor) -> Tensor:
    """Probability of the mode of the first row, [batch], for a KSP [batch, 24] ([1], eq. 14)."""
    return ksp[:, :CLASSES].float().sum(dim=1)


def mode_loss(views: Views) -> Tensor:
    """Disagreement of the views about the mode, which transposition does not change ([1]); scalar, >= 0.

    Binary cross-entropies between the modes: the first view (the label in supervised training) against each of the
    others with weight 1, the others against each other with weight 1/2 in both directions.
    """
    first, second, transposed = (first_mode(ksp) for ksp in (views.first, views.second, views.transposed))
    return (
        binary_cross_entropy(first, transposed)
        + binary_cross_entropy(first, second)
        + 0.5 * binary_cross_entropy(second, transposed)
        + 0.5 * binary_cross_entropy(transposed, second)
    )


def binary_cross_entropy(target: Tensor, probability: Tensor) -> Tensor:
    """Scalar mean(-t log p - (1 - t) log(1 - p)), in float32.

    Probabilities below exp(-80) count as that, so that loss and gradients are finite throughout (the published code
    clamps the logarithm at -100 instead, which leaves the gradient infinite at 0). Both tensors are [batch] in 0..1,
    and both may carry gradients.
    """
    target, probability = target.float(), probability.float()
    return -(target * _safe_log(probability) + (1.0 - target) * _safe_log(1.0 - probability)).mean()


def _safe_log(x: Tensor) -> Tensor:
    return torch.log(torch.clamp(x, min=MIN_PROBABILITY))


def stone_loss(views: Views, circle: int) -> dict[str, Tensor]:
    """STONE's objective for 12 key signatures: ``key`` and ``total``, which are the same."""
    key = key_loss(views, circle)
    return {"key": key, "total": key}


def semi_tone_loss(views: Views, circle: int, mode_weight: float = MODE_WEIGHT) -> dict[str, Tensor]:
    """Semi-TONE's objective for 24 keys ([1]): ``key``, ``mode`` and ``total`` = key + mode_weight * mode."""
    key, mode = key_loss(views, circle), mode_loss(views)
    return {"key": key, "mode": mode, "total": key + mode_weight * mode}


def rotated_chroma(chroma: Tensor, ksp: Tensor) -> Tensor:
    """The chroma rotated by the key signature that the KSP predicts, [batch, 12], no gradient.

    rotated[p] = sum_q ksp[q] chroma[(p + q) mod 12]: transposing the track does not change it.

    Args:
        chroma: energy of the pitch classes, [batch, 12], counted from the lowest bin of the network's input.
        ksp: [batch, 12] or [batch, 24] of the same view.
    """
    weights = signatures(ksp.detach()).float()
    rolled = torch.stack([torch.roll(chroma.float(), -index, dims=1) for index in range(CLASSES)], dim=1)
    return (weights[:, :, None] * rolled).sum(dim=1)


def tonic_offset(rotated: Tensor) -> int:
    """Index of the major tonic in the rotated chroma, 0..11: where a major scale fits the whole batch best.

    Without labels, the mapping from KSP indices to key signatures is arbitrary. The published code compares two fixed
    bins regardless (:func:`published_mode_labels`); this function finds the two tonics by the scale instead.

    Args:
        rotated: result of :func:`rotated_chroma`, [batch, 12], or its sum over the batch.
    """
    profile = rotated.reshape(-1, CLASSES).sum(dim=0)
    fits = [float(profile[[(tonic + step) % CLASSES for step in MAJOR_SCALE]].sum()) for tonic in range(CLASSES)]
    return fits.index(max(fits))


def mode_pseudo_labels(rotated: Tensor, offset: int) -> Tensor:
    """Pseudo-labels of the mode, float [batch], 1 for major and 0 for minor.

    A label is 1 if the major tonic has more energy than the tonic of the relative minor, three semitones below.

    Args:
        rotated: result of :func:`rotated_chroma`, [batch, 12].
        offset: index of the major tonic in it, see :func:`tonic_offset`.
    """
    major, minor = rotated[:, offset % CLASSES], rotated[:, (offset + MINOR_TONIC) % CLASSES]
    return (major > minor).float()


def published_mode_labels(chroma: Tensor, ksp: Tensor) -> Tensor:
    """Pseudo-labels of the mode as S-KEY's code makes them, float [batch], 1 for the first row of the KSP ([2]).

    The index q of the likeliest key signature is used as a pitch class: a label is 1 if the chroma has more energy at q
    than three semitones above it. No gradient.

    Args:
        chroma: [batch, 12], counted from the lowest bin of the network's input.
        ksp: [batch, 12] or [batch, 24] of the same music.
    """
    index = signatures(ksp.detach()).argmax(dim=1, keepdim=True)
    energy = chroma.gather(1, index) - chroma.gather(1, (index + PUBLISHED_RELATIVE) % CLASSES)
    return (energy > 0).float()[:, 0]


def balance_loss(ksp: Tensor) -> Tensor:
    """Bias of the whole batch towards one mode, scalar 0..1/4 ([2]): (p - 1/2)^2 of the mean mode probability p.

    Without it, a constant mode would be a solution.
    """
    return (first_mode(ksp).mean() - 0.5) ** 2


def skey_loss(
    views: Views, label: Tensor, circle: int, weights: tuple[float, float, float] = SKEY_WEIGHTS
) -> dict[str, Tensor]:
    """S-KEY's objective ([2]) with the constants of its code: ``key``, ``mode``, ``balance`` and ``total``.

    ``mode`` is the sum of the binary cross-entropies of the three views against the pseudo-label; ``balance`` is over
    both untransposed views. total = w[0] key + 1.5 w[1] mode + 20 w[2] balance.

    Args:
        views: KSPs [batch, 24].
        label: pseudo-labels from :func:`published_mode_labels` or :func:`mode_pseudo_labels`, float [batch].
        circle: 1 or 7.
        weights: weights w of the three terms.
    """
    key = key_loss(views, circle)
    profiles = (views.first, views.second, views.transposed)
    mode = torch.stack([binary_cross_entropy(label, first_mode(ksp)) for ksp in profiles]).sum()
    balance = balance_loss(torch.cat([views.first, views.second]))
    total = weights[0] * key + weights[1] * SKEY_MODE_FACTOR * mode + weights[2] * SKEY_BALANCE_FACTOR * balance
    return {"key": key, "mode": mode, "balance": balance, "total": total}


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """mean over the batch of -sum_k target log softmax(logits), scalar >= 0; both [batch, classes]."""
    return -(target * torch.log_softmax(logits.float(), dim=-1)).sum(dim=1).mean()
