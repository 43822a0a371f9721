"""Artifacts of recordings: noise, mains hum and vinyl crackle."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stonecli_train.corpus.levels import rms
from stonecli_train.corpus.synth import fast_length

Floats = npt.NDArray[np.float32]

_CLICK = np.exp(-np.arange(40) / 6.0)


def noise(rng: np.random.Generator, samples: Floats, rate: int, below_db: float, slope: float) -> Floats:
    """Noise without the music, ``below_db`` below the level of ``samples``; ``slope`` is 0 for white, 1 for pink."""
    sound = rng.standard_normal(len(samples))
    if slope:
        size = fast_length(len(samples))
        hertz = np.maximum(np.fft.rfftfreq(size, 1.0 / rate), 20.0)
        sound = np.fft.irfft(np.fft.rfft(sound, size) * hertz ** (-0.5 * slope), size)[: len(samples)]
    scale = rms(samples) * 10.0 ** (-below_db / 20.0) / max(float(np.std(sound)), 1e-9)
    out: Floats = (sound * scale).astype(np.float32)
    return out


def crackle(rng: np.random.Generator, samples: Floats, rate: int, clicks: float) -> Floats:
    """Crackle without the music, with ``clicks`` per second, float32 [samples]."""
    out = np.zeros(len(samples), dtype=np.float32)
    count = int(rng.poisson(clicks * len(samples) / rate))
    heights = rng.exponential(1.5 * rms(samples), count) * rng.choice([-1.0, 1.0], count)
    for index, height in zip(rng.integers(0, max(1, len(out)), count).tolist(), heights.tolist(), strict=True):
        click = height * _CLICK
        out[index : index + len(click)] += click[: len(out) - index].astype(np.float32)
    return out


def hum(rng: np.random.Generator, samples: Floats, rate: int) -> Floats:
    """Mains hum without the music and 26 dB below it: 50 or 60 Hz with harmonics, float32 [samples]."""
    time = np.arange(len(samples)) / rate
    mains = float(rng.choice([50.0, 60.0]))
    waves = sum(np.sin(2 * np.pi * mains * number * time) / number for number in (1, 2, 3, 5))
    return (0.05 * rms(samples) * np.asarray(waves)).astype(np.float32)
