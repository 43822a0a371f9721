"""Checks the pitch and the sustain of sampled notes, and finds loop points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Loop: TypeAlias = tuple[int, int]
"""Start and end of a loop, in samples; the end is exclusive."""

LOOP_FADE = 0.1  # seconds of cross-fade from the end of a loop to its start

_WINDOWS = ((0.06, 0.6), (1.0, 1.6), (1.8, 2.4))  # windows in which the pitch of a note is measured, in seconds
_MIN_LEVEL = 10.0 ** (-30.0 / 20.0)  # minimum level of a window relative to the note's loudest window
_MIN_CLARITY = 0.6  # minimum periodicity, 0..1
_MIN_PEAK = 1e-3  # relative to full scale
_SUSTAINED = 10.0 ** (-15.0 / 20.0)  # minimum final level of a sustained note, relative to its loudest block
_BLOCK = 0.02  # seconds per value of the envelope


@dataclass(frozen=True, eq=False)
class Check:
    """The notes of a preset that have the requested pitch class.

    Attributes:
        pitches: measured MIDI pitch of each note, with a fraction.
        notes: float32 [notes, samples], scaled to a peak of 0.9.
        octaves: offset from the requested pitches, in octaves.
        sustains: whether the notes sustain until note-off.
        attack: time to 70 % of the peak level, in seconds.
    """

    pitches: list[float]
    notes: Floats
    octaves: int
    sustains: bool
    attack: float


def checked_notes(notes: Floats, requested: Sequence[int], rate: int, note_seconds: float) -> Check | str:
    """The notes whose pitch class is within 50 cents of the requested one; or the reason why there are none.

    Args:
        notes: float32 [notes, samples].
        requested: requested MIDI pitch of each note.
        rate: sampling rate in Hz.
        note_seconds: seconds from note-on to note-off.
    """
    if float(np.abs(notes).max(initial=0.0)) < _MIN_PEAK or not np.isfinite(notes).all():
        return "silent"
    found = [_deviation(note, pitch, rate) for note, pitch in zip(notes, requested, strict=True)]
    kept = [index for index, deviation in enumerate(found) if deviation is not None]
    if not kept:
        return "no note with the requested pitch"
    deviations = np.array([found[index] for index in kept], dtype=np.float64)
    octaves = round(float(np.median(np.round(deviations / 12.0))))
    detuning = float(np.median((deviations + 6.0) % 12.0 - 6.0))
    kept_notes = notes[kept]
    levels = np.array([_envelope(note, rate) for note in kept_notes])
    loudest = np.maximum(levels.max(axis=1), 1e-9)
    end = int(note_seconds / _BLOCK)
    final_levels = levels[:, max(0, end - 20) : end].mean(axis=1) / loudest
    attacks = (levels >= 0.7 * loudest[:, None]).argmax(axis=1) * _BLOCK
    return Check(
        pitches=[round(requested[index] + 12.0 * octaves + detuning, 3) for index in kept],
        notes=(kept_notes * np.float32(0.9 / np.abs(kept_notes).max())).astype(np.float32),
        octaves=octaves,
        sustains=bool(np.median(final_levels) > _SUSTAINED),
        attack=float(np.median(attacks)),
    )


def _deviation(note: Floats, requested: int, rate: int) -> float | None:
    """Semitones from the requested pitch to the measured one, in any octave; None if the pitch classes differ."""
    windows = [note[int(start * rate) : int(end * rate)] for start, end in _WINDOWS]
    levels = [float(np.sqrt(np.mean(window**2))) if len(window) else 0.0 for window in windows]
    if max(levels) < _MIN_PEAK:
        return None
    deviations = []
    for window, level in zip(windows, levels, strict=True):
        if level < _MIN_LEVEL * max(levels):
            continue
        pitch, clarity = pitch_of(window, rate)
        deviation = pitch - requested
        if clarity < _MIN_CLARITY or abs((deviation + 6.0) % 12.0 - 6.0) > 0.5:
            return None
        deviations.append(deviation)
    return deviations[0] if deviations else None


def pitch_of(samples: Floats, rate: int) -> tuple[float, float]:
    """MIDI pitch of one note, with a fraction, and its clarity 0..1; both are 0 if the samples are not periodic.

    The period is the first high peak of the normalized square difference function (McLeod and Wyvill, *A smarter way to
    find pitch*, ICMC 2005).
    """
    count = len(samples)
    longest = min(count // 2, rate // 20)  # 20 Hz
    centered = samples.astype(np.float64) - float(samples.mean())
    spectrum = np.fft.rfft(centered, 1 << (2 * count - 1).bit_length())
    products = np.fft.irfft(np.abs(spectrum) ** 2)[: longest + 1]
    squares = np.concatenate(([0.0], np.cumsum(centered**2)))
    lags = np.arange(longest + 1)
    energy = squares[count - lags] + squares[-1] - squares[lags]
    nsdf = 2.0 * products / np.maximum(energy, 1e-12)
    inner = nsdf[1:-1]
    peaks = np.flatnonzero((inner > nsdf[:-2]) & (inner >= nsdf[2:]) & (inner > 0.0)) + 1
    below = np.flatnonzero(nsdf < 0.0)
    if not len(below):
        return 0.0, 0.0
    peaks = peaks[peaks > below[0]]
    if not len(peaks):
        return 0.0, 0.0
    index = int(peaks[nsdf[peaks] >= 0.9 * nsdf[peaks].max()][0])
    left, middle, right = nsdf[index - 1 : index + 2]
    curve = left - 2.0 * middle + right
    lag = index + (0.5 * (left - right) / curve if curve < 0.0 else 0.0)
    return float(69.0 + 12.0 * np.log2(rate / lag / 440.0)), float(min(1.0, middle))


def _envelope(note: Floats, rate: int) -> npt.NDArray[np.float64]:
    block = int(_BLOCK * rate)
    blocks = len(note) // block
    power: npt.NDArray[np.float64] = (note[: blocks * block].reshape(blocks, block).astype(np.float64) ** 2).mean(
        axis=1
    )
    return np.sqrt(power)


def find_loop(note: Floats, rate: int, note_seconds: float) -> Loop:
    """Loop points of a sustained note, in samples, for the smoothest transition.

    The loop ends just before note-off. Its start maximizes the correlation of the audio before it with the audio before
    the loop end.
    """
    fade, end = int(LOOP_FADE * rate), int((note_seconds - 0.03) * rate)
    earliest, latest = int(0.3 * note_seconds * rate), int(0.75 * note_seconds * rate)
    pattern = note[end - fade : end].astype(np.float64)
    search = note[earliest - fade : latest].astype(np.float64)
    size = 1 << (len(search) + fade).bit_length()
    products = np.fft.irfft(np.fft.rfft(search, size) * np.conj(np.fft.rfft(pattern, size)), size)[: latest - earliest]
    squares = np.concatenate(([0.0], np.cumsum(search**2)))
    energy = squares[fade : fade + len(products)] - squares[: len(products)]
    start = earliest + int((products / np.sqrt(np.maximum(energy, 1e-9))).argmax())
    return start, end


def looped(note: Floats, loop: Loop, fade: int, samples: int) -> Floats:
    """``samples`` samples of a note whose ``loop`` is repeated with a cross-fade of ``fade`` samples, float32."""
    start, end = loop
    rising = np.linspace(0.0, 1.0, fade, dtype=np.float32)
    seam = note[end - fade : end] * (1.0 - rising) + note[start - fade : start] * rising
    body = np.concatenate((note[start : end - fade], seam))
    times = max(0, -(-(samples - end) // len(body)))
    whole: Floats = np.concatenate((note[: end - fade], seam, np.tile(body, times)))
    return whole[:samples].astype(np.float32)
