"""How strongly each of the twelve pitch classes sounds over time: for pictures; the model has its own front end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stonecli.audio.decode import Samples

SAMPLE_RATE = 11025
FRAME = 4096  # samples: bins of 2.7 Hz, 0.37 s
LOWEST_HZ, HIGHEST_HZ = 80.0, 2000.0  # as for the tuning: below, a bin is half a semitone
MOST_COLUMNS = 800  # more are averaged: a picture shows no more


@dataclass(frozen=True, eq=False)
class Chroma:
    """Pitch classes over time.

    Attributes:
        levels: float32 [12, columns], C to B; each column's largest is 1, or all are 0 where it is silent.
        column_seconds: how long a column is.
    """

    levels: npt.NDArray[np.float32]
    column_seconds: float


def chroma_of(blocks: Iterable[Samples], tuning_cents: float = 0.0) -> Chroma:
    """The chroma of mono blocks, each float32 [n] at ``SAMPLE_RATE``; a recording shorter than a frame is filled up.

    Args:
        blocks: the recording.
        tuning_cents: its deviation from A = 440 Hz, which is taken out.
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
    together = -(-levels.shape[1] // MOST_COLUMNS)
    starts = np.arange(0, levels.shape[1], together)
    levels = np.add.reduceat(levels, starts, axis=1)
    loudest = levels.max(axis=0, keepdims=True)
    levels = np.divide(levels, loudest, out=np.zeros_like(levels), where=loudest > 0)
    return Chroma(levels.astype(np.float32), together * FRAME / SAMPLE_RATE)


def _frames_to_chroma(frames: Samples, matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    chroma: npt.NDArray[np.float32] = np.abs(np.fft.rfft(frames, axis=1)).astype(np.float32) @ matrix
    return chroma


def _pitch_class_matrix(tuning_cents: float) -> npt.NDArray[np.float32]:
    """float32 [bins, 12]: how much of each bin belongs to each pitch class; a triangle a semitone to either side."""
    frequencies = np.arange(FRAME // 2 + 1) * SAMPLE_RATE / FRAME
    used = (frequencies >= LOWEST_HZ) & (frequencies <= HIGHEST_HZ)
    semitones = 12 * np.log2(np.where(used, frequencies, 440.0) / 440.0) + 9 - tuning_cents / 100  # above C
    distance = np.abs((semitones[:, None] - np.arange(12) + 6) % 12 - 6)
    matrix: npt.NDArray[np.float32] = (np.maximum(0, 1 - distance) * used[:, None]).astype(np.float32)
    return matrix
