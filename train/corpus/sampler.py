"""Plays parts with sampled instruments and kits: resamples the nearest sample, and loops it for long notes."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stonecli.errors import StoneError
from stonecli_train.corpus.arrange import Part, Role, Tone
from stonecli_train.corpus.kits import SOUND_OF, SUBSTITUTES
from stonecli_train.corpus.notes import LOOP_FADE, looped

Floats = npt.NDArray[np.float32]

INDEX = "index.json"
RATE = 22050  # sampling rate of all samples, in Hz
MAX_TRANSPOSITION = 8.0  # of a sample, in semitones
_OPEN_FILES = 48  # maximum number of memory-mapped sample files, about 2 MB each

# Families by patterns of preset names; the first match counts. If no pattern matches the name, the bank decides.
_NAMES: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (family, re.compile(pattern, re.IGNORECASE))
    for family, pattern in (
        ("lead", r"dist|overdriv|trash|power guitar|lead|solo"),
        ("bass", r"bass(?!oon)|tb ?303|\bsub"),
        ("guitar", r"guitar|\bkoto|sitar|banjo|\blute|mandolin"),
        ("plucked", r"pluck|\bharp\b|pizz|popcorn"),
        ("piano", r"piano|rhodes|epiano|clav|harpsi|wurl|\bep\b|keys"),
        ("mallet", r"bell|xylo|vibra|marimba|chime|glock|vibes|mallet|steel drum|campan|kalimba"),
        ("organ", r"organ|hammond|accord|concertina|bandoneon|harmonium"),
        ("strings", r"string|violin|cello|viola|orchestra|ensemble"),
        ("choir", r"choir|\bvoices?\b|vocal|aah|ahh|ooh|ehh|chorus"),
        ("brass", r"brass|brazz|trump|horn|tuba|trombon"),
        ("wind", r"flute|reed|clarinet|oboe|bassoon|fagotto|sax|pipe|ocarina|whistle|harmonica|bottle|recorder"),
        ("pad", r"pad|space|sweep|atmo|fantasy|drone|ethereal|matrix|rushes"),
    )
)
_BANKS = {
    "Bass": "bass", "Brass": "brass", "Choir and Voice": "choir", "Guitar": "guitar", "Organ": "organ",
    "Pads": "pad", "Plucked": "plucked", "Reed and Wind": "wind", "Rhodes": "piano", "Strings": "strings",
    "SynthPiano": "piano", "Fantasy": "pad", "Vibed": "plucked",
}  # fmt: skip

# Families for each General MIDI group of eight programs.
_ELECTRONIC = ("synth", "lead", "pad")
_GROUPS: tuple[tuple[str, ...], ...] = (
    ("piano", "piano", "piano", "piano", "mallet", "plucked"), ("mallet", "mallet", "plucked"), ("organ",),
    ("guitar", "guitar", "plucked"), ("bass",), ("strings", "strings", "plucked"),
    ("strings", "strings", "choir", "pad"), ("brass",), ("wind",), ("wind",), _ELECTRONIC,
    ("pad", "pad", "strings", "choir", "synth"), _ELECTRONIC, ("plucked", "guitar", "wind"), ("mallet", "synth"),
    _ELECTRONIC,
)  # fmt: skip
_BASSES = ("bass", "bass", "bass", "bass", "bass", "bass", "synth", "organ")
_CHOIR_PROGRAMS = frozenset({52, 53, 54, 91})
_MAX_ATTACK = 0.12  # attack in seconds above which short notes would be too quiet


def instrument_family(bank: str, name: str, sustains: bool) -> str:
    """Instrument family of a preset, from its name, otherwise from its bank, otherwise from whether it ``sustains``."""
    for family, pattern in _NAMES:
        if pattern.search(name.replace("_", " ")):
            return family
    return _BANKS.get(bank, "synth" if sustains else "plucked")


@dataclass(frozen=True)
class Instrument:
    """A sampled preset.

    Attributes:
        name, family: name and family of the preset.
        path: file of the samples, int16 [notes, samples] at RATE.
        pitches: MIDI pitch of each note, with a fraction, ascending.
        loops: loop points of each note if the instrument sustains; empty if it decays.
        attack: attack time in seconds.
    """

    name: str
    family: str
    path: Path
    pitches: tuple[float, ...]
    loops: tuple[tuple[int, int], ...]
    attack: float

    def reaches(self, tones: Sequence[Tone]) -> bool:
        """Whether every tone is within MAX_TRANSPOSITION of a sample."""
        low, high = min(tone.pitch for tone in tones), max(tone.pitch for tone in tones)
        return self.pitches[0] - MAX_TRANSPOSITION <= low and high <= self.pitches[-1] + MAX_TRANSPOSITION


@dataclass(frozen=True)
class DrumKit:
    """The one-shots of a drum kit.

    Attributes:
        name: name of the kit.
        path: file of the samples, int16 [samples] at RATE.
        hits: articulations by sound, each as the sample ranges of its velocity layers from soft to loud.
    """

    name: str
    path: Path
    hits: dict[str, list[list[list[int]]]]


@dataclass(frozen=True)
class Sampler:
    """The instruments in a folder of ``stonecli_train.corpus.instruments``.

    Attributes:
        families: instruments by family.
        kits: drum kits.
    """

    families: dict[str, tuple[Instrument, ...]]
    kits: tuple[DrumKit, ...]

    def draw_instrument(self, rng: np.random.Generator, part: Part) -> Instrument | None:
        """A random instrument that suits the part's role, program, range and speed; None if there is none."""
        wanted: tuple[str, ...]
        if part.role == "bass":
            wanted = _BASSES
        elif part.program in _CHOIR_PROGRAMS:
            wanted = ("choir", "choir", "pad")
        else:
            wanted = _GROUPS[part.program // 8]
        duration = float(np.median([tone.duration for tone in part.tones]))
        for _ in range(4):
            pool = [
                instrument for instrument in self.families.get(wanted[int(rng.integers(len(wanted)))], ())
                if instrument.reaches(part.tones) and instrument.attack < max(_MAX_ATTACK, 0.5 * duration)
            ]  # fmt: skip
            if pool:
                return pool[int(rng.integers(len(pool)))]
        return None


@lru_cache(maxsize=4)
def load_sampler(folder: Path, held_out: bool) -> Sampler:
    """The presets and kits in ``folder`` for training, or the held-out ones.

    Raises:
        StoneError: the folder has no valid index of ``stonecli_train.corpus.instruments``.
    """
    try:
        index = json.loads((folder / INDEX).read_text("utf-8"))
        if index["rate"] != RATE:
            raise ValueError(f"rate {index['rate']}")
        instruments = [_instrument(folder, row) for row in index["instruments"] if row["held_out"] == held_out]
        kits = tuple(
            DrumKit(row["name"], folder / Path(row["file"]).name, row["hits"])
            for row in index["kits"]
            if row["held_out"] == held_out
        )
    except FileNotFoundError as error:
        raise StoneError(
            f"{folder}: {INDEX} is missing; create it with: python -m stonecli_train.corpus.instruments {folder}"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoneError(f"{folder / INDEX}: {error}") from error
    families: dict[str, list[Instrument]] = {}
    for instrument in instruments:
        families.setdefault(instrument.family, []).append(instrument)
    return Sampler({family: tuple(members) for family, members in families.items()}, kits)


def _instrument(folder: Path, row: dict[str, Any]) -> Instrument:
    loops = tuple((int(loop[0]), int(loop[1])) for loop in row["loops"]) if row["sustains"] else ()
    pitches = tuple(float(pitch) for pitch in row["pitches"])
    return Instrument(row["name"], row["family"], folder / Path(row["file"]).name, pitches, loops, float(row["attack"]))


@lru_cache(maxsize=_OPEN_FILES)
def _samples(path: Path) -> npt.NDArray[np.int16]:
    try:
        samples: npt.NDArray[np.int16] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise StoneError(f"{path}: {error}") from error
    return samples


def play_tones(rng: np.random.Generator, tones: Sequence[Tone], instrument: Instrument, samples: int) -> Floats:
    """The tones on a sampled instrument, float32 [samples] at RATE."""
    out = np.zeros(samples, dtype=np.float32)
    release = float(rng.uniform(0.04, 0.3))
    dynamics = float(rng.uniform(0.8, 2.0))
    made: dict[tuple[int, int], Floats] = {}
    for tone in tones:
        start = int(tone.start * RATE)
        if start >= samples:
            continue
        steps = max(2, min(round(tone.duration / 0.02), 600))
        if (tone.pitch, steps) not in made:
            made[tone.pitch, steps] = tone_of(instrument, tone.pitch, steps * 0.02, release)
        wave = made[tone.pitch, steps][: samples - start]
        out[start : start + len(wave)] += wave * np.float32((tone.velocity / 127.0) ** dynamics)
    return out


def tone_of(instrument: Instrument, pitch: float, seconds: float, release: float) -> Floats:
    """One note of ``seconds`` with its ``release``, float32 at RATE; shorter if the instrument decays earlier."""
    stored = _samples(instrument.path)
    index = int(np.abs(np.array(instrument.pitches) - pitch).argmin())
    ratio = 2.0 ** ((pitch - instrument.pitches[index]) / 12.0)
    count = int((seconds + release) * RATE)
    needed = int(count * ratio) + 4
    note = stored[index].astype(np.float32) * np.float32(1.0 / 32767.0)
    if needed > len(note) and instrument.loops:
        note = looped(note, instrument.loops[index], int(LOOP_FADE * RATE), needed)
    ends_early = needed > len(note)
    wave = _resampled(note, ratio, min(count, int((len(note) - 3) / ratio)))
    end = len(wave) if ends_early else count
    fade = max(1, min(len(wave), int(0.05 * RATE) if ends_early and seconds * RATE > end else int(release * RATE)))
    first = max(0, min(int(seconds * RATE), end - fade))
    falling = np.linspace(1.0, 0.0, len(wave) - first, dtype=np.float32)
    wave[first:] *= falling * falling
    return wave


def _resampled(note: Floats, ratio: float, count: int) -> Floats:
    """``count`` samples of the note at ``ratio`` times its speed, by cubic (Catmull-Rom) interpolation."""
    if ratio > 1.0:  # aliasing is low, because samples are transposed by a few semitones only
        count = min(count, int((len(note) - 3) / ratio))
    at = np.arange(count) * ratio
    whole = at.astype(np.int64)
    part = (at - whole).astype(np.float32)
    before, here, after, later = (note[np.maximum(whole + shift, 0)] for shift in (-1, 0, 1, 2))
    wave: Floats = here + 0.5 * part * (
        after
        - before
        + part * (2.0 * before - 5.0 * here + 4.0 * after - later + part * (3.0 * (here - after) + later - before))
    )
    return wave.astype(np.float32)


def play_kit(rng: np.random.Generator, tones: Sequence[Tone], kits: Sequence[DrumKit], samples: int) -> Floats:
    """General MIDI percussion on one of ``kits``, float32 [samples] at RATE.

    Sounds that the kit lacks come from another kit, or are replaced by a similar sound of the same kit.
    """
    kit = kits[int(rng.integers(len(kits)))]
    out = np.zeros(samples, dtype=np.float32)
    speed = 2.0 ** (rng.normal(0.0, 1.0) / 12.0)  # kits vary in tuning
    layers_of: dict[str, list[Floats]] = {}
    ringing: tuple[int, Floats] | None = None
    for tone in tones:
        start = int(tone.start * RATE)
        if start >= samples:
            continue
        sound = SOUND_OF.get(tone.pitch, "hat_closed")
        if sound not in layers_of:
            layers_of[sound] = _velocity_layers(rng, kit, kits, sound, speed)
        layers = layers_of[sound]
        if not layers:
            continue
        index = min(len(layers) - 1, int(tone.velocity / 128.0 * len(layers)))
        shot = layers[index][: samples - start] * np.float32((tone.velocity / 127.0) ** 1.3)
        if sound.startswith("hat"):  # a hi-hat chokes its previous hit
            if ringing is not None and start < ringing[0] + len(ringing[1]):
                tail = ringing[1][start - ringing[0] :]
                fade = np.maximum(0.0, 1.0 - np.arange(len(tail), dtype=np.float32) / np.float32(RATE // 50))
                out[start : start + len(tail)] -= tail * (1.0 - fade)
            ringing = (start, shot)
        out[start : start + len(shot)] += shot
    return out


def _velocity_layers(
    rng: np.random.Generator, kit: DrumKit, kits: Sequence[DrumKit], sound: str, speed: float
) -> list[Floats]:
    """Velocity layers of a random articulation of ``sound``, from soft to loud; empty if no kit has the sound."""
    source, found = kit, kit.hits.get(sound)
    if not found and sound in ("clap", "tambourine", "shaker", "cowbell"):
        others = [other for other in kits if sound in other.hits]
        if others:
            source = others[int(rng.integers(len(others)))]
            found = source.hits[sound]
    for other in SUBSTITUTES.get(sound, ()):
        found = found or kit.hits.get(other)
    if not found:
        return []
    stored = _samples(source.path)
    spans = found[int(rng.integers(len(found)))]
    shots = []
    for first, last in spans:
        shot = stored[first:last].astype(np.float32) * np.float32(1.0 / 32767.0)
        shots.append(_resampled(np.pad(shot, (0, 4)), speed, int(len(shot) / speed)))
    return shots


def suits(role: Role) -> bool:
    """Whether sampled instruments can play parts of this role."""
    return role in ("bass", "chords", "lead", "voice")
