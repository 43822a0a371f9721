"""How loud a sound is, and the same sound as loud as another."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

_BLOCK_SECONDS = 0.05
_SOUNDING = 0.01  # of the loudest block's power: 20 dB below


def rms(samples: Floats) -> float:
    """Root mean square; 0 for nothing."""
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0


def active_rms(samples: Floats, rate: int) -> float:
    """Root mean square of where something sounds, so that a part with rests is as loud as one without."""
    block = max(1, round(_BLOCK_SECONDS * rate))
    count = len(samples) // block
    if count == 0:
        return rms(samples)
    power = np.mean(np.square(samples[: count * block].reshape(count, block), dtype=np.float64), axis=1)
    return float(np.sqrt(power[power >= _SOUNDING * power.max()].mean()))


def peak(samples: Floats) -> float:
    """The largest absolute value; 0 for nothing."""
    return max(float(samples.max()), -float(samples.min())) if len(samples) else 0.0


def normalised(samples: Floats, height: float = 0.9) -> Floats:
    """The samples with a peak of ``height``; silence stays silence."""
    now = peak(samples)
    return samples * np.float32(height / now) if now > 0 else samples


def as_loud_as(samples: Floats, other: Floats) -> Floats:
    """The samples with the RMS of ``other``; silence stays silence."""
    now = rms(samples)
    return samples * np.float32(rms(other) / now) if now > 0 else samples


def gain_of(decibels: float) -> np.float32:
    """The factor that ``decibels`` are."""
    return np.float32(10.0 ** (decibels / 20.0))
