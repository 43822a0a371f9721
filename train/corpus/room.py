"""The room in which something sounds: early reflections between instrument and microphones, and reverberation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pedalboard

from stonecli_train.corpus.levels import as_loud_as

Floats = npt.NDArray[np.float32]

_LATEST = 0.045  # seconds; what comes later is heard as reverberation


def reflected(rng: np.random.Generator, samples: Floats, rate: int, strength: float) -> Floats:
    """The samples with early reflections as a pair of microphones hears them that is mixed to mono.

    Args:
        rng: draws where instrument, walls and microphones are.
        samples: dry.
        rate: samples a second.
        strength: of the first reflections beside the direct sound, 0..1.
    """
    delays = np.sort(rng.uniform(0.002, _LATEST, 5))
    gains = strength * rng.uniform(0.3, 1.0, 5) * np.exp(-delays / 0.03)
    apart = rng.uniform(0.0001, 0.0008)  # seconds from one microphone to the other
    out = samples.copy()
    for delay, gain in [(apart, rng.uniform(0.0, 0.6)), *zip(delays, gains, strict=True)]:
        late = max(1, round(float(delay) * rate))
        out[late:] += samples[:-late] * np.float32(gain)
    return as_loud_as(out, samples)


def reverberation(samples: Floats, rate: int, size: float, damping: float) -> Floats:
    """The reverberation alone, as loud as the samples: ``size`` 0 of a cupboard to 1 of a cathedral."""
    reverb = pedalboard.Reverb(room_size=size, damping=damping, wet_level=0.33, dry_level=0.0, width=0.0)
    return as_loud_as(reverb(samples, rate), samples)
