"""Onset novelty to periodicity on a logarithmic tempo axis, where a change of tempo is a shift.

Two functions with opposite ambiguities are sampled at the same tempos: the autocorrelation is high at fractions of the
tempo, the Fourier spectrum at its multiples. The correlations between bands tell which metrical level the kick and the
snare alternate at.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stonecli.tempo.novelty import GROUPS

STEPS_PER_OCTAVE = 48
LOWEST_BPM, OCTAVES = 10.0, 7
TEMPOS = LOWEST_BPM * 2.0 ** (np.arange(STEPS_PER_OCTAVE * OCTAVES + 1) / STEPS_PER_OCTAVE)  # beats per minute
PAIRS = tuple((first, second) for first in range(len(GROUPS)) for second in range(first, len(GROUPS)))
CHANNELS = len(PAIRS) + len(GROUPS)
WINDOW_SECONDS = 12.0
_TRANSFORM = 4096  # frames; a window is about a quarter of it, so the correlation does not wrap around
_MAX_LAG_SECONDS = 6.2  # two of the slowest tempos fit a window

Floats = npt.NDArray[np.float32]


def periodicity(novelty: Floats, frame_rate: float) -> Floats:
    """Mean correlation and spectrum of the novelty in windows of 12 s: float32 [CHANNELS, len(TEMPOS)].

    Args:
        novelty: float32 [frames, bands].
        frame_rate: frames per second.
    """
    size = round(WINDOW_SECONDS * frame_rate)
    if len(novelty) < size:
        novelty = np.pad(novelty, ((0, size - len(novelty)), (0, 0)))
    count = 1 + round((len(novelty) - size) / (size / 2))
    taper = np.hanning(size).astype(np.float32)
    bands = novelty.shape[1]
    products = np.zeros((len(PAIRS), _TRANSFORM + 2), dtype=np.float32)  # of real and imaginary parts, side by side
    for start in np.linspace(0, len(novelty) - size, count).astype(int):
        window = novelty[start : start + size]
        window = (window - window.mean(axis=0)) * taper[:, None]
        energy = np.square(window).sum(axis=0)
        window /= np.sqrt(energy + 1e-3 * energy.max() + 1e-9)
        spectrum = np.fft.rfft(window.T.copy(), _TRANSFORM).astype(np.complex64, copy=False)
        parts = spectrum.view(np.float32)
        row = 0
        for band in range(bands):  # in the order of PAIRS
            products[row : row + bands - band] += parts[band] * parts[band:]
            row += bands - band
    cross = products[:, ::2] + products[:, 1::2]
    power = cross[[row for row, (one, other) in enumerate(PAIRS) if one == other]]
    lags = round(_MAX_LAG_SECONDS * frame_rate)
    correlation = np.fft.irfft(cross / count)[:, :lags]
    shape = np.fft.irfft(np.abs(np.fft.rfft(taper, _TRANSFORM)) ** 2)[:lags]
    correlation /= np.maximum(shape / shape[0], 0.05)
    magnitude = np.sqrt(power / count / size)
    lag, bins = 60.0 / TEMPOS * frame_rate, TEMPOS / 60.0 / frame_rate * _TRANSFORM
    rows = [np.interp(lag, np.arange(lags), row) for row in correlation]
    rows += [np.interp(bins, np.arange(_TRANSFORM // 2 + 1), row) for row in magnitude]
    return np.stack(rows).astype(np.float32)
