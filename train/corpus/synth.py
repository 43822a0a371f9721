"""Simple synthesizers in numpy: wavetables with a closing filter, FM, 808, plucked strings, voices, drums.

Each part has one random timbre. Notes of the same pitch and duration are computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from stonecli_train.corpus.arrange import Role, Tone

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Kind = Literal["supersaw", "saw", "pulse", "organ", "pluck", "fm", "808", "flute"]

TRAINING_KINDS: dict[Role, tuple[Kind, ...]] = {
    "bass": ("saw", "808", "fm", "808", "organ"),
    "chords": ("supersaw", "organ", "fm", "saw", "pluck"),
    "lead": ("supersaw", "saw", "fm", "pluck"),
    "voice": ("organ", "pluck", "saw", "fm"),
}
HELD_OUT_KINDS: dict[Role, tuple[Kind, ...]] = {
    role: (("pulse", "flute", "pulse") if role != "bass" else ("pulse",)) for role in TRAINING_KINDS
}
TABLE = 4096  # samples per period of a wavetable
_BLOCK = 64  # samples per block, in which the pitch and level of a voice are constant
_HARMONICS = np.arange(1, TABLE // 4)

# Three formants of five vowels in Hz (Peterson and Barney 1952, men).
_VOWELS = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410))


@dataclass(frozen=True)
class Timbre:
    """Parameters of a synthesizer.

    Attributes:
        kind: kind of synthesis.
        cutoff: frequency above the fundamental at which the harmonics roll off, in Hz.
        closing: seconds in which the filter closes; 0 for a steady sound.
        attack, decay, release: envelope times in seconds; ``decay`` 0 for a sustained note.
        spread: detuning between the outermost of several oscillators, in cents.
        ratio, index: frequency ratio and modulation index of FM.
        shape: selects the pulse width or pluck position, or is the seed of the drawbars.
    """

    kind: Kind
    cutoff: float
    closing: float
    attack: float
    decay: float
    release: float
    spread: float
    ratio: float
    index: float
    shape: int


def draw_timbre(rng: np.random.Generator, role: Role, held_out: bool = False) -> Timbre:
    """A random timbre for a part of this role."""
    kinds = (HELD_OUT_KINDS if held_out else TRAINING_KINDS).get(role, ("saw",))
    kind = kinds[int(rng.integers(len(kinds)))]
    plucked = kind == "pluck" or rng.random() < 0.3
    return Timbre(
        kind=kind,
        cutoff=float(np.exp(rng.uniform(np.log(300), np.log(6000)))),
        closing=float(rng.choice([0.0, 0.1, 0.3])),
        attack=0.003 if plucked or role == "bass" else float(rng.choice([0.005, 0.02, 0.15])),
        decay=float(rng.uniform(0.15, 1.2)) if plucked else float(rng.choice([0.0, 0.0, 2.0])),
        release=float(rng.uniform(0.03, 0.25)),
        spread=float(rng.uniform(8, 40)) if kind == "supersaw" else 0.0,
        ratio=float(rng.choice([1, 1, 2, 3, 0.5])),
        index=float(rng.uniform(0.5, 5.0)),
        shape=int(rng.integers(1 << 16)),
    )


def play_tones(tones: Sequence[Tone], timbre: Timbre, samples: int, rate: int) -> Floats:
    """The tones in one timbre, float32 [samples]."""
    out = np.zeros(samples, dtype=np.float32)
    made: dict[tuple[int, int], Floats] = {}
    for tone in tones:
        start = int(tone.start * rate)
        if start >= samples:
            continue
        steps = max(2, min(round(tone.duration / 0.02), 600))
        if (tone.pitch, steps) not in made:
            made[tone.pitch, steps] = tone_of(timbre, tone.pitch, steps * 0.02, rate)
        wave = made[tone.pitch, steps][: samples - start]
        out[start : start + len(wave)] += wave * np.float32((tone.velocity / 127.0) ** 1.5)
    return out


def tone_of(timbre: Timbre, pitch: int, seconds: float, rate: int) -> Floats:
    """One note of ``seconds`` with its release, float32 [samples]."""
    count = int((seconds + timbre.release) * rate)
    time = np.arange(count, dtype=np.float32) / np.float32(rate)
    frequency = 440.0 * 2.0 ** ((pitch - 69) / 12.0)
    if timbre.kind == "808":
        glide = 0.04 * 2.0 ** (5.0 / 12.0) * (1.0 - np.exp(-time / 0.03))
        wave = np.sin(2 * np.pi * frequency * (time + glide * 0.5))
        wave = np.tanh(wave * np.float32(0.8 + timbre.index)).astype(np.float32)
    elif timbre.kind == "fm":
        bright = timbre.index * (np.exp(-time / 0.4) if timbre.closing else 1.0)
        phase = 2 * np.pi * frequency * time
        wave = np.sin(phase + bright * np.sin(phase * np.float32(timbre.ratio))).astype(np.float32)
    else:
        wave = _waves(timbre, frequency, time, rate)
    shaped: Floats = wave * _envelope(timbre, time, seconds)
    return shaped


def _waves(timbre: Timbre, frequency: float, time: Floats, rate: int) -> Floats:
    voices = 5 if timbre.kind == "supersaw" else 1
    cents = np.linspace(-0.5, 0.5, voices) * timbre.spread if voices > 1 else np.zeros(1)
    closed = _table(timbre, frequency, timbre.cutoff * (0.35 if timbre.closing else 1.0), rate)
    opened = _table(timbre, frequency, timbre.cutoff * 2.5, rate) if timbre.closing or timbre.kind == "pluck" else None
    vibrato = 0.0
    if timbre.kind == "flute":
        vibrato = 0.003 * np.sin(2 * np.pi * 5.3 * time)
    low = np.zeros(len(time), dtype=np.float32)
    high = np.zeros(len(time), dtype=np.float32)
    for position, cent in enumerate(cents):
        phase = frequency * 2.0 ** (cent / 1200.0) * time.astype(np.float64) + 0.37 * position + vibrato
        index = (phase * TABLE).astype(np.int64) & (TABLE - 1)
        low += closed[index]
        if opened is not None:
            high += opened[index]
    if opened is None:
        return low
    fade = np.exp(-time / np.float32(timbre.closing or 0.15)).astype(np.float32)
    mixed: Floats = low + fade * (high - low)
    return mixed


def _table(timbre: Timbre, frequency: float, cutoff: float, rate: int) -> Floats:
    """One period of the wave, band-limited below the Nyquist frequency, float32 [TABLE]."""
    number = _HARMONICS
    amplitude = 1.0 / number
    if timbre.kind == "pulse":
        amplitude = np.abs(np.sin(np.pi * number * (0.2 + 0.3 * (timbre.shape % 7) / 6.0))) / number
    elif timbre.kind == "organ":
        bars = np.random.default_rng(timbre.shape).uniform(0, 1, 8)
        bars[0] += 0.5
        amplitude = np.zeros(len(number))
        amplitude[[0, 1, 2, 3, 4, 5, 7, 9]] = bars
    elif timbre.kind == "flute":
        amplitude = np.exp(-1.1 * (number - 1.0)) + 0.1 / number**2
    elif timbre.kind == "pluck":
        amplitude = np.abs(np.sin(np.pi * number * (0.1 + 0.03 * (timbre.shape % 8)))) / number
    amplitude = amplitude / (1.0 + ((number - 1) * frequency / cutoff) ** 2) * (number * frequency < 0.45 * rate)
    spectrum = np.zeros(TABLE // 2 + 1, dtype=np.complex128)
    spectrum[1 : len(number) + 1] = -1j * amplitude * (TABLE // 2)
    wave = np.fft.irfft(spectrum)
    scaled: Floats = (wave / max(float(np.sqrt(np.mean(wave**2))), 1e-9) * 0.4).astype(np.float32)
    return scaled


def _envelope(timbre: Timbre, time: Floats, seconds: float) -> Floats:
    envelope = np.minimum(1.0, time / np.float32(timbre.attack))
    if timbre.decay:
        envelope = envelope * np.exp(-time / np.float32(timbre.decay))
    end = np.clip(1.0 - (time - np.float32(seconds)) / np.float32(timbre.release), 0.0, 1.0)
    shaped: Floats = (envelope * end).astype(np.float32)
    return shaped


def sing(rng: np.random.Generator, tones: Sequence[Tone], samples: int, rate: int, spoken: bool = False) -> Floats:
    """A voice that glides from note to note with vibrato, filtered by the formants of two vowels, float32 [samples].

    With ``spoken``, the pitch falls within each syllable and has no vibrato.
    """
    contours = _contours(rng, tones, -(-samples // _BLOCK), rate, spoken)
    if contours is None:
        return np.zeros(samples, dtype=np.float32)
    pitch, level, vowel = contours
    frequency, level, vowel = (
        np.repeat(values, _BLOCK)[:samples] for values in (440.0 * 2.0 ** ((pitch - 69) / 12.0), level, vowel)
    )
    phase = np.cumsum(frequency) / rate
    partials = min(max(3, int(0.45 * rate / float(frequency.max()))), 60)
    spectrum = np.zeros(TABLE // 2 + 1, dtype=np.complex128)
    spectrum[1 : partials + 1] = 1.0 / np.arange(1, partials + 1)
    table = np.fft.irfft(spectrum)
    breath = rng.uniform(0.005, 0.04) * rng.standard_normal(samples) * float(np.std(table))
    source = (table[(phase * TABLE).astype(np.int64) & (TABLE - 1)] + breath) * level
    size = fast_length(samples)
    transform = np.fft.rfft(source, size)
    hertz = np.fft.rfftfreq(size, 1.0 / rate)
    formant_scale = rng.uniform(0.95, 1.25)
    chosen = rng.choice(len(_VOWELS), 2, replace=False)
    voice = np.zeros(samples)
    for index, weight in zip(chosen.tolist(), (1.0 - vowel, vowel), strict=True):
        voice += weight * np.fft.irfft(transform * _formants(hertz, _VOWELS[index], formant_scale), size)[:samples]
    scaled: Floats = (voice / max(float(np.sqrt(np.mean(voice**2))), 1e-9) * 0.2).astype(np.float32)
    return scaled


def _contours(
    rng: np.random.Generator, tones: Sequence[Tone], blocks: int, rate: int, spoken: bool
) -> tuple[Doubles, Doubles, Doubles] | None:
    """Pitch (MIDI number), level (0..1) and share of the second vowel (0..1) per block; None if no tone sounds."""
    pitch, level, vowel = np.zeros(blocks), np.zeros(blocks), np.zeros(blocks)
    center = rng.normal(0.0, 0.08)
    for tone in tones:
        first, last = int(tone.start * rate / _BLOCK), min(blocks, int((tone.start + tone.duration) * rate / _BLOCK))
        if last <= first:
            continue
        line = np.full(last - first, tone.pitch + center + rng.normal(0.0, 0.06))
        if spoken:
            line += rng.normal(0.0, 1.5) - np.linspace(0.0, rng.uniform(1.0, 5.0), last - first)
        pitch[first:last], level[first:last] = line, tone.velocity / 127.0
        vowel[first:last] = rng.random()
    if not level.any():
        return None
    held = np.maximum.accumulate(np.where(pitch > 0, np.arange(blocks), 0))
    first_pitch = pitch[np.argmax(pitch > 0)]
    pitch = np.where(pitch[held] > 0, pitch[held], first_pitch)
    smooth = max(1, int(rng.uniform(0.02, 0.08) * rate / _BLOCK))
    pitch, level, vowel = (_smoothed(values, smooth) for values in (pitch, level, vowel))
    seconds = np.arange(blocks) * _BLOCK / rate
    if not spoken:
        pitch = pitch + rng.uniform(0, 0.45) * np.sin(2 * np.pi * rng.uniform(4.8, 6.4) * seconds)
    return pitch, level, vowel


def _formants(hertz: npt.NDArray[np.floating], vowel: tuple[int, ...], formant_scale: float) -> Doubles:
    response = np.full(len(hertz), 0.03)
    for center, width, height in zip(vowel, (90.0, 130.0, 200.0), (1.0, 0.6, 0.3), strict=True):
        response += height / (1.0 + ((hertz - center * formant_scale) / width) ** 2)
    return response


def _smoothed(values: Doubles, width: int) -> Doubles:
    padded = np.pad(values, (width // 2, width - 1 - width // 2), mode="edge")
    return np.convolve(padded, np.full(width, 1.0 / width), "valid")


def play_drums(rng: np.random.Generator, tones: Sequence[Tone], samples: int, rate: int) -> Floats:
    """General MIDI percussion from sines and noise, float32 [samples]."""
    out = np.zeros(samples, dtype=np.float32)
    kick, snare, hat = rng.uniform(42, 65), rng.uniform(150, 240), rng.uniform(0.02, 0.12)
    made: dict[int, Floats] = {}
    for tone in tones:
        start = int(tone.start * rate)
        if start >= samples:
            continue
        if tone.pitch not in made:
            made[tone.pitch] = _hit(rng, tone.pitch, kick, snare, hat, rate)
        wave = made[tone.pitch][: samples - start]
        out[start : start + len(wave)] += wave * np.float32((tone.velocity / 127.0) ** 1.5)
    return out


def _hit(rng: np.random.Generator, pitch: int, kick: float, snare: float, hat: float, rate: int) -> Floats:
    time = np.arange(int(0.4 * rate)) / rate
    noise = rng.standard_normal(len(time))
    if pitch in (35, 36):
        wave = 1.4 * np.sin(2 * np.pi * (kick * time + 6.0 * (1 - np.exp(-time / 0.02)) * 0.6)) * np.exp(-time / 0.12)
    elif pitch in (38, 39, 40):
        body = np.sin(2 * np.pi * snare * time) * np.exp(-time / 0.05) * (pitch != 39)
        wave = 0.5 * body + 0.35 * noise * np.exp(-time / 0.09)
    elif pitch in (41, 43, 45, 47):
        turns = 2.2 * kick * (pitch / 43) * time + 1.5 * (1 - np.exp(-time / 0.05))
        wave = 0.9 * np.sin(2 * np.pi * turns) * np.exp(-time / 0.15)
    else:
        length = 0.35 if pitch in (46, 49, 51) else hat
        wave = 0.3 * np.diff(noise, prepend=0.0) * np.exp(-time / length)
    hit: Floats = wave.astype(np.float32)
    return hit


def fast_length(samples: int) -> int:
    """The smallest FFT length of at least ``samples`` without prime factors above 5."""
    size = samples
    while True:
        rest = size
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return size
        size += 1
