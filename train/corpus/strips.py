"""Channel strips: random effects on a part before mixing, by its instrument."""

from __future__ import annotations

import numpy as np
import pedalboard as pb

from stonecli_train.corpus.arrange import Part

# General MIDI programs, from 0.
_GUITARS = frozenset(range(24, 32))
_KEYS = frozenset((*range(8), *range(16, 24)))
_PADS = frozenset((*range(48, 56), *range(88, 96)))
_CHORUS_SPEED = 0.2  # depth times Hz; above this, a chorus is audibly out of tune


def draw_strip(rng: np.random.Generator, part: Part) -> list[pb.Plugin]:
    """Random plugins in signal order; none of them shifts the mean pitch or adds inharmonic tones."""
    if part.role == "drums":
        return _drums(rng)
    if part.role == "bass":
        return _bass(rng)
    if part.role in ("sung", "spoken"):
        return _voice(rng)
    return _instrument(rng, part)


def _drums(rng: np.random.Generator) -> list[pb.Plugin]:
    strip: list[pb.Plugin] = []
    if rng.random() < 0.5:
        strip.append(pb.LowShelfFilter(float(rng.uniform(60, 120)), float(rng.uniform(-2, 7))))
    if rng.random() < 0.4:
        strip.append(pb.HighShelfFilter(float(rng.uniform(3000, 6000)), float(rng.uniform(-6, 6))))
    if rng.random() < 0.6:
        strip.append(_compressor(rng, (2, 25), (40, 200)))
    if rng.random() < 0.12:
        strip.append(pb.Distortion(float(rng.uniform(3, 15))))
    if rng.random() < 0.05:
        strip.append(pb.Bitcrush(float(rng.uniform(5, 9))))
    return strip


def _bass(rng: np.random.Generator) -> list[pb.Plugin]:
    strip: list[pb.Plugin] = []
    if rng.random() < 0.7:
        strip.append(_compressor(rng, (5, 30), (80, 300)))
    if rng.random() < 0.2:
        strip.append(pb.Distortion(float(rng.uniform(3, 18))))
    if rng.random() < 0.3:
        strip.append(pb.LowpassFilter(float(rng.uniform(400, 2500))))
    if rng.random() < 0.07:
        strip.append(_chorus(rng))
    return strip


def _voice(rng: np.random.Generator) -> list[pb.Plugin]:
    strip: list[pb.Plugin] = [pb.HighpassFilter(float(rng.uniform(70, 160)))]
    if rng.random() < 0.85:
        strip.append(_compressor(rng, (1, 10), (50, 200)))
    if rng.random() < 0.6:
        strip.append(pb.PeakFilter(float(rng.uniform(2000, 5000)), float(rng.uniform(1, 6)), 0.8))
    if rng.random() < 0.06:
        strip.append(pb.Distortion(float(rng.uniform(6, 20))))
    if rng.random() < 0.15:
        strip.append(_chorus(rng))
    if rng.random() < 0.35:
        strip.append(_delay(rng))
    return strip


def _instrument(rng: np.random.Generator, part: Part) -> list[pb.Plugin]:
    strip: list[pb.Plugin] = []
    guitar, keys, pad = (part.program in programs for programs in (_GUITARS, _KEYS, _PADS))
    electric = part.synthesized or guitar or pad
    if rng.random() < 0.3:
        strip.append(_compressor(rng, (3, 30), (60, 300)))
    if rng.random() < 0.4:
        strip.append(pb.HighpassFilter(float(rng.uniform(80, 350))))  # leaves room for the bass
    if rng.random() < 0.35:
        strip.append(pb.PeakFilter(float(rng.uniform(300, 4000)), float(rng.uniform(-7, 7)), 0.8))
    if electric and rng.random() < 0.15:
        mode = pb.LadderFilter.Mode.LPF12 if rng.random() < 0.5 else pb.LadderFilter.Mode.LPF24
        strip.append(pb.LadderFilter(mode, float(np.exp(rng.uniform(6.2, 8.3))), float(rng.uniform(0, 0.5))))
    if not part.amplified and (guitar or keys or part.synthesized) and rng.random() < 0.08:
        strip.append(pb.Distortion(float(rng.uniform(3, 15))))
    if rng.random() < (0.3 if electric or keys else 0.04):
        strip.append(_chorus(rng))
    if rng.random() < (0.12 if electric or keys else 0.0):
        strip.append(
            pb.Phaser(
                float(rng.uniform(0.1, 1.2)), float(rng.uniform(0.3, 0.8)), float(rng.uniform(400, 1800)),
                float(rng.uniform(0.0, 0.5)), 0.5,
            )
        )  # fmt: skip
    if rng.random() < (0.25 if electric else 0.06):
        strip.append(_delay(rng))
    return strip


def _compressor(rng: np.random.Generator, attack: tuple[float, float], release: tuple[float, float]) -> pb.Compressor:
    """A random compressor for a part at -20 dB RMS: from gentle to heavy."""
    return pb.Compressor(
        float(rng.uniform(-30, -16)),
        float(rng.uniform(2, 8)),
        float(rng.uniform(*attack)),
        float(rng.uniform(*release)),
    )


def _chorus(rng: np.random.Generator) -> pb.Chorus:
    hertz = float(np.exp(rng.uniform(np.log(0.2), np.log(3.0))))
    depth = min(0.4, _CHORUS_SPEED / hertz * float(rng.uniform(0.3, 1.0)))
    return pb.Chorus(hertz, depth, float(rng.uniform(5, 15)), float(rng.uniform(0.0, 0.25)), 0.5)


def _delay(rng: np.random.Generator) -> pb.Delay:
    seconds = float(rng.uniform(0.07, 0.14) if rng.random() < 0.3 else rng.uniform(0.2, 0.55))
    return pb.Delay(seconds, float(rng.uniform(0.0, 0.5)), float(rng.uniform(0.1, 0.3)))
