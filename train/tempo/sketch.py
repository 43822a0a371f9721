"""Sketches the band levels of an arrangement without rendering it, which is much faster.

Each tone adds power to the bands of its harmonics, and each drum hit to the bands of its drum, with a random attack and
decay per part. Then noise and random fluctuations are added, and the levels are compressed. The timbres are crude, but
the onsets are those of the rendered music.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from stonecli.tempo.novelty import BANDS, FRAME_RATE, HIGHEST, LOWEST
from stonecli_train.corpus.arrange import Part, Tone

_EDGES = np.geomspace(LOWEST, HIGHEST, BANDS + 2)
_CENTERS = _EDGES[1:-1]
_HARMONICS = np.arange(1, 13)
_GAINS = {"drums": 1.0, "bass": 0.5, "sung": 0.4, "spoken": 0.4}  # amplitude by role; 0.25 for the others

Levels = npt.NDArray[np.float16]
_Array = npt.NDArray[np.float64]


def sketch(rng: np.random.Generator, parts: Sequence[Part], seconds: float) -> Levels:
    """Logarithm (base 10) of the power in each band, float16 [frames, BANDS], as from ``BandLevels``.

    Args:
        rng: random generator of the excerpt.
        parts: parts of the arrangement, in seconds.
        seconds: length of the result.
    """
    frames = round(seconds * FRAME_RATE)
    power = np.zeros((frames, BANDS))
    for part in parts:
        gain = _GAINS.get(part.role, 0.25) * 2.0 ** rng.normal(0.0, 1.0)
        if part.role == "drums":
            _add_drums(rng, power, part.tones, gain)
        else:
            _add_tones(rng, power, part, gain)
    level = float(np.percentile(power.mean(axis=1), 90)) + 1e-9
    tilt = _CENTERS ** -rng.uniform(0.0, 1.5)
    power += level * 10.0 ** rng.uniform(-5.0, -1.8) * tilt / tilt.mean()
    power *= rng.gamma(rng.uniform(2.0, 12.0), 1.0, power.shape)  # noise-like spectra fluctuate
    logs = np.log10(power / level)
    logs += rng.normal(0.0, 0.3, BANDS)  # equalizer
    loudest = logs.max(axis=1, keepdims=True)
    logs -= rng.uniform(0.0, 0.4) * np.maximum(loudest, -2.0)  # compressor
    return (logs - 1.0).astype(np.float16)


def _add_drums(rng: np.random.Generator, power: _Array, tones: Sequence[Tone], gain: float) -> None:
    sounds: dict[int, tuple[_Array, float]] = {}
    for tone in tones:
        if tone.pitch not in sounds:
            sounds[tone.pitch] = _drum(rng, tone.pitch)
        bands, decay = sounds[tone.pitch]
        amplitude = gain * (tone.velocity / 100.0) ** 1.5
        _add(power, tone.start, amplitude * amplitude * bands, 0.003, decay, decay * 5.0)


def _drum(rng: np.random.Generator, pitch: int) -> tuple[_Array, float]:
    """Power per band, and decay in seconds, of a General MIDI drum."""
    if pitch in (35, 36):
        center, width, decay = rng.uniform(50, 90), rng.uniform(0.5, 1.0), rng.uniform(0.05, 0.2)
    elif pitch in (37, 38, 39, 40):
        center, width, decay = rng.uniform(250, 1500), rng.uniform(1.2, 2.2), rng.uniform(0.04, 0.15)
    elif pitch in (41, 43, 45, 47, 48, 50):
        center, width, decay = 60.0 + 8.0 * (pitch - 40) * rng.uniform(0.8, 1.5), 0.7, rng.uniform(0.08, 0.25)
    elif pitch in (49, 51, 52, 53, 55, 57, 59, 46):
        center, width, decay = rng.uniform(3000, 6000), rng.uniform(0.8, 1.4), rng.uniform(0.15, 0.8)
    else:
        center, width, decay = rng.uniform(3000, 7000), rng.uniform(0.5, 1.2), rng.uniform(0.02, 0.06)
    bands = np.exp(-0.5 * (np.log2(_CENTERS / center) / width) ** 2) * 2.0 ** rng.normal(0.0, 1.0)
    bands += 0.01 * rng.random() * bands.max()  # the click of the beater
    return bands, float(decay)


def _add_tones(rng: np.random.Generator, power: _Array, part: Part, gain: float) -> None:
    slope = rng.uniform(1.0, 3.5)
    attack = float(rng.choice([0.003, 0.01, 0.03, 0.08], p=[0.4, 0.3, 0.2, 0.1]))
    decay = float(rng.choice([0.1, 0.3, 1.0, 4.0]))
    if part.role in ("sung", "spoken"):
        attack, decay = float(rng.uniform(0.01, 0.05)), 2.0
    bands_of: dict[int, _Array] = {}
    for tone in part.tones:
        if tone.pitch not in bands_of:
            hertz = 440.0 * 2.0 ** ((tone.pitch - 69) / 12.0) * _HARMONICS
            index = np.searchsorted(_EDGES, hertz) - 1
            inside = (index >= 0) & (index < BANDS)
            strengths = _HARMONICS[inside].astype(float) ** -slope
            bands_of[tone.pitch] = np.bincount(index[inside], strengths, BANDS).astype(float)
        amplitude = gain * tone.velocity / 100.0
        _add(power, tone.start, amplitude * amplitude * bands_of[tone.pitch], attack, decay, tone.duration)


def _add(power: _Array, start: float, bands: _Array, attack: float, decay: float, duration: float) -> None:
    """Add a tone to ``power``: an attack of ``attack`` seconds, an exponential decay, and a short release."""
    first = int(start * FRAME_RATE)
    last = min(len(power), first + int((duration + 0.1) * FRAME_RATE) + 2)
    if first >= last:
        return
    time = np.arange(first, last) / FRAME_RATE - start
    rise = np.clip((time + 0.5 / FRAME_RATE) / (attack + 1.0 / FRAME_RATE), 0.0, 1.0)
    envelope = rise * np.exp(-np.maximum(time, 0.0) * (2.0 / decay))
    envelope *= np.exp(-np.maximum(time - duration, 0.0) / 0.02)
    power[first:last] += envelope[:, None] * bands
