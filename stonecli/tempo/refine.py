"""The exact tempo of a recording near a rough one, and whether the recording keeps it.

In steady music the spectrum of the onset novelty has peaks at the beat and its subdivisions that get sharper with the
length of the excerpt: in a minute, the fourth subdivision is resolved to a quarter of a beat per minute, and the
position of the peak is known to a hundredth. Chunks of a minute are summed as power, so that a break that shifts the
beat does not matter.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

CHUNK_SECONDS = 60.0
SHORT_SECONDS = 12.0  # a tempo that changes from one of these to the next is not steady
SEARCH = 0.04  # share of the tempo by which the exact one may differ from the rough one
STEP_BPM = 0.01
SUBDIVISIONS = (1, 2, 3, 4, 6, 8)  # spectral peaks per beat that are summed
_SHORT_STEP = 10  # tempi; the peaks of short chunks are wide
_OVERSAMPLING = 8  # of the spectrum by padding, so that linear interpolation finds the peak

Floats = npt.NDArray[np.float32]


def refine_tempo(novelty: Floats, frame_rate: float, bpm: float) -> tuple[float, float]:
    """The exact tempo in beats per minute, and the stability, 0 to 1: 1 if the tempo never changes.

    Args:
        novelty: float32 [frames, bands].
        frame_rate: frames per second.
        bpm: rough tempo, within 4 %.
    """
    onsets = novelty.mean(axis=1)
    tempi = np.arange(bpm * (1.0 - SEARCH), bpm * (1.0 + SEARCH), STEP_BPM)
    power = _pulse_power(onsets, frame_rate, tempi, CHUNK_SECONDS)
    best = float(tempi[power.argmax()])
    short = _pulse_power(onsets, frame_rate, tempi[::_SHORT_STEP], SHORT_SECONDS)
    return best, float(np.clip(power.max() / max(short.max(), 1e-12), 0.0, 1.0))


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
