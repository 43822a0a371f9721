"""Effects of tape machines and turntables: speed offset, wow and flutter, saturation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pedalboard
import soxr

from stonecli_train.corpus.levels import as_loud_as

Floats = npt.NDArray[np.float32]

_CENTS_OF_SPEED = 1200.0 / np.log(2.0)  # cents per unit of relative speed error


def detuned(samples: Floats, rate: int, cents: float) -> Floats:
    """The samples resampled as by a tape that is detuned by ``cents``; a positive value makes them shorter."""
    if abs(cents) < 0.5:
        return samples
    moved: Floats = soxr.resample(samples, rate * 2.0 ** (cents / 1200.0), rate, quality="MQ")
    return moved


def wavering(rng: np.random.Generator, samples: Floats, rate: int, cents: float) -> Floats:
    """The samples with wow (about 0.5 to 1.5 Hz) and a third as much flutter, at most ``cents`` in either direction.

    The deviations average to zero, so the mean pitch is unchanged.
    """
    time = np.arange(len(samples)) / rate
    delay = np.zeros(len(samples))  # seconds
    for share, slowest, fastest in ((0.75, 0.45, 1.5), (0.25, 5.0, 11.0)):
        hertz, phase = rng.uniform(slowest, fastest), rng.uniform(0.0, 2 * np.pi)
        depth = share * cents / _CENTS_OF_SPEED / (2 * np.pi * hertz)  # seconds
        delay += depth * np.sin(2 * np.pi * hertz * time + phase)
    out: Floats = np.interp(time + delay, time, samples).astype(np.float32)
    return out


def saturated(samples: Floats, rate: int, drive_db: float) -> Floats:
    """The samples (peak 1) after soft clipping, at their original level; ``drive_db`` 3 is gentle, 20 a fuzz."""
    return as_loud_as(pedalboard.Distortion(drive_db)(samples, rate), samples)
