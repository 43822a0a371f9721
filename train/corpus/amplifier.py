"""A guitar through an amplifier and its cabinet."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pedalboard
import soxr

from stonecli_train.corpus.levels import active_rms, as_loud_as

Floats = npt.NDArray[np.float32]

_TAPS = 512  # length of a cabinet's impulse response, in samples
_BANDS = 2048  # frequency resolution of its design


def amplified(rng: np.random.Generator, samples: Floats, rate: int, drive_db: float) -> Floats:
    """The guitar with low cut, distortion and a random cabinet, at its original level, float32 [samples].

    ``drive_db`` 5 is a warm sound, 40 is metal.
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
    # Distort at twice the sampling rate, so that the new harmonics do not alias.
    hot = soxr.resample(samples * np.float32(0.25 / level), rate, 2 * rate, quality="LQ")
    hot = soxr.resample(pedalboard.Chain(pedals)(hot, 2 * rate), 2 * rate, rate, quality="LQ")
    speaker = pedalboard.Convolution(cabinet(rng, rate), 1.0, sample_rate=rate)
    sound = np.pad(hot, (0, max(0, len(samples) - len(hot))))[: len(samples)]
    return as_loud_as(speaker(sound.astype(np.float32), rate), samples)


def cabinet(rng: np.random.Generator, rate: int) -> Floats:
    """Minimum-phase impulse response of a miked guitar cabinet, float32 [taps].

    Its response has a resonance at 80 to 140 Hz, a dip around 500 Hz, a presence peak at 2 to 4 kHz and a steep
    roll-off above 4 to 6 kHz; the position of the microphone adds ripples.
    """
    hertz = np.maximum(np.fft.rfftfreq(_BANDS, 1.0 / rate), 10.0)
    octaves = np.log2(hertz)

    def bump(center: float, width: float, decibels: float) -> npt.NDArray[np.float64]:
        curve: npt.NDArray[np.float64] = decibels * np.exp(-0.5 * ((octaves - np.log2(center)) / width) ** 2)
        return curve

    curve = bump(rng.uniform(80, 140), 0.4, rng.uniform(2, 6)) + bump(rng.uniform(350, 700), 0.5, -rng.uniform(1, 6))
    curve += bump(rng.uniform(2000, 3800), 0.5, rng.uniform(2, 8))
    curve += rng.uniform(0.5, 2.5) * np.sin(hertz / rng.uniform(150, 500) + rng.uniform(0, 2 * np.pi))
    curve -= 10.0 * np.log10(1.0 + (rng.uniform(65, 90) / hertz) ** 4)
    curve -= 10.0 * np.log10(1.0 + (hertz / rng.uniform(4000, 5800)) ** 14)
    logarithm = np.maximum(curve, -80.0) * np.log(10.0) / 20.0
    cepstrum = np.fft.irfft(logarithm)  # folded to a causal cepstrum, which gives minimum phase
    cepstrum[1 : _BANDS // 2] *= 2.0
    cepstrum[_BANDS // 2 + 1 :] = 0.0
    response = np.fft.irfft(np.exp(np.fft.rfft(cepstrum)))[:_TAPS]
    out: Floats = (response * np.linspace(1.0, 0.0, _TAPS) ** 0.5).astype(np.float32)
    return out
