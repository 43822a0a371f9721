"""Augmentation of log-VQT features that preserves the key: equalizers, noise, drums, small loudspeakers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Features = npt.NDArray[np.uint8]

ENVELOPE_BINS = 13  # an octave: the mean over it has no pitch


def augmented(segment: Features, rng: np.random.Generator, other: Features | None = None) -> Features:
    """A randomly augmented copy of ``segment``, uint8 [frames, bins].

    Each of these changes is made at random: a spectral tilt; attenuation of the lowest or highest bins (small
    loudspeakers, dull recordings); broadband hits in a beat (drums); a noise floor; compression or expansion of the
    levels. With ``other``, also: less prominent partials, as under voices, drums and dense arrangements; the long-term
    spectrum of ``other`` instead of the segment's own; and the changes of its level over time. The pitches of ``other``
    are smoothed out.

    Args:
        segment: uint8 [frames, bins].
        rng: random generator.
        other: segment of a recording in any key, of the same shape, whose timbre is imitated; None for none.
    """
    frames, bins = segment.shape
    level = segment.astype(np.float32) / 255.0
    if other is not None:
        level = _less_prominent(level, rng)
        level = _with_timbre_of(level, other.astype(np.float32) / 255.0, rng)
    height = np.linspace(-1.0, 1.0, bins, dtype=np.float32)
    level = level + rng.normal(0.0, 0.08) * height + rng.normal(0.0, 0.05) * (height**2 - 0.3)
    if rng.random() < 0.3:
        level[:, : rng.integers(1, 30)] *= rng.random()
    if rng.random() < 0.3:
        level[:, rng.integers(bins // 2, bins) :] *= rng.random()
    if rng.random() < 0.3:
        level = np.maximum(level, _drum_hits(frames, height, rng))
    if rng.random() < 0.5:
        noise = rng.standard_normal((frames, bins), dtype=np.float32)
        level = np.maximum(level, rng.uniform(0.1, 0.5) + 0.03 * noise)
    if rng.random() < 0.2:
        level = np.maximum(level, 0.0) ** rng.uniform(0.7, 1.4)
    changed: Features = np.clip(np.rint(level * 255.0), 0, 255).astype(np.uint8)
    return changed


def band_limited(segment: Features, rng: np.random.Generator) -> Features:
    """A copy of ``segment``, uint8 [frames, bins], as through a telephone or a small speaker.

    Levels outside a band are attenuated by 6 to 41 dB (of the 80 dB range).
    """
    bins = segment.shape[1]
    level = segment.astype(np.int16)
    level[:, : rng.integers(0, 46)] -= rng.integers(20, 131, dtype=np.int16)
    level[:, rng.integers(bins * 3 // 4, bins) :] -= rng.integers(20, 131, dtype=np.int16)
    return np.clip(level, 0, 255).astype(np.uint8)


def _less_prominent(level: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    if rng.random() < 0.4:
        return level
    smooth = _octave_mean(level)
    return smooth + np.float32(rng.uniform(0.5, 1.05)) * (level - smooth)


def _with_timbre_of(
    level: npt.NDArray[np.float32], other: npt.NDArray[np.float32], rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    if rng.random() < 0.35:
        share = np.float32(rng.uniform(0.4, 1.0))
        level = level + share * (_octave_mean(other.mean(axis=0)[None]) - _octave_mean(level.mean(axis=0)[None]))
    if rng.random() < 0.3:
        grain = 0.02 * rng.standard_normal(level.shape, dtype=np.float32)
        level = np.maximum(level, _octave_mean(other) + grain - np.float32(rng.uniform(-0.03, 0.1)))
    return level


def _octave_mean(level: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Mean over the octave around each bin, the edges repeated; [frames, bins] -> the same."""
    half = ENVELOPE_BINS // 2
    padded = np.pad(level, ((0, 0), (half + 1, half)), mode="edge")
    total = np.cumsum(padded, axis=1, dtype=np.float32)
    return (total[:, ENVELOPE_BINS:] - total[:, :-ENVELOPE_BINS]) / np.float32(ENVELOPE_BINS)


def _drum_hits(frames: int, height: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Levels [frames, bins] of hits that decay, with one spectrum, in a beat of 8 to 48 frames (0.2 to 1.1 s)."""
    period = rng.uniform(8.0, 48.0)
    times = np.arange(rng.random() * period, frames, period)
    times = times[rng.random(len(times)) < 0.85].astype(int)
    strength = np.zeros(frames, dtype=np.float32)
    strength[times] = rng.uniform(0.6, 1.0, len(times))
    for frame in range(1, frames):
        strength[frame] = max(strength[frame], strength[frame - 1] * 0.8)
    spectrum = rng.uniform(0.4, 0.85) - rng.uniform(-0.2, 0.3) * height
    grain = 0.04 * rng.standard_normal((frames, len(height)), dtype=np.float32)
    hits: npt.NDArray[np.float32] = strength[:, None] * (spectrum + grain)
    return hits
