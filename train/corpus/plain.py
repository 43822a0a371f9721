"""Renders generated progressions in many styles with the built-in numpy synthesizers only.

This needs no soundfonts, no downloads and not the extra ``corpus``: ``stone train`` without data trains on this music.
``stonecli_train.corpus.excerpt`` renders the same scores with channel strips, rooms, tape and codecs.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from stonecli.errors import StoneError
from stonecli.key import Key
from stonecli_train.corpus import synth, voices
from stonecli_train.corpus.arrange import Part
from stonecli_train.corpus.levels import LEVELS_DB, active_rms, gain_of
from stonecli_train.corpus.sources import GENERATED, Library

RATE = 22050  # Hz, the default of VQTConfig
PLAIN_VOICE_SHARE = 0.2  # share of the singers that use the simpler synthesis
_MAX_ATTEMPTS = 12
_SPREAD_DB = 3.0  # standard deviation of a part's level
_WORK_LEVEL = 0.1  # RMS of a part

Floats = npt.NDArray[np.float32]


def plain_excerpt(seed: int, number: int, seconds: float, held_out: bool = False) -> tuple[Key, Floats]:
    """Key and samples of excerpt ``number`` of a seed: mono float32 [seconds * RATE], peak 0.9, A = 440 Hz.

    Args:
        seed: random seed.
        number: number of the excerpt, which depends on all arguments only.
        seconds: length in seconds.
        held_out: whether to use the loops and timbres that are excluded from training.

    Raises:
        StoneError: every attempt was silent; this does not happen with lengths of a few seconds or more.
    """
    count = round(seconds * RATE)
    for attempt in range(_MAX_ATTEMPTS):
        rng = np.random.default_rng([seed, number, int(held_out), attempt])
        excerpt = _library(held_out).draw(rng, GENERATED, seconds)
        mixed = np.zeros(count, dtype=np.float32)
        pitched = 0
        for part in excerpt.parts:
            sound = synthesized(rng, part, count, held_out)
            level = active_rms(sound, RATE)
            if level > 1e-7:
                pitched += part.role not in ("drums", "spoken")
                decibels = LEVELS_DB[part.role] + rng.normal(0.0, _SPREAD_DB)
                mixed += sound * (gain_of(float(decibels)) * np.float32(_WORK_LEVEL / level))
        peak = float(np.abs(mixed).max())
        if pitched and peak > 0.0:
            return excerpt.passage.key, mixed * np.float32(0.9 / peak)
    raise StoneError(
        f"excerpt {number} of seed {seed} is silent after {_MAX_ATTEMPTS} attempts; render longer excerpts"
    )


@cache
def _library(held_out: bool) -> Library:
    return Library({}, held_out)


def synthesized(rng: np.random.Generator, part: Part, count: int, held_out: bool) -> Floats:
    """Audio of a part from the built-in synthesizers, float32 [count] at ``RATE``."""
    if part.role == "spoken" or (part.role == "sung" and rng.random() < PLAIN_VOICE_SHARE):
        return synth.sing(rng, part.tones, count, RATE, spoken=part.role == "spoken")
    if part.role == "sung":
        return voices.sing(rng, part.tones, count, RATE)
    if part.role == "drums":
        return synth.play_drums(rng, part.tones, count, RATE)
    return synth.play_tones(part.tones, synth.draw_timbre(rng, part.role, held_out), count, RATE)
