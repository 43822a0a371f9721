"""Renders music with an exactly known tempo, for the tempo network.

    python -m stonecli_train.tempo.render --corpus FOLDER --out FOLDER --count 3000 --seed 1

This writes ``SEED_NUMBER.npz`` for each excerpt, with the band levels (``stonecli.tempo.novelty``), the frame rate, the
tempo and the style. Most excerpts are arrangements of ``stonecli_train.corpus``, many with the drums of a human drummer
(``stonecli_train.corpus.grooves``). Noise, speech and rubato have the tempo 0, which means no tempo. An excerpt depends
on the seed and its number only, so a run can be interrupted and repeated.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from stonecli.errors import AudioError, StoneError
from stonecli.tempo.novelty import BandLevels
from stonecli.util.atomic_file import atomic_file
from stonecli_train.corpus import effects, fluidsynth, keyless, songs
from stonecli_train.corpus.arrange import Part, Tone
from stonecli_train.corpus.excerpt import Settings, play
from stonecli_train.corpus.grooves import FOLDER, Groove, read_grooves
from stonecli_train.corpus.plain import RATE
from stonecli_train.corpus.sources import GENERATED, Library
from stonecli_train.corpus.tape import detuned
from stonecli_train.errors import message

SECONDS = 24.0
SOURCES: dict[str, float] = {
    songs.SOURCE: 0.42, GENERATED: 0.3, "cocopops": 0.1, "pop909": 0.1, "jazz_standards": 0.08,
}  # fmt: skip
SKETCH_SOURCES: dict[str, float] = {songs.SOURCE: 0.4, GENERATED: 0.25, "cocopops": 0.2, "jazz_standards": 0.15}
_KINDS: dict[str, float] = {"music": 0.82, "drums": 0.06, "rubato": 0.06, "keyless": 0.06}
_GROOVE_SHARE = 0.6  # share of the excerpts with drums that get a groove, if there is one of about their tempo
_GROOVE_RANGE = 0.2  # maximum change of the tempo of a groove, in octaves
_RUBATO = 0.35  # standard deviation of the tempo in rubato, in octaves
_ATTEMPTS = 12

Floats = npt.NDArray[np.float32]
Drawn: TypeAlias = tuple[np.random.Generator, tuple[Part, ...], float, str]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class TempoExcerpt:
    """A rendered excerpt.

    Attributes:
        bpm: tempo in beats per minute; 0 for no tempo.
        style: name of the style.
        samples: mono float32 [samples] at ``RATE``.
    """

    bpm: float
    style: str
    samples: Floats


@dataclass(frozen=True, eq=False)
class Renderer:
    """Draws and renders excerpts.

    Attributes:
        library: passages of the corpora.
        grooves: performances of drummers; may be empty.
        settings: soundfonts, instruments, seed, and whether to use held-out timbres and pieces.
    """

    library: Library
    grooves: Sequence[Groove]
    settings: Settings

    def render(self, number: int) -> TempoExcerpt:
        """Render excerpt ``number``.

        Raises:
            StoneError: no attempt gave a usable excerpt.
            OSError: a program cannot be started.
        """
        return self._attempt(number, self._render)

    def draw(self, number: int, sources: Mapping[str, float]) -> Drawn:
        """Random generator, parts, tempo and style of excerpt ``number``, without rendering; never noise or speech.

        Raises:
            StoneError: no attempt gave a usable excerpt.
        """
        return self._attempt(number, lambda rng: self._draw(rng, sources, _draw_kind(rng, without="keyless")))

    def _attempt(self, number: int, make: Callable[[np.random.Generator], T]) -> T:
        reason: Exception | None = None
        for attempt in range(_ATTEMPTS):
            try:
                return make(np.random.default_rng([self.settings.seed, number, int(self.settings.held_out), attempt]))
            except fluidsynth.FluidSynthError:
                raise
            except (StoneError, ValueError) as error:
                reason = error
        raise StoneError(f"excerpt {number}: no usable excerpt after {_ATTEMPTS} attempts: {reason}")

    def _render(self, rng: np.random.Generator) -> TempoExcerpt:
        kind = _draw_kind(rng)
        if kind == "keyless":
            return self._keyless(rng)
        _, parts, bpm, style = self._draw(rng, SOURCES, kind)
        samples = play(rng, parts, self.settings, style)
        chain = effects.draw_effects(rng, style)
        samples = detuned(samples, RATE, chain.cents)[: round(SECONDS * RATE)]
        samples = effects.apply_effects(rng, samples, RATE, chain)
        return TempoExcerpt(bpm * 2.0 ** (chain.cents / 1200.0), style, samples)

    def _draw(self, rng: np.random.Generator, sources: Mapping[str, float], kind: str) -> Drawn:
        if kind == "drums" and self.grooves:
            groove = self.grooves[int(rng.integers(len(self.grooves)))]
            bpm = groove.bpm * 2.0 ** float(rng.uniform(-_GROOVE_RANGE, _GROOVE_RANGE))
            return rng, (Part("drums", _performed(rng, groove, bpm)),), bpm, "drums"
        source = str(rng.choice(list(sources), p=list(sources.values())))
        excerpt = self.library.draw(rng, source, SECONDS * 1.03)
        if kind == "rubato":
            parts = tuple(part for part in excerpt.parts if part.role != "drums")
            warp = _wandering(rng)
            return rng, tuple(_warped(part, *warp) for part in parts), 0.0, "rubato"
        parts = self._with_groove(rng, excerpt.parts, excerpt.bpm, excerpt.passage.beats_per_bar)
        return rng, parts, excerpt.bpm, excerpt.style

    def _with_groove(
        self, rng: np.random.Generator, parts: tuple[Part, ...], bpm: float, beats_per_bar: int
    ) -> tuple[Part, ...]:
        """The parts, in _GROOVE_SHARE of the cases with the drums of a human drummer."""
        near = [
            groove for groove in self.grooves
            if groove.beats_per_bar == beats_per_bar and abs(np.log2(groove.bpm / bpm)) < _GROOVE_RANGE
        ]  # fmt: skip
        if not near or rng.random() >= _GROOVE_SHARE:
            return parts
        tones = _performed(rng, near[int(rng.integers(len(near)))], bpm)
        return tuple(replace(part, tones=tones) if part.role == "drums" else part for part in parts)

    def _keyless(self, rng: np.random.Generator) -> TempoExcerpt:
        kind, samples = keyless.draw_keyless(
            rng, SECONDS, RATE, self.settings.held_out, lambda parts: play(rng, parts, self.settings)
        )
        if kind == "drums":
            raise AudioError("drums have a tempo")
        samples = effects.apply_effects(rng, samples[: round(SECONDS * RATE)], RATE, effects.draw_effects(rng))
        return TempoExcerpt(0.0, kind, samples)


def _draw_kind(rng: np.random.Generator, without: str = "") -> str:
    shares = {kind: share for kind, share in _KINDS.items() if kind != without}
    total = sum(shares.values())
    return str(rng.choice(list(shares), p=[share / total for share in shares.values()]))


def settings_of(seed: int, held_out: bool = False, instruments: Path | None = None) -> Settings:
    """Settings of a run for the tempo network."""
    return Settings((), SECONDS, seed, held_out, instruments=instruments)


def _performed(rng: np.random.Generator, groove: Groove, bpm: float) -> tuple[Tone, ...]:
    return groove.played(bpm, SECONDS * 1.03, int(rng.integers(0, 64)))


def _wandering(rng: np.random.Generator) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Random rubato, as in a free introduction: times in the score, and when they are played, in seconds."""
    score = np.arange(0.0, 3.0 * SECONDS, 0.05)
    knots = np.arange(0.0, score[-1] + 3.0, float(rng.uniform(0.8, 2.0)))
    rate = 2.0 ** np.interp(score, knots, rng.normal(0.0, _RUBATO, len(knots)))
    return score, np.concatenate([[0.0], np.cumsum(0.05 / rate)[:-1]])


