"""Mono samples to onset novelty: how much the level of each frequency band rises from frame to frame.

The spectrum is computed on the samples that key detection reads, at 11 to 22 kHz, in frames of 23 ms every 11.6 ms.
Only the band levels are kept, 48 bytes per frame, so an hour of audio takes 15 MB.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from stonecli.audio.channels import Samples

FRAME_RATE = 11025 / 128  # frames per second that the hop is chosen for
BANDS = 24  # between LOWEST and HIGHEST, evenly spaced on a log axis
LOWEST, HIGHEST = 40.0, 5500.0  # Hz
GROUPS = ((0, 5), (5, 11), (11, 17), (17, 24))  # bands: kick and bass, low and high middle, hi-hats
RISE = 2  # frames from which to which a rise is measured
FLOOR_DB = -55.0  # relative to the loud frames of the recording; rises below it do not count
MAX_SECONDS = 3600.0  # of a longer recording, only this much from the start is analyzed
CHUNK = 1024  # frames whose levels are processed at a time: they fit the cache of a core
_BATCH = 128  # frames per transform: with arrays of 0.5 MB, the allocator returned their memory each time
_ROWS = 32  # frames per matrix product: OpenBLAS computes small products in the calling thread
_TINY = 1e-12  # power of a digital zero

Floats = npt.NDArray[np.float32]


class BandLevels:
    """Collects the band levels of a recording, block by block.

    Args:
        rate: sample rate in Hz.

    Attributes:
        frame_rate: frames per second.
        fft_size: samples of each FFT; the window is filled up with zeros.
    """

    def __init__(self, rate: float) -> None:
        self._hop = max(1, round(rate / FRAME_RATE))
        self.frame_rate = rate / self._hop
        self.fft_size = _fast_size(2 * self._hop)
        self._window, self._matrix = _filter_bank(self._hop, self.fft_size, rate)
        self._windowed = np.empty((_BATCH, 2, self._hop), dtype=np.float32)
        self._rest = np.zeros(0, dtype=np.float32)
        self._levels: list[npt.NDArray[np.float16]] = []
        self._missing = round(MAX_SECONDS * self.frame_rate)  # frames up to the limit

    def add(self, block: Samples) -> None:
        """Add the next samples, float32 [n]."""
        if self._missing <= 0:
            return
        samples = np.concatenate([self._rest, block])
        frames = max(0, len(samples) // self._hop - 1) // _BATCH * _BATCH  # so the result does not depend on the blocks
        if not frames:
            self._rest = samples
            return
        self._transform(samples, frames)
        self._rest = samples[frames * self._hop :]

    def _transform(self, samples: Samples, frames: int) -> None:
        frames = min(frames, self._missing)
        self._missing -= frames
        hops = samples[: (frames + 1) * self._hop].reshape(-1, self._hop)
        for start in range(0, frames, _BATCH):
            end = min(frames, start + _BATCH)
            windowed = self._windowed[: end - start]  # two hops per frame
            np.multiply(hops[start:end], self._window[0], out=windowed[:, 0])
            np.multiply(hops[start + 1 : end + 1], self._window[1], out=windowed[:, 1])
            spectrum = np.fft.rfft(windowed.reshape(end - start, -1), self.fft_size)
            # NumPy before 2.0 transforms in double precision. The parts are real and imaginary, side by side.
            parts = spectrum.astype(np.complex64, copy=False).view(np.float32)
            np.multiply(parts, parts, out=parts)
            power = np.empty((len(parts), BANDS), dtype=np.float32)
            for row in range(0, len(parts), _ROWS):
                np.matmul(parts[row : row + _ROWS], self._matrix, out=power[row : row + _ROWS])
            power += np.float32(_TINY)
            self._levels.append(np.log10(power, out=power).astype(np.float16))

    def finish(self) -> npt.NDArray[np.float16]:
        """Logarithm (base 10) of the power in each band, float16 [frames, BANDS]."""
        frames = max(0, len(self._rest) // self._hop - 1)
        if frames:
            self._transform(self._rest, frames)
        self._rest = np.zeros(0, dtype=np.float32)
        return np.concatenate([np.zeros((0, BANDS), dtype=np.float16), *self._levels])


def _fast_size(size: int) -> int:
    """The smallest even number from ``size`` on without a prime factor above 3, because other sizes make an FFT slow.

    12 kHz, a quarter of 48 kHz, gives windows of 278 = 2 * 139 samples: an FFT of 288 takes a fifth of the time.
    """
    rest = size
    for factor in (2, 3):
        while rest % factor == 0:
            rest //= factor
    return size if rest == 1 else _fast_size(size + 2)


@lru_cache(maxsize=4)
def _filter_bank(hop: int, fft_size: int, rate: float) -> tuple[Floats, Floats]:
    """The window, float32 [2, hop], and the weights of the bands, float32 [2 * (fft_size // 2 + 1), BANDS].

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
    # Bands above half the rate have no bins: they stay silent.
    weights /= np.maximum(weights.sum(axis=0), 1e-9) * np.square(window).sum()
    return window.astype(np.float32).reshape(2, hop), np.repeat(weights, 2, axis=0).astype(np.float32)


def loudness(levels: npt.NDArray[np.float16]) -> float:
    """Mean power of the bands in the loud frames, the 95th percentile; at least 1e-12.

    Args:
        levels: [frames, BANDS] from :class:`BandLevels`, at least one frame.
    """
    mean = np.full(BANDS, 1.0 / BANDS, dtype=np.float32)
    frames = [power_of(levels[start : start + CHUNK]) @ mean for start in range(0, len(levels), CHUNK)]
    return float(np.percentile(np.concatenate(frames), 95)) + _TINY


def power_of(levels: npt.NDArray[np.float16]) -> Floats:
    """The power of the levels, float32 of the same shape."""
    power: Floats = levels.astype(np.float32)
    power *= np.float32(math.log(10.0))
    return np.exp(power, out=power)


def group_means() -> Floats:
    """Matrix of the means over the groups of bands: float32 [BANDS, len(GROUPS)]."""
    matrix = np.zeros((BANDS, len(GROUPS)), dtype=np.float32)
    for group, (first, last) in enumerate(GROUPS):
        matrix[first:last, group] = 1.0 / (last - first)
    return matrix


def novelty(levels: npt.NDArray[np.float16], loud: float | None = None) -> Floats:
    """Rise of the level in dB over two frames, averaged over groups of bands: float32 [frames, len(GROUPS)].

    Args:
        levels: [frames, BANDS] from :class:`BandLevels`.
        loud: their :func:`loudness`; None to compute it.
    """
    out = np.zeros((len(levels), len(GROUPS)), dtype=np.float32)
    if len(levels) <= RISE:
        return out
    scale = np.float32(1.0 / (loudness(levels) if loud is None else loud))
    means = 10.0 * group_means()
    for start in range(RISE, len(levels), CHUNK):
        power = power_of(levels[start - RISE : start + CHUNK])
        power *= scale
        power += np.float32(10.0 ** (FLOOR_DB / 10.0))
        bels = np.log10(power, out=power)
        rises = bels[RISE:] - bels[:-RISE]
        np.matmul(np.maximum(rises, 0.0, out=rises), means, out=out[start : start + CHUNK])
    return out
