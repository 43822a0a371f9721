"""Chroma: the energy of the twelve pitch classes over time. For plots only; the model has its own front end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stonecli.audio.channels import Samples

SAMPLE_RATE = 11025
FRAME = 4096  # samples: bins of 2.7 Hz, 0.37 s
MIN_HZ, MAX_HZ = 80.0, 2000.0  # as for the tuning: below 80 Hz a bin is half a semitone wide
MAX_COLUMNS = 800  # a longer recording is averaged to this many, which is all that a plot can show


@dataclass(frozen=True, eq=False)
class Chroma:
    """Pitch classes over time.

    Attributes:
        levels: float32 [12, columns], C to B; the maximum of each column is 1, or 0 in silence.
        column_seconds: duration of a column in seconds.
    """

    levels: npt.NDArray[np.float32]
    column_seconds: float


def chroma_of(blocks: Iterable[Samples], tuning_cents: float = 0.0) -> Chroma:
    """The chroma of mono blocks, each float32 [n] at ``SAMPLE_RATE``; pads a recording shorter than a frame.

    Args:
        blocks: the recording.
        tuning_cents: its deviation from A = 440 Hz, which is corrected.
    """
    matrix = _pitch_class_matrix(tuning_cents)
    window = np.hanning(FRAME).astype(np.float32)
    rest = np.zeros(0, dtype=np.float32)
    parts = []
    for block in blocks:
        samples = np.concatenate([rest, block])
        count = len(samples) // FRAME
        if count:
            parts.append(_frames_to_chroma(samples[: count * FRAME].reshape(count, FRAME) * window, matrix))
        rest = samples[count * FRAME :]
    if not parts:
        parts.append(_frames_to_chroma(np.resize(np.append(rest, 0.0), (1, FRAME)).astype(np.float32) * window, matrix))
    levels = np.concatenate(parts).T
    frames_per_column = -(-levels.shape[1] // MAX_COLUMNS)
    starts = np.arange(0, levels.shape[1], frames_per_column)
    levels = np.add.reduceat(levels, starts, axis=1)
    loudest = levels.max(axis=0, keepdims=True)
    levels = np.divide(levels, loudest, out=np.zeros_like(levels), where=loudest > 0)
    return Chroma(levels.astype(np.float32), frames_per_column * FRAME / SAMPLE_RATE)


def _frames_to_chroma(frames: Samples, matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    chroma: npt.NDArray[np.float32] = np.abs(np.fft.rfft(frames, axis=1)).astype(np.float32) @ matrix
    return chroma


def _pitch_class_matrix(tuning_cents: float) -> npt.NDArray[np.float32]:
    """The weight of each bin in each pitch class, float32 [bins, 12]: a triangle of a semitone to either side."""
    frequencies = np.arange(FRAME // 2 + 1) * SAMPLE_RATE / FRAME
    used = (frequencies >= MIN_HZ) & (frequencies <= MAX_HZ)
    semitones = 12 * np.log2(np.where(used, frequencies, 440.0) / 440.0) + 9 - tuning_cents / 100  # above C
    distance = np.abs((semitones[:, None] - np.arange(12) + 6) % 12 - 6)
    matrix: npt.NDArray[np.float32] = (np.maximum(0, 1 - distance) * used[:, None]).astype(np.float32)
    return matrix
