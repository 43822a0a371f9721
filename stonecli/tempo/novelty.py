"""Mono samples to onset novelty: how much the level of each frequency band rises from frame to frame.

The spectrum is computed on the samples that key detection reads, at 11 to 22 kHz, in frames of 23 ms every 11.6 ms.
Only the band levels are kept, 48 bytes per frame, so an hour of audio takes 15 MB.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from stonecli.audio.channels import Samples

FRAME_RATE = 11025 / 128  # frames per second that the hop is chosen for
BANDS = 24  # between LOWEST and HIGHEST, evenly spaced on a log axis
LOWEST, HIGHEST = 40.0, 5500.0  # Hz
GROUPS = ((0, 5), (5, 11), (11, 17), (17, 24))  # bands: kick and bass, low and high middle, hi-hats
FLOOR_DB = -55.0  # relative to the loud frames of the recording; rises below it do not count
MAX_SECONDS = 3600.0  # of a longer recording, only this much from the start is analyzed
_CHUNK = 512  # frames per transform: they fit the cache of a core
_ROWS = 32  # frames per matrix product: OpenBLAS computes small products in the calling thread
_TINY = 1e-12  # power of a digital zero

Floats = npt.NDArray[np.float32]


class BandLevels:
    """Collects the band levels of a recording, block by block.

    Args:
        rate: of the samples in Hz.

    Attributes:
        frame_rate: frames per second.
        fft_size: samples of each FFT; the window is filled up with zeros.
    """

    def __init__(self, rate: float) -> None:
        self._hop = max(1, round(rate / FRAME_RATE))
        self.frame_rate = rate / self._hop
        self.fft_size = _fast_size(2 * self._hop)
        self._window, self._matrix = _filter_bank(self._hop, self.fft_size, rate)
        self._rest = np.zeros(0, dtype=np.float32)
        self._levels: list[npt.NDArray[np.float16]] = []
        self._missing = round(MAX_SECONDS * self.frame_rate)  # frames up to the limit

    def add(self, block: Samples) -> None:
        """Add the next samples, float32 [n]."""
        if self._missing <= 0:
            return
        samples = np.concatenate([self._rest, block])
        frames = max(0, len(samples) // self._hop - 1) // _CHUNK * _CHUNK  # so the result does not depend on the blocks
        if not frames:
            self._rest = samples
            return
        self._transform(samples, frames)
        self._rest = samples[frames * self._hop :]

    def _transform(self, samples: Samples, frames: int) -> None:
        frames = min(frames, self._missing)
        self._missing -= frames
        overlapping = np.lib.stride_tricks.sliding_window_view(samples, len(self._window))[:: self._hop]
        for start in range(0, frames, _CHUNK):
            windowed = overlapping[start : min(frames, start + _CHUNK)] * self._window
            spectrum = np.fft.rfft(windowed, self.fft_size).view(np.float32)  # real and imaginary parts side by side
            np.multiply(spectrum, spectrum, out=spectrum)
            rows = range(0, len(spectrum), _ROWS)
            power = np.concatenate([spectrum[row : row + _ROWS] @ self._matrix for row in rows])
            self._levels.append(np.log10(power + np.float32(_TINY)).astype(np.float16))

    def finish(self) -> npt.NDArray[np.float16]:
        """Logarithm (base 10) of the power in each band, float16 [frames, BANDS]."""
        frames = max(0, len(self._rest) // self._hop - 1)
        if frames:
            self._transform(self._rest, frames)
        self._rest = np.zeros(0, dtype=np.float32)
        return np.concatenate([np.zeros((0, BANDS), dtype=np.float16), *self._levels])


def _fast_size(size: int) -> int:
    """The smallest even number from ``size`` on without a prime factor above 7, because other sizes make an FFT slow.

    12 kHz, a quarter of 48 kHz, gives windows of 278 = 2 * 139 samples: the FFT took five times as long.
    """
    rest = size
    for factor in (2, 3, 5, 7):
        while rest % factor == 0:
            rest //= factor
    return size if rest == 1 else _fast_size(size + 2)


@lru_cache(maxsize=4)
def _filter_bank(hop: int, fft_size: int, rate: float) -> tuple[Floats, Floats]:
    """The window, float32 [2 * hop], and the weights of the bands, float32 [2 * (fft_size // 2 + 1), BANDS].

    The weights are triangles on a log axis, each with the sum 1; they are repeated for real and imaginary parts.
    """
    window = np.hanning(2 * hop + 1)[:-1]
    hertz = np.fft.rfftfreq(fft_size, 1.0 / rate)[:, None]
    edges = np.geomspace(LOWEST, HIGHEST, BANDS + 2)
    low, center, high = edges[:-2], edges[1:-1], edges[2:]
    weights = np.clip(np.minimum((hertz - low) / (center - low), (high - hertz) / (high - center)), 0.0, None)
    # The lowest triangles lie between two bins: these bands are interpolated.
    between = np.clip(1.0 - np.abs(hertz - center) / hertz[1], 0.0, None)
    weights = np.where(weights.sum(axis=0) < 0.5, between, weights)
    weights /= weights.sum(axis=0) * np.square(window).sum()
    return window.astype(np.float32), np.repeat(weights, 2, axis=0).astype(np.float32)


def novelty(levels: npt.NDArray[np.float16]) -> Floats:
    """Rise of the level in dB over two frames, averaged over groups of bands: float32 [frames, len(GROUPS)].

    Args:
        levels: [frames, BANDS] from :class:`BandLevels`.
    """
    if len(levels) < 3:
        return np.zeros((len(levels), len(GROUPS)), dtype=np.float32)
    logs = levels.astype(np.float32)
    power = 10.0**logs
    loud = float(np.percentile(power.mean(axis=1), 95)) + _TINY
    decibels = 10.0 * np.log10(power / loud + 10.0 ** (FLOOR_DB / 10.0))
    rises = np.zeros_like(decibels)
    np.maximum(decibels[2:] - decibels[:-2], 0.0, out=rises[2:])
    return np.stack([rises[:, first:last].mean(axis=1) for first, last in GROUPS], axis=1)
