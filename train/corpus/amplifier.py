"""A guitar through an amplifier and its cabinet."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pedalboard
import soxr

from stonecli_train.corpus.levels import active_rms, as_loud_as

Floats = npt.NDArray[np.float32]

_TAPS = 512  # of a cabinet's impulse response
_BANDS = 2048


def amplified(rng: np.random.Generator, samples: Floats, rate: int, drive_db: float) -> Floats:
    """The guitar, cut in the bass, distorted by ``drive_db`` (5 is warm, 40 metal), through a cabinet that is drawn;
    as loud as before.
    """
    level = active_rms(samples, rate)
    if level < 1e-6:
        return samples
    pedals = [
        pedalboard.HighpassFilter(float(rng.uniform(80, 180))),
        pedalboard.PeakFilter(float(rng.uniform(500, 1200)), float(rng.uniform(-2, 8)), 0.7),
        pedalboard.Distortion(drive_db),
        pedalboard.PeakFilter(float(rng.uniform(350, 800)), float(rng.uniform(-9, 3)), 0.8),
    ]
    # At twice the rate, or the harmonics above half of it would be folded back as tones that nobody played.
    hot = soxr.resample(samples * np.float32(0.25 / level), rate, 2 * rate, quality="LQ")
    hot = soxr.resample(pedalboard.Chain(pedals)(hot, 2 * rate), 2 * rate, rate, quality="LQ")
    speaker = pedalboard.Convolution(cabinet(rng, rate), 1.0, sample_rate=rate)
    sound = np.pad(hot, (0, max(0, len(samples) - len(hot))))[: len(samples)]
    return as_loud_as(speaker(sound.astype(np.float32), rate), samples)


def cabinet(rng: np.random.Generator, rate: int) -> Floats:
    """The impulse response of a loudspeaker in a box before a microphone, float32 [taps], of minimum phase.

    It resonates at 80 to 140 Hz, is hollow around 500 Hz, has presence at 2 to 4 kHz and little above 4 to 6 kHz;
    where the microphone stands makes ripples.
    """
    hertz = np.maximum(np.fft.rfftfreq(_BANDS, 1.0 / rate), 10.0)
    octaves = np.log2(hertz)

    def bump(centre: float, width: float, decibels: float) -> npt.NDArray[np.float64]:
        curve: npt.NDArray[np.float64] = decibels * np.exp(-0.5 * ((octaves - np.log2(centre)) / width) ** 2)
        return curve

    curve = bump(rng.uniform(80, 140), 0.4, rng.uniform(2, 6)) + bump(rng.uniform(350, 700), 0.5, -rng.uniform(1, 6))
    curve += bump(rng.uniform(2000, 3800), 0.5, rng.uniform(2, 8))
    curve += rng.uniform(0.5, 2.5) * np.sin(hertz / rng.uniform(150, 500) + rng.uniform(0, 2 * np.pi))
    curve -= 10.0 * np.log10(1.0 + (rng.uniform(65, 90) / hertz) ** 4)
    curve -= 10.0 * np.log10(1.0 + (hertz / rng.uniform(4000, 5800)) ** 14)
    logarithm = np.maximum(curve, -80.0) * np.log(10.0) / 20.0
    cepstrum = np.fft.irfft(logarithm)  # folded, it is that of the response of minimum phase
    cepstrum[1 : _BANDS // 2] *= 2.0
    cepstrum[_BANDS // 2 + 1 :] = 0.0
    response = np.fft.irfft(np.exp(np.fft.rfft(cepstrum)))[:_TAPS]
    out: Floats = (response * np.linspace(1.0, 0.0, _TAPS) ** 0.5).astype(np.float32)
    return out
