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
_SUM_SAMPLES = 4096  # samples whose squares can be summed in float32 without much error
_GATE = 0.01  # power relative to the loudest block, below which a block is silent: -20 dB


def rms(samples: Floats) -> float:
    """Root mean square; 0 for an empty array."""
    return float(np.sqrt(_powers(samples, _SUM_SAMPLES).sum(dtype=np.float64) / max(len(samples), 1)))


def active_rms(samples: Floats, rate: int) -> float:
    """Gated RMS: silent blocks are ignored, so rests do not lower the level of a part; 0 for an empty array."""
    block = max(1, round(_BLOCK_SECONDS * rate))
    powers = _powers(samples, block)[: max(1, len(samples) // block)] / block
    return float(np.sqrt(powers[powers >= _GATE * powers.max()].mean(dtype=np.float64))) if len(powers) else 0.0


def _powers(samples: Floats, block: int) -> Floats:
    """Sum of squares of each block of ``block`` samples and of the remainder.

    The sums are not computed with BLAS, because its results depend on the number of threads.
    """
    whole = len(samples) // block * block
    blocks, rest = samples[:whole].reshape(-1, block), samples[whole:]
    powers = np.einsum("ij,ij->i", blocks, blocks)
    return powers if len(rest) == 0 else np.append(powers, np.einsum("i,i->", rest, rest))


def peak(samples: Floats) -> float:
    """The largest absolute value; 0 for an empty array."""
    return max(float(samples.max()), -float(samples.min())) if len(samples) else 0.0


def normalized(samples: Floats, height: float = 0.9) -> Floats:
    """The samples scaled to a peak of ``height``; silence is unchanged."""
    before = peak(samples)
    return samples * np.float32(height / before) if before > 0 else samples


def as_loud_as(samples: Floats, other: Floats) -> Floats:
    """The samples scaled to the RMS of ``other``; silence is unchanged."""
    before = rms(samples)
    return samples * np.float32(rms(other) / before) if before > 0 else samples


def gain_of(decibels: float) -> np.float32:
    """The linear gain of ``decibels``."""
    return np.float32(10.0 ** (decibels / 20.0))
