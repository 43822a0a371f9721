"""What happens to a recording on its way: detuning, filters, room, compression, noise, distortion, codecs.

All linear filters of an excerpt, its room among them, are one multiplication of its spectrum.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from train.corpus.synth import fast_length

Floats = npt.NDArray[np.float32]

# Format, subtype, rate in Hz, compression levels of libsndfile, the best and the worst: MP3 at 72 to 24 kbit/s, Vorbis
# at 40 to 36, Opus at 24 to 9.
_CODECS: dict[str, tuple[str, str, int, tuple[float, float]]] = {
    "mp3": ("MP3", "MPEG_LAYER_III", 22050, (0.55, 0.9)),
    "vorbis": ("OGG", "VORBIS", 22050, (0.8, 1.0)),
    "opus": ("OGG", "OPUS", 24000, (0.92, 0.98)),
}


@dataclass(frozen=True)
class Effects:
    """What is done to an excerpt; a None or 0 is left out.

    Attributes:
        cents: detuning.
        drive: of the saturation.
        equaliser: gains in dB at 60, 200, 600, 2000 and 6000 Hz.
        low_pass, high_pass: corner frequencies in Hz.
        room: seconds of reverberation.
        wet: level of the room beside the dry sound.
        ratio: of the compressor.
        noise_db: level of noise below the music's.
        noise_slope: 0 for white, 1 for pink.
        crackles: a second, as of vinyl.
        hum: whether mains hum is in the noise.
        codec: name in ``_CODECS``.
        codec_level: 0..1 between its best and its worst.
        level_db: of the peak below full scale.
    """

    cents: float = 0.0
    drive: float = 0.0
    equaliser: tuple[float, ...] = ()
    low_pass: float | None = None
    high_pass: float | None = None
    room: float = 0.0
    wet: float = 0.0
    ratio: float = 1.0
    noise_db: float | None = None
    noise_slope: float = 1.0
    crackles: float = 0.0
    hum: bool = False
    codec: str | None = None
    codec_level: float = 0.5
    level_db: float = 0.0


def draw_effects(rng: np.random.Generator) -> Effects:
    """A chain as recordings have it: most are nearly in tune and clean, some are neither."""
    narrow = rng.random() < 0.06  # telephone, small radio
    low_pass, high_pass = None, None
    if narrow:
        low_pass, high_pass = float(rng.uniform(3000, 4000)), float(rng.uniform(250, 450))
    else:
        if rng.random() < 0.35:
            low_pass = float(rng.uniform(1800, 9000))
        if rng.random() < 0.3:
            high_pass = float(rng.uniform(40, 250))
    cents = rng.normal(0.0, 9.0) if rng.random() < 0.6 else rng.uniform(-46.0, 46.0)
    return Effects(
        cents=float(np.clip(cents, -46.0, 46.0)),
        drive=float(rng.uniform(1.0, 7.0)) if rng.random() < 0.22 else 0.0,
        equaliser=tuple(rng.uniform(-9, 9, 5).tolist()) if rng.random() < 0.5 else (),
        low_pass=low_pass,
        high_pass=high_pass,
        room=float(rng.uniform(0.2, 2.2)) if rng.random() < 0.4 else 0.0,
        wet=float(rng.uniform(0.1, 0.9)),
        ratio=float(rng.uniform(1.5, 8.0)) if rng.random() < 0.45 else 1.0,
        noise_db=float(rng.uniform(14, 50)) if rng.random() < 0.4 else None,
        noise_slope=float(rng.choice([0.0, 0.5, 1.0])),
        crackles=float(rng.uniform(2, 30)) if rng.random() < 0.1 else 0.0,
        hum=bool(rng.random() < 0.04),
        codec=str(rng.choice(["mp3", "vorbis", "opus"], p=[0.55, 0.3, 0.15])) if rng.random() < 0.14 else None,
        codec_level=float(rng.random()),
        level_db=float(rng.uniform(-30, 0)) if rng.random() < 0.2 else 0.0,
    )  # fmt: skip


def apply_effects(rng: np.random.Generator, samples: Floats, rate: int, effects: Effects) -> Floats:
    """The excerpt with all effects but the detuning; as long as before, its peak at ``level_db``."""
    samples = normalised(samples)
    if effects.drive:
        samples = saturated(samples, effects.drive)
    if effects.equaliser or effects.low_pass or effects.high_pass or effects.room:
        samples = _filtered(rng, samples, rate, effects)
    if effects.ratio > 1.0:
        samples = compressed(samples, rate, effects.ratio)
    if effects.noise_db is not None or effects.crackles or effects.hum:
        samples = samples + _dirt(rng, samples, rate, effects)
    if effects.codec:
        samples = coded(normalised(samples), rate, effects.codec, effects.codec_level)
    return normalised(samples) * np.float32(10.0 ** (effects.level_db / 20.0))


def normalised(samples: Floats) -> Floats:
    """The samples with a peak of 0.9; silence stays silence."""
    peak = float(np.abs(samples).max(initial=0.0))
    return samples * np.float32(0.9 / peak) if peak > 0 else samples


def detuned(samples: Floats, rate: int, cents: float) -> Floats:
    """The samples ``cents`` higher, and shorter by as much, as a tape that runs faster."""
    if abs(cents) < 0.5:
        return samples
    moved: Floats = soxr.resample(samples, rate * 2.0 ** (cents / 1200.0), rate, quality="MQ")
    return moved


def saturated(samples: Floats, drive: float) -> Floats:
    """Soft clipping; ``drive`` 1 is gentle, 10 a fuzz."""
    clipped: Floats = np.tanh(samples * np.float32(drive)) / np.float32(np.tanh(drive))
    return clipped


def amplified(samples: Floats, rate: int, drive: float) -> Floats:
    """A guitar through an amplifier and its cabinet: bass cut, hard clipping, 80 Hz to 4.5 kHz."""
    level = float(np.sqrt(np.mean(samples**2)))
    if level < 1e-6:
        return samples
    clipped = np.tanh(_spectrum_scaled(samples, rate, high_pass=120.0) * np.float32(drive / level))
    cabinet = _spectrum_scaled(clipped.astype(np.float32), rate, low_pass=4500.0, high_pass=80.0)
    loudness = float(np.sqrt(np.mean(cabinet**2)))
    return cabinet * np.float32(level / max(loudness, 1e-9))


def compressed(samples: Floats, rate: int, ratio: float) -> Floats:
    """Compression by ``ratio`` above -18 dB of the peak, with 5 ms attack and 100 ms release."""
    block = max(1, rate // 200)
    blocks = -(-len(samples) // block)
    padded = np.pad(np.abs(samples), (0, blocks * block - len(samples)))
    peaks = padded.reshape(blocks, block).max(axis=1).astype(np.float64)
    level, envelope, fall = 0.0, np.empty(blocks), np.exp(-1.0 / 20.0)
    for place, peak in enumerate(peaks.tolist()):
        level = max(peak, level * fall)
        envelope[place] = level
    threshold = 0.125 * float(peaks.max(initial=1e-9))
    gain = np.minimum(1.0, (np.maximum(envelope, 1e-9) / threshold) ** (1.0 / ratio - 1.0))
    at = np.interp(np.arange(len(samples)), np.arange(blocks) * block, gain)
    return (samples * at).astype(np.float32)


def coded(samples: Floats, rate: int, codec: str, level: float) -> Floats:
    """The samples after a lossy codec at a low rate; ``level`` 0..1 from its best to its worst."""
    container, subtype, codec_rate, (best, worst) = _CODECS[codec]
    source = samples if codec_rate == rate else soxr.resample(samples, rate, codec_rate, quality="MQ")
    file = io.BytesIO()
    compression = best + level * (worst - best)
    constant = "CONSTANT" if codec == "mp3" else None  # without it libsndfile writes 23 to 29 kbit/s at these levels
    with soundfile.SoundFile(
        file, "w", codec_rate, 1, subtype, format=container, compression_level=compression, bitrate_mode=constant
    ) as sound:
        for start in range(0, len(source), 65536):  # libsndfile overflows its stack on long writes of Vorbis
            sound.write(source[start : start + 65536])
    file.seek(0)
    decoded, _ = soundfile.read(file, dtype="float32")
    if codec_rate != rate:
        decoded = soxr.resample(decoded, codec_rate, rate, quality="MQ")
    decoded = decoded[: len(samples)]
    out: Floats = np.pad(decoded, (0, len(samples) - len(decoded))).astype(np.float32)
    return out


def _filtered(rng: np.random.Generator, samples: Floats, rate: int, effects: Effects) -> Floats:
    tail = int(effects.room * rate)
    size = fast_length(len(samples) + tail + 1)
    hertz = np.fft.rfftfreq(size, 1.0 / rate)
    response = _response(hertz, effects.low_pass, effects.high_pass)
    if effects.equaliser:
        bands = np.log2([60.0, 200.0, 600.0, 2000.0, 6000.0])
        gains = np.interp(np.log2(np.maximum(hertz, 1.0)), bands, effects.equaliser)
        response = response * 10.0 ** (gains / 20.0)
    spectrum = np.fft.rfft(samples, size) * response
    if tail:
        decay = np.exp(-6.9 * np.arange(tail) / tail)
        echo = np.fft.rfft(rng.standard_normal(tail) * decay, size) / (1.0 + (hertz / 4000.0) ** 2)
        echo *= effects.wet / np.sqrt(np.sum(decay**2))
        spectrum = spectrum * (1.0 + echo)
    out: Floats = np.fft.irfft(spectrum, size)[: len(samples)].astype(np.float32)
    return out


def _response(
    hertz: npt.NDArray[np.floating], low_pass: float | None, high_pass: float | None
) -> npt.NDArray[np.float64]:
    """Magnitudes of second-order Butterworth filters."""
    response = np.ones(len(hertz))
    if low_pass:
        response = response / np.sqrt(1.0 + (hertz / low_pass) ** 4)
    if high_pass:
        response = response / np.sqrt(1.0 + (high_pass / np.maximum(hertz, 1e-3)) ** 4)
    return response


def _spectrum_scaled(
    samples: Floats, rate: int, low_pass: float | None = None, high_pass: float | None = None
) -> Floats:
    size = fast_length(len(samples))
    response = _response(np.fft.rfftfreq(size, 1.0 / rate), low_pass, high_pass)
    out: Floats = np.fft.irfft(np.fft.rfft(samples, size) * response, size)[: len(samples)].astype(np.float32)
    return out


def _dirt(rng: np.random.Generator, samples: Floats, rate: int, effects: Effects) -> Floats:
    level = float(np.sqrt(np.mean(samples**2)))
    dirt = np.zeros(len(samples))
    if effects.noise_db is not None:
        noise = rng.standard_normal(len(samples))
        if effects.noise_slope:
            size = fast_length(len(samples))
            hertz = np.maximum(np.fft.rfftfreq(size, 1.0 / rate), 20.0)
            noise = np.fft.irfft(np.fft.rfft(noise, size) * hertz ** (-0.5 * effects.noise_slope), size)[: len(samples)]
        dirt += noise / max(float(np.std(noise)), 1e-9) * level * 10.0 ** (-effects.noise_db / 20.0)
    if effects.crackles:
        count = int(rng.poisson(effects.crackles * len(samples) / rate))
        places = rng.integers(0, max(1, len(samples) - 40), count)
        for place, height in zip(places.tolist(), rng.exponential(1.5 * level, count).tolist(), strict=True):
            click = height * np.exp(-np.arange(40) / 6.0) * rng.choice([-1.0, 1.0])
            dirt[place : place + 40] += click[: len(dirt) - place]
    if effects.hum:
        time = np.arange(len(samples)) / rate
        mains = float(rng.choice([50.0, 60.0]))
        dirt += level * 0.05 * sum(np.sin(2 * np.pi * mains * number * time) / number for number in (1, 2, 3, 5))
    return dirt.astype(np.float32)
