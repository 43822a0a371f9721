"""Room acoustics: early reflections and reverberation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pedalboard

from stonecli_train.corpus.levels import as_loud_as

Floats = npt.NDArray[np.float32]

_MAX_DELAY = 0.045  # seconds; later reflections are perceived as reverberation


def reflected(rng: np.random.Generator, samples: Floats, rate: int, strength: float) -> Floats:
    """The samples with early reflections, as recorded by a pair of microphones and mixed to mono.

    Args:
        rng: random generator, for the positions of instrument, walls and microphones.
        samples: dry audio, float32 [samples].
        rate: sampling rate in Hz.
        strength: level of the first reflections relative to the direct sound, 0..1.
    """
    delays = np.sort(rng.uniform(0.002, _MAX_DELAY, 5))
    gains = strength * rng.uniform(0.3, 1.0, 5) * np.exp(-delays / 0.03)
    microphone_delay = rng.uniform(0.0001, 0.0008)  # seconds
    out = samples.copy()
    for delay, gain in [(microphone_delay, rng.uniform(0.0, 0.6)), *zip(delays, gains, strict=True)]:
        offset = max(1, round(float(delay) * rate))
        out[offset:] += samples[:-offset] * np.float32(gain)
    return as_loud_as(out, samples)


def reverberation(samples: Floats, rate: int, size: float, damping: float) -> Floats:
    """Reverberation without the dry signal, at the RMS of ``samples``.

    ``size`` is 0 (cupboard) to 1 (cathedral), ``damping`` 0 (bright) to 1 (dull).
    """
    reverb = pedalboard.Reverb(room_size=size, damping=damping, wet_level=0.33, dry_level=0.0, width=0.0)
    return as_loud_as(reverb(samples, rate), samples)
