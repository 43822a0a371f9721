"""One excerpt, a function of (seed, number) alone: drawn, played, and turned into features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stonecli.errors import AudioError, StoneError
from stonecli.key import Key
from stonecli.tuning import cents_of, frame_peaks
from train.corpus import effects, fluidsynth, keyless, synth
from train.corpus.arrange import Part
from train.corpus.sources import Excerpt, Library

RATE = 22050  # Hz, of VQTConfig's defaults
ATTEMPTS = 12
LEAST_RMS = 0.01  # of a peak of 0.9
LEAST_TONAL_SHARE = 0.25  # of the frames: drums alone have no key
_MARGIN = 1.03  # detuning by 50 cents shortens by 2.9 %

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Settings:
    """What all excerpts of a run share.

    Attributes:
        sources: names with their shares.
        seconds: length of an excerpt.
        seed: of the run.
        held_out: timbres, loops and pieces that are kept out of training.
        soundfonts: False to play everything on the numpy synthesizers.
        effects: False for the plain sound.
    """

    sources: tuple[tuple[str, float], ...]
    seconds: float = 24.0
    seed: int = 1
    held_out: bool = False
    soundfonts: bool = True
    effects: bool = True


@dataclass(frozen=True, eq=False)
class Rendering:
    """An excerpt that was played.

    Attributes:
        key: that sounds; None where none does.
        source, style: names.
        origin: piece or loop.
        samples: mono float32 at ``RATE``.
        cents: how far it was detuned.
    """

    key: Key | None
    source: str
    style: str
    origin: str
    samples: Floats
    cents: float


def render_excerpt(library: Library, settings: Settings, number: int) -> Rendering:
    """Excerpt ``number`` of a run.

    Raises:
        StoneError: nothing that was drawn made an excerpt, or FluidSynth is not there.
    """
    names = [name for name, _ in settings.sources]
    shares = np.array([share for _, share in settings.sources])
    reason: Exception | None = None
    first = np.random.default_rng([settings.seed, number, int(settings.held_out)])
    source = names[int(first.choice(len(names), p=shares / shares.sum()))]
    for attempt in range(ATTEMPTS):
        rng = np.random.default_rng([settings.seed, number, int(settings.held_out), attempt + 1])
        try:
            if source == keyless.SOURCE:
                return _keyless(rng, settings)
            excerpt = library.draw(rng, source, settings.seconds * _MARGIN)
            return _rendering(rng, excerpt, settings)
        except (StoneError, ValueError) as error:
            if settings.soundfonts and not fluidsynth.is_installed(settings.held_out):
                raise
            reason = error
    raise StoneError(f"nothing to render after {ATTEMPTS} attempts: {reason}")


def _rendering(rng: np.random.Generator, excerpt: Excerpt, settings: Settings) -> Rendering:
    samples = play(rng, excerpt.parts, settings)
    chain = effects.draw_effects(rng) if settings.effects else effects.Effects()
    samples = effects.detuned(samples, RATE, chain.cents)[: round(settings.seconds * RATE)]
    samples = effects.apply_effects(rng, samples, RATE, chain)
    _check_sound(samples, chain)
    passage = excerpt.passage
    return Rendering(passage.key, passage.source, excerpt.style, passage.origin, samples, chain.cents)


def _keyless(rng: np.random.Generator, settings: Settings) -> Rendering:
    kind, samples = keyless.draw_keyless(
        rng, settings.seconds, RATE, settings.held_out, lambda parts: play(rng, parts, settings)
    )
    chain = effects.draw_effects(rng) if settings.effects else effects.Effects()
    samples = effects.apply_effects(rng, samples[: round(settings.seconds * RATE)], RATE, chain)
    if not _is_audible(samples, chain):
        raise AudioError("nearly silent")
    return Rendering(None, keyless.SOURCE, kind, "", samples, 0.0)


def play(rng: np.random.Generator, parts: tuple[Part, ...], settings: Settings) -> Floats:
    """The parts together, float32 [samples], a little longer than ``settings.seconds``.

    Raises:
        AudioError: there is nothing to be heard.
    """
    seconds = settings.seconds * _MARGIN
    count = round(seconds * RATE)
    numpy_parts = [part for part in parts if not settings.soundfonts or part.synthesized]
    font_parts = [part for part in parts if part not in numpy_parts]
    clean, amplified = np.zeros(count, dtype=np.float32), np.zeros(count, dtype=np.float32)
    if font_parts:
        font = fluidsynth.draw_font(rng, settings.held_out)
        clean, amplified = fluidsynth.render_parts(font_parts, font, seconds, RATE, bool(rng.random() < 0.35))
    # A part of a soundfont has about this level at full gain; synthesized ones are brought to it.
    level = max(_rms(clean + amplified) / max(1.0, len(font_parts)) ** 0.5, 0.0) or 0.05
    for part in numpy_parts:
        sound = _synthesized(rng, part, count, settings.held_out)
        scale = level * part.gain * rng.uniform(0.7, 1.5) / max(_rms(sound), 1e-6)
        target = amplified if part.amplified else clean
        target += sound * np.float32(scale)
    if any(part.amplified for part in parts):
        drive = float(np.exp(rng.uniform(np.log(0.7), np.log(12.0))))
        amplified = effects.amplified(amplified, RATE, drive) * np.float32(rng.uniform(0.7, 1.6))
    mixed: Floats = clean + amplified
    if _rms(mixed) < 1e-4:
        raise AudioError("silent")
    return mixed


def _synthesized(rng: np.random.Generator, part: Part, count: int, held_out: bool) -> Floats:
    if part.role in ("sung", "spoken"):
        return synth.sing(rng, part.tones, count, RATE, spoken=part.role == "spoken")
    if part.role == "drums":
        return synth.play_drums(rng, part.tones, count, RATE)
    return synth.play_tones(part.tones, synth.draw_timbre(rng, part.role, held_out), count, RATE)


def _check_sound(samples: Floats, chain: effects.Effects) -> None:
    """Raise where there is too little to be heard, or the tuning is heard on the other side of the semitone."""
    if not _is_audible(samples, chain):
        raise AudioError("nearly silent")
    peaks = frame_peaks(effects.normalised(samples), RATE)
    if peaks.tonal.mean() < LEAST_TONAL_SHARE:
        raise AudioError("nothing tonal")
    heard = cents_of(peaks.total)
    if heard is not None and abs(heard - chain.cents) > 50.0:
        raise AudioError("the tuning is heard a semitone off")


def _is_audible(samples: Floats, chain: effects.Effects) -> bool:
    return bool(np.isfinite(samples).all()) and _rms(samples) >= LEAST_RMS * 10.0 ** (chain.level_db / 20.0)


def _rms(samples: Floats) -> float:
    return float(np.sqrt(np.mean(np.square(samples)))) if len(samples) else 0.0