def _warped(part: Part, score: npt.NDArray[np.float64], played: npt.NDArray[np.float64]) -> Part:
    tones = (replace(tone, start=float(np.interp(tone.start, score, played))) for tone in part.tones)
    return replace(part, tones=tuple(tones))


def save_excerpt(excerpt: TempoExcerpt, path: Path) -> None:
    """Write band levels, frame rate, tempo and style of an excerpt to an .npz file, atomically."""
    levels = BandLevels(RATE)
    levels.add(excerpt.samples)
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, levels=levels.finish(), frame_rate=levels.frame_rate, bpm=excerpt.bpm, style=excerpt.style)


def render_all(renderer: Renderer, out: Path, numbers: Sequence[int]) -> Iterator[Path]:
    """Render the excerpts that do not exist yet; yields the path of each excerpt in order.

    Raises:
        StoneError, OSError: an excerpt cannot be rendered or written.
    """
    out.mkdir(parents=True, exist_ok=True)
    prefix = "h" if renderer.settings.held_out else ""
    for number in numbers:
        path = out / f"{prefix}{renderer.settings.seed}_{number:06d}.npz"
        if not path.exists():
            save_excerpt(renderer.render(number), path)
        yield path


def main(arguments: Sequence[str]) -> int:
    """Exit code after running the command."""
    parser = argparse.ArgumentParser(prog="python -m stonecli_train.tempo.render", description=__doc__.split("\n")[0])
    parser.add_argument("--corpus", type=Path, required=True, help="folder with a folder or zip for each corpus")
    parser.add_argument("--grooves", type=Path, help="the Groove MIDI Dataset (default: CORPUS/groove)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the renderings")
    parser.add_argument("--count", type=int, required=True, help="number of excerpts")
    parser.add_argument("--start", type=int, default=0, help="number of the first excerpt (default: 0)")
    parser.add_argument("--seed", type=int, default=1, help="random seed (default: 1)")
    parser.add_argument("--held-out", action="store_true", help="use material that training never uses")
    parser.add_argument("--instruments", type=Path, help="folder of stonecli_train.corpus.instruments (default: none)")
    options = parser.parse_args(arguments)
    settings = settings_of(options.seed, options.held_out, options.instruments)
    try:
        fluidsynth.check_installed(settings.held_out)
        grooves = read_grooves(
            options.grooves or options.corpus / FOLDER
        )  # first: errors are cheaper before the library is read
        library = Library.load(options.corpus, list(SOURCES), settings.held_out, None, Counter())
        grooves = [groove for number, groove in enumerate(grooves) if (number % 10 == 0) == settings.held_out]
        numbers = range(options.start, options.start + options.count)
        for done, _ in enumerate(render_all(Renderer(library, grooves, settings), options.out, numbers), 1):
            if done % 100 == 0:
                print(f"{done} of {len(numbers)}", flush=True)
    except (StoneError, OSError) as error:
        print(message(error), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
