"""Mixes the parts of an arrangement: channel strips, levels by style, ducking, a shared reverb."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pedalboard

from stonecli_train.corpus.amplifier import amplified
from stonecli_train.corpus.arrange import Part, Role
from stonecli_train.corpus.drums import KICKS
from stonecli_train.corpus.levels import LEVELS_DB, active_rms, as_loud_as, gain_of
from stonecli_train.corpus.room import reflected, reverberation
from stonecli_train.corpus.strips import draw_strip

Floats = npt.NDArray[np.float32]

_SPREAD_DB = 2.5  # standard deviation of a part's level
_WORK_LEVEL = 0.1  # RMS in a channel strip: -20 dB, for which the compressors are set
DRUMS_IN_FRONT = frozenset(
    ("hiphop", "trap", "rap_bed", "rnb", "reggaeton", "dance_pop", "disco", "metal", "metal_riff", "house", "techno",
     "trance", "drum_and_bass", "electro", "punk", "funk")
)  # fmt: skip
DRUMS_BEHIND = frozenset(("jazz", "bossa", "folk", "country", "ballad", "latin", "soul", "blues"))
CHORDS_BEHIND = frozenset(("hiphop", "trap", "rap_bed", "drum_and_bass", "funk", "disco"))
GUITARS_IN_FRONT = frozenset(("rock", "rock_riff", "metal", "metal_riff", "punk"))
DUCKED = frozenset(("dance_pop", "house", "techno", "trance", "disco", "electro"))
ACOUSTIC = frozenset(
    ("jazz", "bossa", "folk", "solo", "solo_piano", "solo_guitar", "orchestra", "strings", "choir", "classical_piano",
     "chamber")
)  # fmt: skip
_SENDS: dict[Role, float] = {"drums": 0.35, "bass": 0.1, "sung": 1.0, "spoken": 0.5}  # send level of the reverb; else 1


def mix(rng: np.random.Generator, parts: Sequence[Part], stems: Sequence[Floats], rate: int, style: str = "") -> Floats:
    """The mix of the parts, float32 [samples]; silence if all parts are silent.

    Args:
        rng: random generator of the excerpt.
        parts: parts of the arrangement.
        stems: audio of each part, float32 [samples] of equal length, at any level.
        rate: sampling rate in Hz.
        style: name of the style; empty for none.
    """
    mixed, send = np.zeros_like(stems[0]), np.zeros_like(stems[0])
    strength = rng.uniform(0.2, 0.9) if rng.random() < (0.8 if style in ACOUSTIC else 0.35) else 0.0
    duck = _draw_ducking(rng, parts, len(mixed), rate, style)
    for part, stem in zip(parts, stems, strict=True):
        sound = _channel(rng, part, stem, rate, strength)
        level = active_rms(sound, rate)
        if level < 1e-7:
            continue
        sound = sound * (gain_of(draw_level(rng, part, style)) * np.float32(_WORK_LEVEL / level))
        if duck is not None and part.role not in ("drums", "sung", "spoken"):
            sound *= duck
        mixed += sound
        send += sound * np.float32(_SENDS.get(part.role, 1.0) * rng.uniform(0.3, 1.0))
    if rng.random() < (0.85 if style in ACOUSTIC else 0.65):
        mixed += _room(rng, send, rate, style)
    return mixed


def draw_level(rng: np.random.Generator, part: Part, style: str) -> float:
    """A random level of a part in the mix, -16 to 16 dB, around the usual one of its role and style."""
    decibels = LEVELS_DB[part.role] + 20.0 * np.log10(max(part.gain, 0.1)) + rng.normal(0.0, _SPREAD_DB)
    if part.role == "drums":
        decibels += 2.0 * (style in DRUMS_IN_FRONT) - 4.0 * (style in DRUMS_BEHIND)
    elif part.role == "chords":
        decibels -= 3.0 * (style in CHORDS_BEHIND)
    if part.amplified:
        decibels += 3.0 * (style in GUITARS_IN_FRONT)
    return float(np.clip(decibels, -16.0, 16.0))


def ducked_gain(kicks: Sequence[float], count: int, rate: int, depth: float, release: float) -> Floats:
    """Gain of a side-chain compressor, float32 [count]: ``1 - depth`` at each kick drum, then a rise back to 1.

    Args:
        kicks: times of the kick drums in seconds, ascending.
        count: number of samples.
        rate: sampling rate in Hz.
        depth: maximum gain reduction, 0..1.
        release: approximate time of the rise in seconds.
    """
    starts = np.array([round(kick * rate) for kick in kicks if 0 <= kick * rate < count], dtype=np.int64)
    gain = np.ones(count, dtype=np.float32)
    curve = (1.0 - depth * np.exp(-((np.arange(int(4 * release * rate)) / (release * rate)) ** 2))).astype(np.float32)
    for start, end in zip(starts.tolist(), np.append(starts, count)[1:].tolist(), strict=True):
        length = min(end - start, len(curve))
        gain[start : start + length] = curve[:length]
    attack = max(1, round(0.004 * rate))  # smoothing, which avoids a click at each kick drum
    steps = np.cumsum(np.pad(gain, (attack, 0), mode="edge"), dtype=np.float64)
    return ((steps[attack:] - steps[:-attack]) / attack).astype(np.float32)


def _draw_ducking(rng: np.random.Generator, parts: Sequence[Part], count: int, rate: int, style: str) -> Floats | None:
    kicks = sorted(tone.start for part in parts if part.role == "drums" for tone in part.tones if tone.pitch in KICKS)
    if not kicks or rng.random() > (0.6 if style in DUCKED else 0.03):
        return None
    return ducked_gain(kicks, count, rate, float(rng.uniform(0.3, 0.9)), float(rng.uniform(0.08, 0.25)))


def _channel(rng: np.random.Generator, part: Part, stem: Floats, rate: int, strength: float) -> Floats:
    level = active_rms(stem, rate)
    if level < 1e-7:
        return stem
    sound = stem * np.float32(_WORK_LEVEL / level)
    if part.amplified:
        sound = amplified(rng, sound, rate, float(rng.uniform(4.0, 40.0)))
    strip = draw_strip(rng, part)
    if strip:
        sound = pedalboard.Chain(strip)(sound, rate)
    if strength and not part.synthesized:
        sound = reflected(rng, sound, rate, strength)
    return sound


def _room(rng: np.random.Generator, send: Floats, rate: int, style: str) -> Floats:
    size = float(rng.uniform(0.3, 0.95) if style in ACOUSTIC else rng.uniform(0.1, 0.8))
    early = max(1, round(rng.uniform(0.0, 0.04) * rate))
    wet = reverberation(send, rate, size, float(rng.uniform(0.2, 0.9)))
    late = np.concatenate([np.zeros(early, dtype=np.float32), wet[:-early]])
    return as_loud_as(late, send) * gain_of(float(rng.uniform(-24.0, -6.0)))
