"""Source-filter synthesis of singers: glides, drift, delayed vibrato, breath noise and doubled takes.

The source is a band-limited glottal pulse with noise; the filter has five formants per vowel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stonecli_train.corpus.arrange import Tone
from stonecli_train.corpus.synth import TABLE, fast_length

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

BLOCK = 64  # samples with constant pitch and level
PHRASE_GAP = 0.25  # seconds of silence that end a phrase
FALL_SECONDS = 0.18  # duration of the fall at the end of a phrase

# Formants in Hz of sung vowels: a, e, i, o, u, schwa (Peterson and Barney 1952, men; the upper two hardly vary).
_VOWELS = (
    (730, 1090, 2440, 3300, 3900), (530, 1840, 2480, 3400, 4000), (300, 2200, 2950, 3500, 4100),
    (500, 900, 2410, 3300, 3900), (320, 870, 2240, 3300, 3900), (550, 1400, 2400, 3300, 3900),
)  # fmt: skip
_WIDTHS = (80.0, 100.0, 140.0, 200.0, 260.0)
_TABLE_TOPS = tuple(110.0 * 2.0 ** (index / 2.0) for index in range(8))  # Hz, the highest pitch of each wavetable


@dataclass(frozen=True)
class Singer:
    """Parameters of a singer; pitches in semitones, times in seconds.

    Attributes:
        formant_scale: factor of the formant frequencies, 0.9 for a large man, 1.25 for a child.
        slope: spectral slope of the glottal pulse; a higher value is softer.
        ring: level of the singer's formant around 3 kHz.
        vowels: indices of the vowels in the lyrics.
        glide: time from one note to the next.
        scoops: probability that a phrase starts with a scoop from below.
        scoop_depth: depth of a scoop.
        vibrato, vibrato_rate, vibrato_delay: depth, rate in Hz, and onset.
        drift: standard deviation of the slow intonation drift.
        offset: standard deviation of the intonation from note to note.
        breath: level of breath noise.
        consonants: probability that a syllable starts with a consonant.
        falls: probability that a phrase ends with a fall.
    """

    formant_scale: float
    slope: float
    ring: float
    vowels: tuple[int, ...]
    glide: float
    scoops: float
    scoop_depth: float
    vibrato: float
    vibrato_rate: float
    vibrato_delay: float
    drift: float
    offset: float
    breath: float
    consonants: float
    falls: float


def draw_singer(rng: np.random.Generator, tones: Sequence[Tone]) -> Singer:
    """A random singer for the range of the tones; higher ranges get higher formants."""
    middle = float(np.median([tone.pitch for tone in tones])) if tones else 60.0
    return Singer(
        formant_scale=float(np.clip(0.95 + (middle - 50.0) / 100.0 + rng.normal(0.0, 0.05), 0.88, 1.28)),
        slope=float(rng.uniform(0.8, 1.5)),
        ring=float(rng.uniform(0.1, 0.5)),
        vowels=tuple(rng.choice(len(_VOWELS), 3, replace=False).tolist()),
        glide=float(rng.uniform(0.03, 0.13)),
        scoops=float(rng.uniform(0.0, 0.7)),
        scoop_depth=float(rng.uniform(0.5, 2.5)),
        vibrato=float(rng.uniform(0.0, 0.38)),  # deeper vibrato blurs the perceived pitch
        vibrato_rate=float(rng.uniform(4.8, 6.6)),
        vibrato_delay=float(rng.uniform(0.15, 0.5)),
        drift=float(rng.uniform(0.06, 0.22)),
        offset=float(rng.uniform(0.02, 0.12)),
        breath=float(np.exp(rng.uniform(np.log(0.01), np.log(0.12)))),
        consonants=float(rng.uniform(0.2, 0.8)),
        falls=float(rng.uniform(0.0, 0.3)),
    )


def sing(rng: np.random.Generator, tones: Sequence[Tone], samples: int, rate: int) -> Floats:
    """The monophonic tones sung by a random singer, sometimes in two or three takes, float32 [samples]."""
    sung = [tone for tone in tones if tone.start * rate < samples]
    out: Floats = np.zeros(samples, dtype=np.float32)
    if not sung:
        return out
    singer = draw_singer(rng, sung)
    blocks = samples // BLOCK + 2
    source = np.zeros(samples, dtype=np.float32)
    vowels: Doubles = np.zeros((0, blocks))
    for take in range(int(rng.choice([1, 1, 1, 2, 3]))):
        delay = 0.0 if take == 0 else float(rng.normal(0.0, 0.02))
        pitch, level, noise, shares = _contours(rng, sung, singer, blocks, rate / BLOCK, delay)
        voiced = _source(pitch, singer, samples, rate) * _interpolated(level, samples)
        hiss = rng.standard_normal(samples, dtype=np.float32) * _interpolated(noise + singer.breath * level, samples)
        source += (voiced + hiss) * np.float32(1.0 if take == 0 else 0.6)
        vowels = vowels if take else shares
    transform = np.fft.rfft(source, fast_length(samples))
    hertz = np.fft.rfftfreq(fast_length(samples), 1.0 / rate)
    for index, vowel in enumerate(singer.vowels):
        shaped = np.fft.irfft(transform * _formants(hertz, vowel, singer), fast_length(samples))[:samples]
        out += shaped * _interpolated(vowels[index], samples)
    return out * np.float32(0.2 / max(float(np.sqrt(np.mean(out**2))), 1e-9))


def _contours(
    rng: np.random.Generator, tones: Sequence[Tone], singer: Singer, blocks: int, blocks_per_second: float, delay: float
) -> tuple[Doubles, Doubles, Doubles, Doubles]:
    """Contours of pitch, voice level, noise level [blocks], and weights of the vowels [vowels, blocks].

    ``delay`` is the delay of the take in seconds.
    """
    pitch = np.full(blocks, float(tones[0].pitch))
    level, noise, bend = np.zeros(blocks), np.zeros(blocks), np.zeros(blocks)
    vowels = np.zeros((len(singer.vowels), blocks))
    starts = [min(blocks - 2, max(0, round((tone.start + delay) * blocks_per_second))) for tone in tones]
    ends_before, before = -1e9, tones[0].pitch
    for number, (tone, start) in enumerate(zip(tones, starts, strict=True)):
        following = starts[number + 1] if number + 1 < len(starts) else blocks
        end = max(start + 4, min(following, blocks, round((tone.start + delay + tone.duration) * blocks_per_second)))
        closes = following - end > PHRASE_GAP * blocks_per_second
        opens = start - ends_before > PHRASE_GAP * blocks_per_second
        length = min(end, blocks) - start
        if length <= 0:
            continue
        pitch[start:] = tone.pitch + rng.normal(0.0, singer.offset)
        _bend(rng, bend[start : start + length], blocks_per_second, singer, before - tone.pitch, opens, closes)
        loud = (tone.velocity / 127.0) ** 1.2 * float(np.exp(rng.normal(0.0, 0.15)))
        level[start : start + length] = loud * (0.75 + 0.25 * np.sin(np.pi * np.linspace(0.1, 1.0, length)))
        vowels[int(rng.integers(len(vowels))), start : start + length] = 1.0
        if rng.random() < singer.consonants:
            _say_consonant(rng, level, noise, start, loud, blocks_per_second)
        if opens and rng.random() < 0.5:
            taken = min(start, round(rng.uniform(0.15, 0.35) * blocks_per_second))
            if taken > 2:
                noise[start - taken : start] += 0.03 * np.sin(np.linspace(0.0, np.pi, taken))
        ends_before, before = end, tone.pitch
    silent = vowels.sum(axis=0) == 0
    vowels[0, silent] = 1.0
    wander = _smoothed(rng.standard_normal(blocks), int(0.4 * blocks_per_second))
    wander *= singer.drift / max(float(wander.std()), 1e-9)
    flutter = _smoothed(rng.standard_normal(blocks), 6)
    flutter *= 0.03 / max(float(flutter.std()), 1e-9)
    smooth = max(3, round(rng.uniform(0.02, 0.05) * blocks_per_second))
    blended = np.array([_smoothed(shares, max(3, round(0.06 * blocks_per_second))) for shares in vowels])
    return pitch + bend + wander + flutter, _smoothed(level, smooth), _smoothed(noise, 4), blended


def _bend(
    rng: np.random.Generator,
    bend: Doubles,
    blocks_per_second: float,
    singer: Singer,
    step: int,
    opens: bool,
    closes: bool,
) -> None:
    """Add scoop, glide or ornament, vibrato and fall of one tone to its ``bend``, in semitones per block.

    ``step`` is the interval from this tone to the one before; ``opens`` and ``closes`` mark the first and last
    tone of a phrase.
    """
    time = np.arange(len(bend)) / blocks_per_second
    if opens and rng.random() < singer.scoops:
        bend -= singer.scoop_depth * np.exp(-time / rng.uniform(0.03, 0.12))
    elif not opens and step:
        glide = singer.glide * rng.uniform(0.5, 1.6)
        bend += step * 0.5 * (1.0 - np.tanh((time - 0.4 * glide) / (0.35 * glide)))
    elif rng.random() < 0.15:  # an ornament from above or below within a phrase
        bend += rng.choice([-1.0, -0.6, 0.7]) * np.exp(-time / 0.05)
    onset = np.clip((time - singer.vibrato_delay) / 0.35, 0.0, 1.0)
    bend += singer.vibrato * onset * np.sin(2 * np.pi * singer.vibrato_rate * time + rng.uniform(0, 6.3))
    if closes and rng.random() < singer.falls:
        tail = min(len(bend), round(FALL_SECONDS * blocks_per_second))
        bend[-tail:] -= rng.uniform(1.5, 5.0) * np.linspace(0.0, 1.0, len(bend))[-tail:] ** 2


def _say_consonant(
    rng: np.random.Generator, level: Doubles, noise: Doubles, start: int, loud: float, blocks_per_second: float
) -> None:
    """Add a consonant: attenuate the voice briefly, and add a noise burst or hiss."""
    length = round(float(rng.choice([0.015, 0.03, 0.07, 0.1])) * blocks_per_second)
    first = max(0, start - length // 2)
    level[first : first + length] *= float(rng.choice([0.0, 0.2, 0.6]))
    noise[first : first + length] += loud * rng.uniform(0.0, 0.25)


def _source(pitch: Doubles, singer: Singer, samples: int, rate: int) -> Floats:
    """The glottal source, a pulse that is band-limited below the Nyquist frequency, float32 [samples]."""
    hertz = 440.0 * 2.0 ** ((pitch - 69.0) / 12.0)
    tops = np.array([*_TABLE_TOPS, 2000.0])
    tables = np.zeros((len(tops), TABLE), dtype=np.float32)
    for index, top in enumerate(tops.tolist()):
        count = max(2, min(TABLE // 2 - 1, int(0.45 * rate / top)))
        spectrum = np.zeros(TABLE // 2 + 1, dtype=np.complex128)
        spectrum[1 : count + 1] = -0.5j * TABLE / np.arange(1, count + 1) ** singer.slope
        tables[index] = np.fft.irfft(spectrum)
    tables /= float(tables.std())
    phase = np.cumsum(np.repeat(hertz, BLOCK)[:samples]) / rate
    which = np.repeat(np.minimum(np.searchsorted(tops, hertz), len(tops) - 1), BLOCK)[:samples]
    wave: Floats = tables[which, (phase * TABLE).astype(np.int64) & (TABLE - 1)]
    return wave


def _formants(hertz: npt.NDArray[np.floating], vowel: int, singer: Singer) -> Floats:
    response = np.full(len(hertz), 0.02)
    heights = (1.0, 0.55, 0.25 + 0.5 * singer.ring, 0.1 + 0.6 * singer.ring, 0.08)
    for center, width, height in zip(_VOWELS[vowel], _WIDTHS, heights, strict=True):
        response += height / (1.0 + ((hertz - center * singer.formant_scale) / width) ** 2)
    return response.astype(np.float32)


def _interpolated(values: Doubles, samples: int) -> Floats:
    """Linear interpolation of block values to ``samples`` samples."""
    short = values.astype(np.float32)
    ramp = np.arange(BLOCK, dtype=np.float32) / np.float32(BLOCK)
    drawn: Floats = (short[:-1, None] + np.diff(short)[:, None] * ramp).ravel()[:samples]
    return drawn


def _smoothed(values: Doubles, width: int) -> Doubles:
    padded = np.pad(values, (width // 2, width - 1 - width // 2), mode="edge")
    return np.convolve(padded, np.full(width, 1.0 / width), "valid")
