"""Renders one excerpt, which depends on the settings of the run and its number only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stonecli.detection.tuning import cents_of, frame_peaks
from stonecli.errors import AudioError, StoneError
from stonecli.key import Key
from stonecli_train.corpus import annotation, effects, fluidsynth, keyless, mixing, sampler
from stonecli_train.corpus.arrange import Part
from stonecli_train.corpus.levels import normalized, rms
from stonecli_train.corpus.plain import RATE, synthesized
from stonecli_train.corpus.sources import Excerpt, Library, RejectedError
from stonecli_train.corpus.tape import detuned

MAX_ATTEMPTS = 12
SAMPLED_SHARE = 0.52  # share of suitable parts that sampled instruments play
MIN_RMS = 0.01  # at a peak of 0.9
MIN_TONAL_SHARE = 0.25  # minimum share of tonal frames; drums alone have no key
_MARGIN = 1.03  # detuning by 50 cents shortens by 2.9 %

Floats = npt.NDArray[np.float32]


class UnsuitableError(StoneError):
    """No attempt gave a usable excerpt; this one is skipped, and the others are not affected."""


@dataclass(frozen=True)
class Settings:
    """Settings of all excerpts of a run.

    Attributes:
        sources: names of the sources with their shares.
        seconds: length of an excerpt in seconds.
        seed: random seed of the run.
        held_out: whether to use the timbres, loops and pieces that are excluded from training.
        soundfonts: whether to use soundfonts; otherwise, the numpy synthesizers play all parts.
        effects: whether to apply effects.
        instruments: folder of ``stonecli_train.corpus.instruments`` whose samples play about half of the parts; None
            for none.
    """

    sources: tuple[tuple[str, float], ...]
    seconds: float = 24.0
    seed: int = 1
    held_out: bool = False
    soundfonts: bool = True
    effects: bool = True
    instruments: Path | None = None


@dataclass(frozen=True, eq=False)
class Rendering:
    """A rendered excerpt.

    Attributes:
        key: key of the music; None if it has no key.
        source, style: names of the source and the style.
        origin: name of the piece, or the loop.
        samples: mono float32 [samples] at ``RATE``.
        cents: detuning in cents.
        annotation: labels of ``stonecli_train.corpus.annotation``; None if there is no key.
    """

    key: Key | None
    source: str
    style: str
    origin: str
    samples: Floats
    cents: float
    annotation: annotation.Annotation | None = None


def source_of(settings: Settings, number: int) -> str:
    """The name of the source that excerpt ``number`` of a run is drawn from."""
    names = [name for name, _ in settings.sources]
    shares = np.array([share for _, share in settings.sources])
    first = np.random.default_rng([settings.seed, number, int(settings.held_out)])
    return names[int(first.choice(len(names), p=shares / shares.sum()))]


def render_excerpt(library: Library, settings: Settings, number: int) -> Rendering:
    """Render excerpt ``number`` of a run.

    Raises:
        UnsuitableError: no attempt gave a usable excerpt.
        StoneError: FluidSynth or another program failed.
        OSError: the disk is full, or a program cannot be started.
    """
    reason: Exception | None = None
    source = source_of(settings, number)
    for attempt in range(MAX_ATTEMPTS):
        rng = np.random.default_rng([settings.seed, number, int(settings.held_out), attempt + 1])
        try:
            if source == keyless.SOURCE:
                return _keyless(rng, settings)
            excerpt = library.draw(rng, source, settings.seconds * _MARGIN)
            return _rendering(rng, excerpt, settings)
        except fluidsynth.FluidSynthError:  # retrying without FluidSynth would bias the corpus to synthesizers
            raise
        except (StoneError, ValueError) as error:
            reason = error
    is_drawn = isinstance(reason, RejectedError | AudioError | ValueError)
    kind = UnsuitableError if is_drawn else StoneError
    raise kind(f"no usable excerpt after {MAX_ATTEMPTS} attempts: {reason}")


def _rendering(rng: np.random.Generator, excerpt: Excerpt, settings: Settings) -> Rendering:
    samples = play(rng, excerpt.parts, settings, excerpt.style)
    chain = effects.draw_effects(rng, excerpt.style) if settings.effects else effects.Effects()
    samples = detuned(samples, RATE, chain.cents)[: round(settings.seconds * RATE)]
    samples = effects.apply_effects(rng, samples, RATE, chain)
    _check_sound(samples, chain)
    passage = excerpt.passage
    annotated = annotation.annotate(excerpt.parts, passage.chords, excerpt.bpm, settings.seconds)
    return Rendering(passage.key, passage.source, excerpt.style, passage.origin, samples, chain.cents, annotated)


def _keyless(rng: np.random.Generator, settings: Settings) -> Rendering:
    kind, samples = keyless.draw_keyless(
        rng, settings.seconds, RATE, settings.held_out, lambda parts: play(rng, parts, settings)
    )
    chain = effects.draw_effects(rng) if settings.effects else effects.Effects()
    samples = effects.apply_effects(rng, samples[: round(settings.seconds * RATE)], RATE, chain)
    if not _is_audible(samples, chain):
        raise AudioError("nearly silent")
    return Rendering(None, keyless.SOURCE, kind, "", samples, 0.0)


def play(rng: np.random.Generator, parts: tuple[Part, ...], settings: Settings, style: str = "") -> Floats:
    """The mix of the rendered parts, mono float32 [samples] at ``RATE``, slightly longer than ``settings.seconds``.

    Raises:
        AudioError: the mix is silent.
    """
    seconds = settings.seconds * _MARGIN
    count = round(seconds * RATE)
    stems = _sampled(rng, parts, count, settings)
    for index, part in enumerate(parts):
        if stems[index] is None and (part.synthesized or not settings.soundfonts):
            stems[index] = synthesized(rng, part, count, settings.held_out)
    font_parts = [part for part, stem in zip(parts, stems, strict=True) if stem is None]
    if font_parts:
        font = fluidsynth.draw_font(rng, settings.held_out)
        played = iter(fluidsynth.render_parts(font_parts, font, seconds, RATE))
        stems = [next(played) if stem is None else stem for stem in stems]
    sounds = [stem for stem in stems if stem is not None]
    mixed = mixing.mix(rng, parts, sounds, RATE, style) if sounds else np.zeros(count, dtype=np.float32)
    if rms(mixed) < 1e-4:
        raise AudioError("silent")
    return mixed


def _sampled(rng: np.random.Generator, parts: tuple[Part, ...], count: int, settings: Settings) -> list[Floats | None]:
    """Audio of the parts played by sampled instruments and kits; None for the others."""
    stems: list[Floats | None] = [None] * len(parts)
    if settings.instruments is None:
        return stems
    sampled = sampler.load_sampler(settings.instruments, settings.held_out)
    for index, part in enumerate(parts):
        if part.amplified or rng.random() >= SAMPLED_SHARE:
            continue
        if part.role == "drums" and sampled.kits:
            stems[index] = sampler.play_kit(rng, part.tones, sampled.kits, count)
        elif sampler.suits(part.role):
            instrument = sampled.draw_instrument(rng, part)
            if instrument is not None:
                stems[index] = sampler.play_tones(rng, part.tones, instrument, count)
    return stems


def _check_sound(samples: Floats, chain: effects.Effects) -> None:
    """Raise AudioError if the audio is nearly silent or atonal, or its estimated tuning is a semitone off."""
    if not _is_audible(samples, chain):
        raise AudioError("nearly silent")
    peaks = frame_peaks(normalized(samples), RATE)
    if peaks.tonal.mean() < MIN_TONAL_SHARE:
        raise AudioError("not tonal")
    estimate = cents_of(peaks.resultant)
    if estimate is not None and abs(estimate - chain.cents) > 50.0:
        raise AudioError("the tuning estimate is a semitone off")


def _is_audible(samples: Floats, chain: effects.Effects) -> bool:
    return bool(np.isfinite(samples).all()) and rms(samples) >= MIN_RMS * 10.0 ** (chain.level_db / 20.0)
