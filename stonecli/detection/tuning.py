"""How far a recording is tuned from A = 440 Hz, and whether it is tonal at all, both from its spectral peaks.

A partial of a note that is tuned to A = 440 Hz lies a whole number of semitones from 440 Hz. The distances of all
peaks, taken as angles of one turn a semitone, point to the tuning: their weighted circular mean is the estimate (as in
Dressler and Streich, *Tuning Frequency Estimation Using Circular Statistics*, ISMIR 2007).

Noise has peaks too, but none that stand out: the levels of a power spectrum of noise are exponentially distributed
around their median, and the third highest of 700 bins lies 9 to 10 dB above it. The partials of sustained notes lie
20 dB and more above theirs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stonecli.audio.decode import Samples

FRAME_SECONDS = 8192 / 22050  # bins of 2.7 Hz; the same at every rate: what is hardly in tune changes with it
LOWEST_HZ, HIGHEST_HZ = 80.0, 2000.0  # below, a bin is half a semitone; above, partials are stretched and noise loud
PEAK_RANGE_DB = 40.0  # peaks this far below the frame's highest do not count
FULL_WEIGHT_HZ = 300.0  # peaks below weigh less in proportion, for bins are wide there in cents
FLOOR_BINS = 60  # bins over which the local median is taken
TONAL_PEAK = 3  # so many peaks of a frame have to stand out: one or two may be hum or chance
TONAL_DB = 13.0  # by this much above the local median
BATCH = 24  # frames that are computed together: 0.4 MB of spectra stay in the cache

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class FramePeaks:
    """Spectral peaks of consecutive frames without overlap.

    Attributes:
        frame_seconds: length of a frame.
        direction: complex64 [frames], weighted sum of the peaks' phases within the semitone.
        tonal: bool [frames], whether the peaks stand out of the noise.
    """

    frame_seconds: float
    direction: npt.NDArray[np.complex64]
    tonal: npt.NDArray[np.bool_]

    @property
    def total(self) -> complex:
        """Sum of the directions of the tonal frames; add up those of several stretches for :func:`cents_of`."""
        return complex(self.direction[self.tonal].sum())

    @property
    def strength(self) -> float:
        """What the length of ``total`` would be if all frames agreed."""
        return float(np.abs(self.direction[self.tonal]).sum())

    def tonal_between(self, start: float, end: float) -> npt.NDArray[np.bool_]:
        """``tonal`` of the frames from ``start`` to ``end`` in seconds; at least one where any time is shared."""
        first, last = int(max(start, 0.0) / self.frame_seconds), int(np.ceil(end / self.frame_seconds))
        if end > 0.0:
            first = min(first, len(self.tonal) - 1)  # the incomplete frame that was dropped is judged by the last one
        return self.tonal[first : max(last, 0)]


def cents_of(direction: complex) -> float | None:
    """Deviation from A = 440 Hz in cents, -50..50, that a sum of directions points to; None for none."""
    return float(np.angle(direction)) * 50.0 / math.pi if direction else None


def frame_peaks(samples: Samples, sample_rate: float) -> FramePeaks:
    """The spectral peaks of ``samples``, mono float32 [n] at ``sample_rate``; a last, incomplete frame is dropped.

    A recording shorter than a frame counts as one, filled up with silence. The rate is at least ``audio.MIN_RATE``.
    """
    size = round(FRAME_SECONDS * sample_rate)
    padded = _fast_length(size)
    if len(samples) < size:
        samples = np.pad(samples, (0, size - len(samples)))
    count = len(samples) // size
    direction = np.zeros(count, dtype=np.complex64)
    tonal = np.zeros(count, dtype=np.bool_)
    window = np.hanning(size).astype(np.float32)
    bin_hz = sample_rate / padded
    low = int(LOWEST_HZ / bin_hz)
    top = min(int(HIGHEST_HZ / bin_hz), padded // 2)  # what is sampled below 4 kHz has no 2 kHz
    high = low + (top - low) // FLOOR_BINS * FLOOR_BINS
    for start in range(0, count, BATCH):
        frames = samples[start * size : min(start + BATCH, count) * size].reshape(-1, size)
        spectrum = np.fft.rfft(frames * window, padded, axis=1)[:, low - 1 : high + 1]
        power = spectrum.real**2 + spectrum.imag**2 + np.float32(1e-18)
        chosen = slice(start, start + len(frames))
        direction[chosen], tonal[chosen] = _peaks(power.astype(np.float32, copy=False), low, bin_hz)
    return FramePeaks(size / sample_rate, direction, tonal)


def _fast_length(size: int) -> int:
    """The least length from ``size`` on without prime factors above 5, for which a Fourier transform is fast."""
    while True:
        rest = size
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return size
        size += 1


def _peaks(power: Floats, low: int, bin_hz: float) -> tuple[npt.NDArray[np.complex64], npt.NDArray[np.bool_]]:
    """Direction and tonality of each frame of ``power`` [frames, 1 + bins + 1], whose second bin is number ``low``.

    Logarithms are taken of the peaks alone: they cost more than the transform does.
    """
    here = power[:, 1:-1]
    rises = power[:, 1:] > power[:, :-1]
    least = here.max(axis=1, keepdims=True) * np.float32(10 ** (-PEAK_RANGE_DB / 10))
    place = np.flatnonzero(rises[:, :-1] & ~rises[:, 1:] & (here > least))
    frame, bins = np.divmod(place, here.shape[1])
    before = place + 2 * frame  # in ``power``, whose rows are two longer
    left, middle, right = (power.ravel().take(before + shift) for shift in range(3))

    floor = np.partition(here.reshape(len(here), -1, FLOOR_BINS), FLOOR_BINS // 2, axis=2)[:, :, FLOOR_BINS // 2]
    stands_out = middle > np.float32(10 ** (TONAL_DB / 10)) * floor.ravel().take(place // FLOOR_BINS)
    tonal = np.bincount(frame[stands_out], minlength=len(here)) >= TONAL_PEAK

    # Vertex of the parabola through three levels (J. O. Smith, Spectral Audio Signal Processing, "QIFFT").
    amplitude = np.sqrt(middle)
    left, middle, right = np.log10(left), np.log10(middle), np.log10(right)
    offset = np.float32(0.5) * (left - right) / np.minimum(left - 2 * middle + right, np.float32(-1e-7))
    frequency = ((bins + low).astype(np.float32) + offset) * np.float32(bin_hz)
    weight = np.sqrt(amplitude) * np.minimum(np.float32(1.0), frequency / np.float32(FULL_WEIGHT_HZ))
    semitones = np.float32(12.0) * np.log2(frequency / np.float32(440.0))
    angle = np.float32(2 * np.pi) * (semitones - np.rint(semitones))
    real = np.bincount(frame, weight * np.cos(angle), minlength=len(here))
    imaginary = np.bincount(frame, weight * np.sin(angle), minlength=len(here))
    return (real + 1j * imaginary).astype(np.complex64), tonal
