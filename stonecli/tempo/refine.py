"""The exact tempo of a recording near a rough one, whether the recording keeps it, and how clear the pulse is.

In steady music the spectrum of the onset novelty has peaks at the beat and its subdivisions that get sharper with the
length of the excerpt: in a minute, the fourth subdivision is resolved to a quarter of a beat per minute, and the
position of the peak is known to a hundredth. Chunks of a minute are summed as power, so that a break that shifts the
beat does not matter.

Chunks of 12 s tell whether there is a pulse at all: music has much more power at its tempo than at other tempi, speech
and music without a steady beat have not.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

CHUNK_SECONDS = 60.0
SHORT_SECONDS = 12.0  # a tempo that changes from one of these to the next is not steady
SEARCH = 0.04  # share of the tempo by which the exact one may differ from the rough one
STEP_BPM = 0.01
SUBDIVISIONS = (1, 2, 3, 4, 6, 8)  # spectral peaks per beat that are summed
OTHER_TEMPI = np.geomspace(55.0, 220.0, 65)  # two octaves, whose median power is that of no pulse
_SHORT_STEP = 10  # tempi; the peaks of short chunks are wide
_OVERSAMPLING = 3  # at least, of the spectrum by padding, so that cubic interpolation finds the peak

Floats = npt.NDArray[np.float32]


class Pulse(NamedTuple):
    """The pulse of a recording.

    Attributes:
        bpm: the exact tempo in beats per minute.
        stability: 0 to 1; 1 if the tempo never changes.
        clarity: power at the tempo divided by that at other tempi, both in chunks of 12 s; about 1 without a pulse.
    """

    bpm: float
    stability: float
    clarity: float


def refine_tempo(novelty: Floats, frame_rate: float, bpm: float) -> Pulse:
    """The pulse near a rough tempo.

    Args:
        novelty: float32 [frames, bands].
        frame_rate: frames per second.
        bpm: rough tempo, within 4 %.
    """
    onsets = novelty.mean(axis=1)
    tempi = np.arange(bpm * (1.0 - SEARCH), bpm * (1.0 + SEARCH), STEP_BPM)
    power = _Spectrum(onsets, frame_rate, CHUNK_SECONDS).pulse_power(tempi)
    best = float(tempi[power.argmax()])
    short = _Spectrum(onsets, frame_rate, SHORT_SECONDS)
    peak = max(float(short.pulse_power(tempi[::_SHORT_STEP]).max()), 1e-12)
    stability = float(np.clip(power.max() / peak, 0.0, 1.0))
    return Pulse(best, stability, peak / max(float(np.median(short.pulse_power(OTHER_TEMPI))), 1e-12))


class _Spectrum:
    """Power spectrum of the onsets, averaged over chunks that overlap by half.

    It is scaled such that the power of a steady pulse does not depend on the length of the chunks.

    Args:
        onsets: float32 [frames].
        frame_rate: frames per second.
        seconds: length of a chunk.
    """

    def __init__(self, onsets: Floats, frame_rate: float, seconds: float) -> None:
        size = min(len(onsets), round(seconds * frame_rate))
        taper = np.hanning(size).astype(np.float32)
        taper /= taper.sum()
        count = 1 + round((len(onsets) - size) / (size / 2))
        length = 1 << int(_OVERSAMPLING * size - 1).bit_length()
        self._bins_per_bpm = length / 60.0 / frame_rate
        self._power = np.zeros(length // 2 + 1)
        for start in np.linspace(0, len(onsets) - size, count).astype(int):
            chunk = onsets[start : start + size]
            spectrum = np.fft.rfft((chunk - chunk.mean()) * taper, length)
            self._power += spectrum.real**2 + spectrum.imag**2
        self._power /= count

    def pulse_power(self, tempi: npt.NDArray[np.float64]) -> Floats:
        """Sum of the power at the subdivisions of each tempo in beats per minute: float32 [len(tempi)]."""
        bins = np.multiply.outer(SUBDIVISIONS, tempi * self._bins_per_bpm)
        power: Floats = _interpolated(self._power, bins).sum(axis=0).astype(np.float32)
        return power


def _interpolated(values: npt.NDArray[np.float64], index: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Values between those of an array, by cubic convolution (Keys 1981); each index at most len(values) - 2."""
    whole = index.astype(np.int64)
    part = index - whole
    before, left, right, after = (values.take(whole + shift, mode="clip") for shift in (-1, 0, 1, 2))
    slope, curve = right - before, 2.0 * before - 5.0 * left + 4.0 * right - after
    rest = 3.0 * (left - right) + after - before
    out: npt.NDArray[np.float64] = left + 0.5 * part * (slope + part * (curve + part * rest))
    return out
