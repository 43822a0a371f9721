"""The exact tempo of a recording near a rough one, whether the recording keeps it, and how clear the pulse is.

In steady music the spectrum of the onset novelty has peaks at the beat and its subdivisions that get sharper with the
length of the excerpt: in a minute, the fourth subdivision is resolved to a quarter of a beat per minute, and the
position of the peak is known to a hundredth. Chunks of a minute are summed as power, so that a break that shifts the
beat does not matter.

Chunks of 12 s tell whether there is a pulse at all: music has much more power at its tempo than at other tempos, speech
and music without a steady beat have not.

Segments of 6 s tell whether the tempo is steady. With a free tempo, the spectrum of the whole recording has a highest
peak, too, but most segments do not have that tempo.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

CHUNK_SECONDS = 60.0
SHORT_SECONDS = 12.0  # a tempo that changes from one of these to the next is not steady
SEGMENT_SECONDS = 6.0
SEGMENT_SEARCH = 0.08  # natural logarithm of the ratio by which the tempo of a segment may differ
SEGMENT_TOLERANCE = 0.02  # share of the tempo by which the one of a segment that agrees may differ
SEARCH = 0.04  # share of the tempo by which the exact one may differ from the rough one
STEP_BPM = 0.01
SUBDIVISIONS = (1, 2, 3, 4, 6, 8)  # spectral peaks per beat that are summed
OTHER_TEMPOS = np.geomspace(55.0, 220.0, 65)  # two octaves, whose median power is that of no pulse
_SHORT_STEP = 10  # tempos; the peaks of short chunks are wide
_SEGMENT_STEPS = 65  # tempos that are tried per segment
_BATCH = 16  # chunks per transform
_OVERSAMPLING = 3  # at least, of the spectrum by padding, so that cubic interpolation finds the peak

Floats = npt.NDArray[np.float32]


class Pulse(NamedTuple):
    """The pulse of a recording.

    Attributes:
        bpm: the exact tempo in beats per minute.
        stability: 0 to 1; 1 if the tempo never changes, and all segments of 6 s have it.
        clarity: power at the tempo divided by that at other tempos, both in chunks of 12 s; about 1 without a pulse.
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
    tempos = np.arange(bpm * (1.0 - SEARCH), bpm * (1.0 + SEARCH), STEP_BPM)
    long, short = _Chunks(onsets, frame_rate, CHUNK_SECONDS), _Chunks(onsets, frame_rate, SHORT_SECONDS)
    power = long.pulse_power(long.mean(), tempos)
    best = float(tempos[power.argmax()])
    mean = short.mean()
    peak = max(float(short.pulse_power(mean, tempos[::_SHORT_STEP]).max()), 1e-12)
    clarity = peak / max(float(np.median(short.pulse_power(mean, OTHER_TEMPOS))), 1e-12)
    stability = min(float(power.max()) / peak, _agreement(_Chunks(onsets, frame_rate, SEGMENT_SECONDS), best))
    return Pulse(best, stability, clarity)


def _agreement(segments: _Chunks, bpm: float) -> float:
    """Share of the segments whose own tempo is ``bpm``, each weighted by the power of its pulse: 0..1."""
    factors = np.exp(np.linspace(-SEGMENT_SEARCH, SEGMENT_SEARCH, _SEGMENT_STEPS))
    agreeing = total = 0.0
    for powers in segments.powers():
        pulse = segments.pulse_power(powers, bpm * factors)
        weight = pulse.max(axis=1)
        agreeing += float(weight[np.abs(factors[pulse.argmax(axis=1)] - 1.0) <= SEGMENT_TOLERANCE].sum())
        total += float(weight.sum())
    return min(1.0, agreeing / max(total, 1e-12))


class _Chunks:
    """Power spectra of the onsets in chunks that overlap by half.

    They are scaled such that the power of a steady pulse does not depend on the length of the chunks.

    Args:
        onsets: float32 [frames].
        frame_rate: frames per second.
        seconds: length of a chunk.
    """

    def __init__(self, onsets: Floats, frame_rate: float, seconds: float) -> None:
        self._onsets = onsets
        self._size = size = min(len(onsets), round(seconds * frame_rate))
        taper = np.hanning(size).astype(np.float32)
        self._taper: Floats = taper / taper.sum()
        count = 1 + round((len(onsets) - size) / (size / 2))
        self._starts = np.linspace(0, len(onsets) - size, count).astype(int)
        self._length = 1 << (_OVERSAMPLING * size - 1).bit_length()
        self._bins_per_bpm = self._length / 60.0 / frame_rate

    def powers(self) -> Iterator[Floats]:
        """The spectra of a few chunks at a time: float32 [chunks, bins]."""
        for first in range(0, len(self._starts), _BATCH):
            chunks = np.stack([self._onsets[start : start + self._size] for start in self._starts[first:][:_BATCH]])
            chunks -= chunks.mean(axis=1, keepdims=True)
            spectrum = np.fft.rfft(chunks * self._taper, self._length)
            yield (spectrum.real**2 + spectrum.imag**2).astype(np.float32, copy=False)

    def mean(self) -> Floats:
        """The mean spectrum of all chunks: float32 [bins]."""
        total: Floats = sum((powers.sum(axis=0) for powers in self.powers()), np.zeros(1, dtype=np.float32))
        return total / np.float32(len(self._starts))

    def pulse_power(self, powers: Floats, tempos: npt.NDArray[np.float64]) -> Floats:
        """Sum of the power at the subdivisions of each tempo in beats per minute.

        Args:
            powers: float32 [..., bins].
            tempos: float64 [tempos].

        Returns:
            float32 [..., tempos].
        """
        bins = np.multiply.outer(SUBDIVISIONS, tempos * self._bins_per_bpm)
        pulse: Floats = _interpolated(powers, bins).sum(axis=-2)
        return pulse


def _interpolated(values: Floats, index: npt.NDArray[np.float64]) -> Floats:
    """Values between those on the last axis, by cubic convolution (Keys 1981): float32 [..., *index.shape]."""
    whole = index.astype(np.int64)
    part = (index - whole).astype(np.float32)
    before, left, right, after = (values.take(whole + shift, axis=-1, mode="clip") for shift in (-1, 0, 1, 2))
    slope, curve = right - before, 2.0 * before - 5.0 * left + 4.0 * right - after
    rest = 3.0 * (left - right) + after - before
    out: Floats = left + 0.5 * part * (slope + part * (curve + part * rest))
    return out
