"""Estimate the tuning of a recording and whether it is tonal, both from its spectral peaks.

A partial of a note that is tuned to A = 440 Hz is a whole number of semitones from 440 Hz. The deviation of each peak
is a phasor, with one turn per semitone. The angle of the resultant vector of all phasors is the tuning (as in Dressler
and Streich, *Tuning Frequency Estimation Using Circular Statistics*, ISMIR 2007).

Noise has peaks too, but none far above the rest: the levels of a power spectrum of noise are exponentially distributed,
and the third highest of 700 bins is 9 to 10 dB above the median. The partials of sustained notes are 20 dB and more
above it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stonecli.audio.channels import Samples

FRAME_SECONDS = 8192 / 22050  # bins of 2.7 Hz; constant, because borderline estimates change with the frame length
MIN_HZ, MAX_HZ = 80.0, 2000.0  # below, a bin is half a semitone wide; above, partials are inharmonic and noise is loud
PEAK_RANGE_DB = 40.0  # peaks this far below the highest of the frame are ignored
FULL_WEIGHT_HZ = 300.0  # the weight falls linearly below, where bins are wide in cents
FLOOR_BINS = 60  # bins per local median
TONAL_PEAKS = 3  # number of prominent peaks in a tonal frame; one or two may be hum or chance
TONAL_DB = 13.0  # a prominent peak is this far above the local median
BATCH = 24  # frames per batch: their 0.4 MB of spectra fit in the cache

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class FramePeaks:
    """Spectral peaks of consecutive frames without overlap.

    Attributes:
        frame_seconds: duration of a frame in seconds.
        phasor: complex64 [frames], weighted sum of the phasors of the peaks, one turn per semitone.
        tonal: bool [frames], whether enough peaks are prominent.
    """

    frame_seconds: float
    phasor: npt.NDArray[np.complex64]
    tonal: npt.NDArray[np.bool_]

    @property
    def resultant(self) -> complex:
        """Resultant vector of the tonal frames. Add those of several chunks before :func:`cents_of`."""
        return complex(self.phasor[self.tonal].sum())

    @property
    def total_length(self) -> float:
        """Sum of the lengths of the tonal frames' phasors: the length of ``resultant`` if all frames agreed."""
        return float(np.abs(self.phasor[self.tonal]).sum())

    def tonal_between(self, start: float, end: float) -> npt.NDArray[np.bool_]:
        """``tonal`` of the frames from ``start`` to ``end`` in seconds; at least one frame inside the recording."""
        first, last = int(max(start, 0.0) / self.frame_seconds), int(np.ceil(end / self.frame_seconds))
        if end > 0.0:
            first = min(first, len(self.tonal) - 1)  # the last frame stands for the dropped incomplete one
        return self.tonal[first : max(last, 0)]


def cents_of(resultant: complex) -> float | None:
    """Deviation from A = 440 Hz in cents, -50..50: the angle of a resultant vector; None for zero."""
    return float(np.angle(resultant)) * 50.0 / math.pi if resultant else None


def frame_peaks(samples: Samples, sample_rate: float) -> FramePeaks:
    """The spectral peaks of ``samples``, mono float32 [n] at ``sample_rate``; an incomplete last frame is dropped.

    A recording shorter than a frame is padded with zeros. The rate is at least ``stonecli.audio.source.MIN_RATE``.
    """
    size = round(FRAME_SECONDS * sample_rate)
    padded = _fast_length(size)
    if len(samples) < size:
        samples = np.pad(samples, (0, size - len(samples)))
    count = len(samples) // size
    phasor = np.zeros(count, dtype=np.complex64)
    tonal = np.zeros(count, dtype=np.bool_)
    window = np.hanning(size).astype(np.float32)
    bin_hz = sample_rate / padded
    low = int(MIN_HZ / bin_hz)
    top = min(int(MAX_HZ / bin_hz), padded // 2)  # below a sample rate of 4 kHz there is no 2 kHz
    high = low + (top - low) // FLOOR_BINS * FLOOR_BINS
    for start in range(0, count, BATCH):
        frames = samples[start * size : min(start + BATCH, count) * size].reshape(-1, size)
        spectrum = np.fft.rfft(frames * window, padded, axis=1)[:, low - 1 : high + 1]
        power = spectrum.real**2 + spectrum.imag**2 + np.float32(1e-18)
        batch = slice(start, start + len(frames))
        phasor[batch], tonal[batch] = _peaks(power.astype(np.float32, copy=False), low, bin_hz)
    return FramePeaks(size / sample_rate, phasor, tonal)


def _fast_length(size: int) -> int:
    """The smallest FFT length from ``size`` on without prime factors above 5, for which the FFT is fast."""
    while True:
        rest = size
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return size
        size += 1


def _peaks(power: Floats, low: int, bin_hz: float) -> tuple[npt.NDArray[np.complex64], npt.NDArray[np.bool_]]:
    """Phasor and tonality of each frame of ``power`` [frames, 1 + bins + 1], whose second bin is FFT bin ``low``.

    Logarithms are taken of the peaks only, because they take longer than the FFT.
    """
    inner = power[:, 1:-1]
    rises = power[:, 1:] > power[:, :-1]
    threshold = inner.max(axis=1, keepdims=True) * np.float32(10 ** (-PEAK_RANGE_DB / 10))
    position = np.flatnonzero(rises[:, :-1] & ~rises[:, 1:] & (inner > threshold))
    frame, bins = np.divmod(position, inner.shape[1])
    before = position + 2 * frame  # index in ``power``, whose rows are two bins longer
    left, middle, right = (power.ravel().take(before + shift) for shift in range(3))

    floor = np.partition(inner.reshape(len(inner), -1, FLOOR_BINS), FLOOR_BINS // 2, axis=2)[:, :, FLOOR_BINS // 2]
    is_prominent = middle > np.float32(10 ** (TONAL_DB / 10)) * floor.ravel().take(position // FLOOR_BINS)
    tonal = np.bincount(frame[is_prominent], minlength=len(inner)) >= TONAL_PEAKS

    # Vertex of the parabola through three levels (J. O. Smith, Spectral Audio Signal Processing, "QIFFT").
    amplitude = np.sqrt(middle)
    left, middle, right = np.log10(left), np.log10(middle), np.log10(right)
    offset = np.float32(0.5) * (left - right) / np.minimum(left - 2 * middle + right, np.float32(-1e-7))
    frequency = ((bins + low).astype(np.float32) + offset) * np.float32(bin_hz)
    weight = np.sqrt(amplitude) * np.minimum(np.float32(1.0), frequency / np.float32(FULL_WEIGHT_HZ))
    semitones = np.float32(12.0) * np.log2(frequency / np.float32(440.0))
    angle = np.float32(2 * np.pi) * (semitones - np.rint(semitones))
    real = np.bincount(frame, weight * np.cos(angle), minlength=len(inner))
    imaginary = np.bincount(frame, weight * np.sin(angle), minlength=len(inner))
    return (real + 1j * imaginary).astype(np.complex64), tonal
