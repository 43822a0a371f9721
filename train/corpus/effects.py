"""Effects on the whole mix: mastering, tape, vinyl, rooms, noise, telephone bands and codecs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pedalboard as pb

from stonecli_train.corpus import artifacts
from stonecli_train.corpus.codecs import GSM, coded, draw_codec
from stonecli_train.corpus.levels import gain_of, normalized
from stonecli_train.corpus.room import reverberation
from stonecli_train.corpus.tape import saturated, wavering

Floats = npt.NDArray[np.float32]

EQUALIZER_HZ = (60.0, 200.0, 600.0, 2000.0, 6000.0)  # center frequencies; the first and last bands are shelves
OLD = frozenset(
    ("jazz", "blues", "folk", "country", "soul", "bossa", "latin", "reggae", "orchestra", "chamber", "strings", "choir",
     "solo", "solo_piano", "classical_piano")
)  # fmt: skip
LOUD = frozenset(
    ("pop", "rock", "rock_riff", "metal", "metal_riff", "punk", "house", "techno", "trance", "drum_and_bass", "electro",
     "hiphop", "trap", "rap_bed", "disco", "rnb", "reggaeton", "dance_pop")
)  # fmt: skip


@dataclass(frozen=True)
class Effects:
    """Effects of an excerpt, in signal order; None, 0 or () disables one.

    Attributes:
        cents: detuning; applied by the caller, because it changes the length (``tape.detuned``).
        saturation_db: drive of the tape saturation.
        equalizer: gains in dB at ``EQUALIZER_HZ``.
        ratio: compression ratio of the mix.
        limited_db: limiter threshold in dB below the peak; a larger value gives a louder master.
        clipped_db: hard clipping threshold in dB below the peak.
        wow: maximum pitch deviation of wow and flutter, in cents.
        room, wet_db: size 0..1 of the room in which the record is played, and its level relative to the direct sound.
        low_pass, high_pass: cutoff frequencies in Hz.
        poles: number of poles of these filters, 6 dB per octave each.
        sampler_rate: sampling rate of a lo-fi sampler, in Hz.
        bits: bit depth of the sampler.
        noise_db: level of the noise in dB below the music.
        noise_slope: 0 for white, 1 for pink noise.
        crackles: vinyl clicks per second.
        hum: whether there is mains hum.
        codec, kilobits: codec and bit rate in kbit/s (``stonecli_train.corpus.codecs``).
        level_db: level of the peak in dB below 0.9.
    """

    cents: float = 0.0
    saturation_db: float = 0.0
    equalizer: tuple[float, ...] = ()
    ratio: float = 1.0
    limited_db: float = 0.0
    clipped_db: float = 0.0
    wow: float = 0.0
    room: float = 0.0
    wet_db: float = -12.0
    low_pass: float | None = None
    high_pass: float | None = None
    poles: int = 2
    sampler_rate: float | None = None
    bits: float = 0.0
    noise_db: float | None = None
    noise_slope: float = 1.0
    crackles: float = 0.0
    hum: bool = False
    codec: str | None = None
    kilobits: int = 32
    level_db: float = 0.0


def draw_effects(rng: np.random.Generator, style: str = "") -> Effects:
    """A random chain of effects for a style; most chains are nearly in tune and clean."""
    old, loud = style in OLD and rng.random() < 0.4, style in LOUD and rng.random() < 0.8
    is_band_limited = rng.random() < 0.06  # telephone, small radio
    low_pass, high_pass = None, None
    if is_band_limited:
        low_pass, high_pass = float(rng.uniform(3000, 4000)), float(rng.uniform(250, 450))
    else:
        if rng.random() < (0.7 if old else 0.3):
            low_pass = float(rng.uniform(2000, 9000))
        if rng.random() < 0.3:
            high_pass = float(rng.uniform(40, 250))
    codec, kilobits = draw_codec(rng) if rng.random() < 0.22 else (None, 32)
    if is_band_limited and rng.random() < 0.3:
        codec = GSM
    cents = rng.normal(0.0, 9.0) if rng.random() < 0.6 else rng.uniform(-46.0, 46.0)
    return Effects(
        cents=float(np.clip(cents, -46.0, 46.0)),
        saturation_db=float(rng.uniform(2, 14)) if rng.random() < (0.6 if old else 0.22) else 0.0,
        equalizer=tuple(rng.uniform(-8, 8, len(EQUALIZER_HZ)).tolist()) if rng.random() < 0.45 else (),
        ratio=float(rng.uniform(1.5, 6.0)) if rng.random() < 0.5 else 1.0,
        limited_db=float(rng.uniform(3, 14) if loud else rng.uniform(1, 8))
        if rng.random() < (0.8 if loud else 0.25)
        else 0.0,
        clipped_db=float(rng.uniform(1, 8)) if rng.random() < 0.08 else 0.0,
        wow=float(rng.uniform(2, 15)) if rng.random() < (0.5 if old else 0.05) else 0.0,
        room=float(rng.uniform(0.05, 0.9)) if rng.random() < 0.12 else 0.0,
        wet_db=float(rng.uniform(-15, 0)),
        low_pass=low_pass,
        high_pass=high_pass,
        poles=4 if is_band_limited else int(rng.integers(1, 4)),
        sampler_rate=float(rng.uniform(9000, 16000)) if rng.random() < 0.03 else None,
        bits=float(rng.uniform(6, 10)) if rng.random() < 0.03 else 0.0,
        noise_db=float(rng.uniform(14, 50)) if rng.random() < (0.7 if old else 0.3) else None,
        noise_slope=float(rng.choice([0.0, 0.5, 1.0])),
        crackles=float(rng.uniform(2, 30)) if rng.random() < (0.4 if old else 0.03) else 0.0,
        hum=bool(rng.random() < 0.04),
        codec=codec,
        kilobits=kilobits,
        level_db=float(rng.uniform(-30, 0)) if rng.random() < 0.2 else 0.0,
    )  # fmt: skip


def apply_effects(rng: np.random.Generator, samples: Floats, rate: int, effects: Effects) -> Floats:
    """The excerpt with all effects except detuning, float32 [samples] of the same length.

    Raises:
        StoneError: ffmpeg failed.
    """
    samples = normalized(samples)
    if effects.saturation_db:
        samples = saturated(samples, rate, effects.saturation_db)
    samples = _through(mastering(effects), normalized(samples), rate)
    if effects.wow:
        samples = wavering(rng, samples, rate, effects.wow)
    if effects.room:
        samples = samples + reverberation(samples, rate, effects.room, 0.5) * gain_of(effects.wet_db)
    samples = _through(filters(effects), samples, rate)
    if effects.noise_db is not None:
        samples = samples + artifacts.noise(rng, samples, rate, effects.noise_db, effects.noise_slope)
    if effects.crackles:
        samples = samples + artifacts.crackle(rng, samples, rate, effects.crackles)
    if effects.hum:
        samples = samples + artifacts.hum(rng, samples, rate)
    if effects.codec:
        samples = coded(normalized(samples), rate, effects.codec, effects.kilobits)
    return normalized(samples) * gain_of(effects.level_db)


def mastering(effects: Effects) -> list[pb.Plugin]:
    """Plugins for mastering: equalizer, compressor, limiter, clipping, for samples with a peak of 0.9."""
    chain: list[pb.Plugin] = []
    if effects.equalizer:
        low, *bells, high = zip(EQUALIZER_HZ, effects.equalizer, strict=True)
        chain.append(pb.LowShelfFilter(*low))
        chain += [pb.PeakFilter(hertz, decibels, 0.7) for hertz, decibels in bells]
        chain.append(pb.HighShelfFilter(*high))
    if effects.ratio > 1.0:
        chain.append(pb.Compressor(-18.0, effects.ratio, 10.0, 150.0))
    if effects.limited_db:
        chain.append(pb.Limiter(-effects.limited_db, 100.0))
    if effects.clipped_db:
        chain.append(pb.Clipping(-effects.clipped_db))
    return chain


def filters(effects: Effects) -> list[pb.Plugin]:
    """Plugins that limit the bandwidth, the sampling rate and the bit depth."""
    chain: list[pb.Plugin] = []
    if effects.low_pass:
        chain += [pb.LowpassFilter(effects.low_pass) for _ in range(effects.poles)]
    if effects.high_pass:
        chain += [pb.HighpassFilter(effects.high_pass) for _ in range(effects.poles)]
    if effects.sampler_rate:
        chain.append(pb.Resample(effects.sampler_rate, pb.Resample.Quality.Linear))
    if effects.bits:
        chain.append(pb.Bitcrush(effects.bits))
    return chain


def _through(chain: list[pb.Plugin], samples: Floats, rate: int) -> Floats:
    if not chain:
        return samples
    out: Floats = pb.Chain(chain)(samples, rate)
    return out
