"""Levels: RMS, peak and gain."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stonecli_train.corpus.arrange import Role

# Average level of each role in a mix, relative to the others, in dB.
LEVELS_DB: dict[Role, float] = {
    "drums": 1.0, "bass": 0.0, "sung": 1.0, "spoken": 2.0, "lead": -2.0, "chords": -3.0, "voice": -1.0,
}  # fmt: skip

Floats = npt.NDArray[np.float32]

_BLOCK_SECONDS = 0.05
_FEW = 4096  # samples whose squares can be summed in float32 without much error
_SOUNDING = 0.01  # of the loudest block's power: 20 dB below


def rms(samples: Floats) -> float:
    """Root mean square; 0 for an empty array."""
    return float(np.sqrt(_powers(samples, _FEW).sum(dtype=np.float64) / max(len(samples), 1)))


def active_rms(samples: Floats, rate: int) -> float:
    """Gated RMS: silent blocks are ignored, so that rests do not lower the level of a part."""
    block = max(1, round(_BLOCK_SECONDS * rate))
    powers = _powers(samples, block)[: max(1, len(samples) // block)] / block
    return float(np.sqrt(powers[powers >= _SOUNDING * powers.max()].mean(dtype=np.float64))) if len(powers) else 0.0


def _powers(samples: Floats, block: int) -> Floats:
    """Sums of squares of each ``block`` samples and of the rest. (Not by BLAS, whose sums depend on its threads.)"""
    whole = len(samples) // block * block
    blocks, rest = samples[:whole].reshape(-1, block), samples[whole:]
    powers = np.einsum("ij,ij->i", blocks, blocks)
    return powers if len(rest) == 0 else np.append(powers, np.einsum("i,i->", rest, rest))


def peak(samples: Floats) -> float:
    """The largest absolute value; 0 for an empty array."""
    return max(float(samples.max()), -float(samples.min())) if len(samples) else 0.0


def normalized(samples: Floats, height: float = 0.9) -> Floats:
    """The samples scaled to a peak of ``height``; silence is unchanged."""
    now = peak(samples)
    return samples * np.float32(height / now) if now > 0 else samples


def as_loud_as(samples: Floats, other: Floats) -> Floats:
    """The samples scaled to the RMS of ``other``; silence is unchanged."""
    now = rms(samples)
    return samples * np.float32(rms(other) / now) if now > 0 else samples


def gain_of(decibels: float) -> np.float32:
    """The linear gain of ``decibels``."""
    return np.float32(10.0 ** (decibels / 20.0))
