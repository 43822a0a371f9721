"""Sampled notes: pitch check, sustain check and loop points."""

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

_WINDOWS = ((0.06, 0.6), (1.0, 1.6), (1.8, 2.4))  # in seconds: where the pitch of a note is measured
_MIN_LEVEL = 10.0 ** (-30.0 / 20.0)  # minimum level of a window relative to the note's loudest window
_MIN_CLARITY = 0.6  # minimum periodicity, 0..1
_MIN_PEAK = 1e-3  # of full scale
_SUSTAINED = 10.0 ** (-15.0 / 20.0)  # minimum final level of a sustained note, relative to its loudest block
_BLOCK = 0.02  # seconds, of the envelope


@dataclass(frozen=True, eq=False)
class Check:
    """The notes of a preset with the requested pitch class.

    Attributes:
        pitches: as measured, MIDI with a fraction.
        notes: float32 [notes, samples], the loudest with a peak of 0.9.
        octaves: offset from the requested pitches.
        sustains: whether they sustain until note-off.
        attack: seconds until 70 % of the peak level.
    """

    pitches: list[float]
    notes: Floats
    octaves: int
    sustains: bool
    attack: float


def checked_notes(notes: Floats, asked: Sequence[int], rate: int, held: float) -> Check | str:
    """The notes whose pitch class is within 50 cents of the one ``asked`` for; or the reason why there are none.

    Args:
        notes: float32 [notes, samples].
        asked: requested MIDI pitch of each.
        rate: in Hz.
        held: seconds from the start of a note to its end.
    """
    if float(np.abs(notes).max(initial=0.0)) < _MIN_PEAK or not np.isfinite(notes).all():
        return "silent"
    found = [_deviation(note, pitch, rate) for note, pitch in zip(notes, asked, strict=True)]
    kept = [index for index, deviation in enumerate(found) if deviation is not None]
    if not kept:
        return "no pitch as asked"
    deviations = np.array([found[index] for index in kept], dtype=np.float64)
    octaves = round(float(np.median(np.round(deviations / 12.0))))
    detuned = float(np.median((deviations + 6.0) % 12.0 - 6.0))
    right = notes[kept]
    levels = np.array([_envelope(note, rate) for note in right])
    loudest = np.maximum(levels.max(axis=1), 1e-9)
    end = int(held / _BLOCK)
    lasting = levels[:, max(0, end - 20) : end].mean(axis=1) / loudest
    attacks = (levels >= 0.7 * loudest[:, None]).argmax(axis=1) * _BLOCK
    return Check(
        pitches=[round(asked[index] + 12.0 * octaves + detuned, 3) for index in kept],
        notes=(right * np.float32(0.9 / np.abs(right).max())).astype(np.float32),
        octaves=octaves,
        sustains=bool(np.median(lasting) > _SUSTAINED),
        attack=float(np.median(attacks)),
    )


def _deviation(note: Floats, asked: int, rate: int) -> float | None:
    """Semitones from the pitch ``asked`` for to the measured one, in any octave; None if their classes differ."""
    windows = [note[int(start * rate) : int(end * rate)] for start, end in _WINDOWS]
    levels = [float(np.sqrt(np.mean(window**2))) if len(window) else 0.0 for window in windows]
    if max(levels) < _MIN_PEAK:
        return None
    deviations = []
    for window, level in zip(windows, levels, strict=True):
        if level < _MIN_LEVEL * max(levels):
            continue
        pitch, clarity = pitch_of(window, rate)
        deviation = pitch - asked
        if clarity < _MIN_CLARITY or abs((deviation + 6.0) % 12.0 - 6.0) > 0.5:
            return None
        deviations.append(deviation)
    return deviations[0] if deviations else None


def pitch_of(samples: Floats, rate: int) -> tuple[float, float]:
    """MIDI pitch with a fraction, and its clarity 0..1, of one note.

    It is the first high peak of the normalized square difference function of McLeod and Wyvill, *A smarter way to find
    pitch* (2005).
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


def find_loop(note: Floats, rate: int, held: float) -> Loop:
    """Loop points of a sustained note for the smoothest transition.

    The loop ends just before the note does. Its start maximizes the correlation of the preceding audio with the audio
    before the loop end.
    """
    fade, end = int(LOOP_FADE * rate), int((held - 0.03) * rate)
    earliest, latest = int(0.3 * held * rate), int(0.75 * held * rate)
    pattern = note[end - fade : end].astype(np.float64)
    field = note[earliest - fade : latest].astype(np.float64)
    size = 1 << (len(field) + fade).bit_length()
    products = np.fft.irfft(np.fft.rfft(field, size) * np.conj(np.fft.rfft(pattern, size)), size)[: latest - earliest]
    squares = np.concatenate(([0.0], np.cumsum(field**2)))
    energy = squares[fade : fade + len(products)] - squares[: len(products)]
    start = earliest + int((products / np.sqrt(np.maximum(energy, 1e-9))).argmax())
    return start, end


def looped(note: Floats, loop: Loop, fade: int, samples: int) -> Floats:
    """The first ``samples`` samples of a note whose ``loop`` is repeated with a cross-fade of ``fade`` samples."""
    start, end = loop
    rising = np.linspace(0.0, 1.0, fade, dtype=np.float32)
    seam = note[end - fade : end] * (1.0 - rising) + note[start - fade : start] * rising
    body = np.concatenate((note[start : end - fade], seam))
    times = max(0, -(-(samples - end) // len(body)))
    whole: Floats = np.concatenate((note[: end - fade], seam, np.tile(body, times)))
    return whole[:samples].astype(np.float32)
