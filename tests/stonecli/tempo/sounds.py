"""Sounds with a known tempo."""

from __future__ import annotations

from collections.abc import Container

import numpy as np
import numpy.typing as npt

RATE = 11025

Floats = npt.NDArray[np.float32]


def drum_loop(bpm: float, seconds: float, rate: int = RATE) -> Floats:
    """Kick on one and three, snare on two and four, hi-hat on every eighth: mono, float32 [seconds * rate]."""
    return _loop(bpm, seconds, rate, kicks=(0, 8), snares=(4, 12), hats=range(0, 16, 2))


def dembow(bpm: float, seconds: float, rate: int = RATE) -> Floats:
    """The rhythm of reggaeton: kick on every beat, snare on the sixteenths 3, 6, 11, 14: float32 [seconds * rate]."""
    return _loop(bpm, seconds, rate, kicks=(0, 4, 8, 12), snares=(3, 6, 11, 14), hats=range(0, 16, 2))


def _loop(
    bpm: float, seconds: float, rate: int, *, kicks: Container[int], snares: Container[int], hats: Container[int]
) -> Floats:
    """A bar of 16 sixteenths, repeated, with the sixteenths of each drum."""
    rng = np.random.default_rng(0)
    count = round(seconds * rate)
    out = np.zeros(count + rate)
    time = np.arange(rate // 4) / rate
    kick = np.sin(2.0 * np.pi * 60.0 * time) * np.exp(-20.0 * time)
    snare = 0.6 * rng.standard_normal(len(time)) * np.exp(-25.0 * time)
    hat = 0.3 * np.diff(rng.standard_normal(len(time) + 1)) * np.exp(-80.0 * time)
    for sixteenth in range(2 * (int(seconds * bpm / 30.0) + 1)):
        start = round(sixteenth * 15.0 / bpm * rate)
        for hit, when in ((hat, hats), (kick, kicks), (snare, snares)):
            if start < count and sixteenth % 16 in when:
                out[start : start + len(hit)] += hit
    return (0.4 * out[:count]).astype(np.float32)


def random_clicks(seconds: float, rate: int = RATE) -> Floats:
    """Two clicks per second on average, at random times."""
    rng = np.random.default_rng(1)
    out = np.zeros(round(seconds * rate))
    click = np.exp(-np.arange(400) / 60.0)
    for start in rng.integers(0, len(out) - 400, round(2.0 * seconds)):
        out[start : start + 400] += click * rng.standard_normal(400)
    return (0.3 * out).astype(np.float32)


def speeding_up(seconds: float, rate: int = RATE) -> Floats:
    """A drum loop that gets faster, from 100 to 130 beats per minute."""
    loop = drum_loop(100.0, 1.3 * seconds, rate)
    position = np.cumsum(np.linspace(1.0, 1.3, round(seconds * rate)))
    return np.interp(position, np.arange(len(loop)), loop).astype(np.float32)


def rubato(seconds: float, rate: int = RATE, *, octaves: float = 0.5, seed: int = 2) -> Floats:
    """Notes of a plucked string without a beat; the standard deviation of their distances is half an octave."""
    rng = np.random.default_rng(seed)
    out = np.zeros(round(seconds * rate) + rate)
    time = np.arange(rate) / rate
    start = 0.0
    while start < seconds:
        note = np.sin(2.0 * np.pi * 220.0 * 2.0 ** (rng.integers(0, 12) / 12.0) * time) * np.exp(-4.0 * time)
        out[round(start * rate) :][:rate] += note[: len(out) - round(start * rate)]
        start += 0.5 * 2.0 ** rng.normal(0.0, octaves)
    return (0.3 * out[: round(seconds * rate)]).astype(np.float32)


def tone(hertz: float, seconds: float, rate: int = RATE) -> Floats:
    """A sine of constant level: mono, float32 [seconds * rate]."""
    return (0.3 * np.sin(2.0 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def mains_hum(hertz: float, noise_db: float, seconds: float) -> Floats:
    """Four partials of mains hum, and noise of ``noise_db`` relative to them."""
    time = np.arange(round(seconds * RATE)) / RATE
    hum = sum(np.sin(2.0 * np.pi * hertz * partial * time) / partial**2 for partial in range(1, 5))
    noise = np.random.default_rng(3).standard_normal(len(time))
    return (0.2 * (hum + 10.0 ** (noise_db / 20.0) * noise)).astype(np.float32)


def held_chord(
    notes: tuple[float, ...],
    seconds: float,
    *,
    saw: bool = True,
    cents: tuple[float, ...] = (0.0,),
    vibrato: float = 0.0,
    fade: float = 0.0,
) -> Floats:
    """Notes in Hz that are held without an attack: mono, float32 [seconds * RATE].

    Args:
        notes: frequencies in Hz.
        seconds: length.
        saw: sawtooth waves instead of sines.
        cents: detuning of the oscillators of each note.
        vibrato: depth in cents, five times per second.
        fade: seconds over which the chord fades in and out.
    """
    rng = np.random.default_rng(4)
    time = np.arange(round(seconds * RATE)) / RATE
    out = np.zeros(len(time))
    for note in notes:
        for detuning in cents:
            pitch = note * 2.0 ** (detuning / 1200.0)
            bend = pitch / 5.0 * (2.0 ** (vibrato / 1200.0) - 1.0) * np.sin(2.0 * np.pi * 5.0 * time)
            phase = 2.0 * np.pi * pitch * time + bend + rng.uniform(0.0, 6.0)
            for partial in range(1, int(5000.0 / pitch) + 1 if saw else 2):
                out += np.sin(partial * phase) / partial**1.3
    if fade:
        out *= np.clip(np.minimum(time, seconds - time) / fade, 0.0, 1.0)
    return (0.3 * out / np.abs(out).max()).astype(np.float32)
