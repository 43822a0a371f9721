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
_OVERSAMPLING = 8  # of the spectrum by padding, so that linear interpolation finds the peak

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
    power = _pulse_power(onsets, frame_rate, tempi, CHUNK_SECONDS)
    best = float(tempi[power.argmax()])
    coarse = tempi[::_SHORT_STEP]
    short = _pulse_power(onsets, frame_rate, np.concatenate([coarse, OTHER_TEMPI]), SHORT_SECONDS)
    peak = max(float(short[: len(coarse)].max()), 1e-12)
    stability = float(np.clip(power.max() / peak, 0.0, 1.0))
    return Pulse(best, stability, peak / max(float(np.median(short[len(coarse) :])), 1e-12))


def _pulse_power(onsets: Floats, frame_rate: float, tempi: npt.NDArray[np.float64], seconds: float) -> Floats:
    """Spectral power of the onsets at the subdivisions of each tempo, averaged over chunks: float [len(tempi)].

    It is scaled such that the power of a steady pulse does not depend on the length of the chunks.
    """
    size = min(len(onsets), round(seconds * frame_rate))
    taper = np.hanning(size).astype(np.float32)
    taper /= taper.sum()
    count = 1 + round((len(onsets) - size) / (size / 2))
    length = 1 << (_OVERSAMPLING * size - 1).bit_length()
    bins = np.multiply.outer(SUBDIVISIONS, tempi / 60.0 / frame_rate * length)
    places = np.arange(int(bins.max()) + 2)
    total = np.zeros(len(tempi))
    for start in np.linspace(0, len(onsets) - size, count).astype(int):
        chunk = onsets[start : start + size]
        spectrum = np.fft.rfft((chunk - chunk.mean()) * taper, length)[: len(places)]
        total += np.interp(bins, places, spectrum.real**2 + spectrum.imag**2).sum(axis=0)
    return (total / count).astype(np.float32)
