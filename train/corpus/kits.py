"""Reads sampled drum kits: the one-shots of Debian's Hydrogen kits and of the AVL soundfonts."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from stonecli.errors import StoneError
from stonecli.util.atomic_file import atomic_text_file
from stonecli_train.corpus import fluidsynth
from stonecli_train.corpus.arrange import Part, Tone

Floats = npt.NDArray[np.float32]
Kit: TypeAlias = dict[str, list[list[Floats]]]
"""Articulations by sound, each with its velocity layers from soft to loud."""

PACKAGES = ("hydrogen-data", "hydrogen-drumkits", "avldrums.lv2-soundfont")
HYDROGEN_KITS = Path("/usr/share/hydrogen/data/drumkits")
AVL_FONTS = Path("/usr/lib/lv2/avldrums.lv2")
MAX_LAYERS = 4
SECONDS = 2.0  # maximum length of a one-shot

_HELD_OUT_EVERY = 5  # one preset or kit out of this number is excluded from training

# Sounds by patterns of instrument names; the first match counts.
_SOUNDS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (name, re.compile(pattern, re.IGNORECASE))
    for name, pattern in (
        ("stick", r"stick|rim"),
        ("clap", r"clap"),
        ("kick", r"kick|bass ?drum"),
        ("snare_roll", r"roll"),
        ("snare", r"snare"),
        ("hat_open", r"(hat|hh|hi-hat).*\bo(p|h)|ope?n.*(hat|hh)|hat.*free|\bohh"),
        ("hat_pedal", r"pedal|\bpd\b"),
        ("hat_closed", r"hat|\bhh\b|hi-hat"),
        ("tom_low", r"floor|tom.*(low|\blo\b)|low.*tom"),
        ("tom_high", r"tom.*hi|high.*tom|tom.*\b1\b"),
        ("tom_mid", r"\btom|tom\b"),
        ("bell", r"ride.*bell|cup"),
        ("ride", r"ride"),
        ("crash", r"crash|cymbal|splash"),
        ("tambourine", r"tambou?rine"),
        ("shaker", r"shaker|maraca|cabasa"),
        ("cowbell", r"cowbell|agogo"),
    )
)
SOUND_OF: dict[int, str] = {
    35: "kick", 36: "kick", 37: "stick", 38: "snare", 39: "clap", 40: "snare", 41: "tom_low", 43: "tom_low",
    45: "tom_mid", 47: "tom_mid", 48: "tom_high", 50: "tom_high", 42: "hat_closed", 44: "hat_pedal", 46: "hat_open",
    49: "crash", 51: "ride", 53: "bell", 54: "tambourine", 56: "cowbell", 57: "crash", 70: "shaker",
}  # fmt: skip
"""The sound for each General MIDI percussion note that the corpus uses."""
SUBSTITUTES: dict[str, tuple[str, ...]] = {
    "stick": ("snare",), "clap": ("snare",), "hat_open": ("crash", "hat_closed"), "hat_pedal": ("hat_closed",),
    "hat_closed": ("hat_pedal", "shaker"), "tom_low": ("tom_mid", "tom_high", "kick"),
    "tom_mid": ("tom_low", "tom_high", "snare"), "tom_high": ("tom_mid", "tom_low", "snare"),
    "bell": ("ride", "hat_closed"), "ride": ("bell", "hat_closed"), "crash": ("hat_open", "ride"),
    "tambourine": ("shaker", "hat_closed"), "shaker": ("hat_closed",), "cowbell": ("stick",),
}  # fmt: skip
"""Substitutes for sounds that a kit lacks."""
_NEEDED = ("kick", "snare", "hat_closed")
_AVL_KEYS = (36, 38, 37, 42, 44, 46, 41, 43, 45, 47, 48, 49, 51, 53, 54, 56, 39)
_AVL_VELOCITIES = (45, 80, 105, 125)


def installed_kits(rate: int) -> Iterator[tuple[str, Kit]]:
    """Name and sounds of each installed kit that has kick, snare and hi-hat, float32 at ``rate``."""
    for description in sorted(HYDROGEN_KITS.glob("*/drumkit.xml")):
        kit = read_hydrogen(description, rate)
        if all(name in kit for name in _NEEDED):
            yield description.parent.name, kit
    for font in sorted(AVL_FONTS.glob("*.sf2")):
        kit = _avl_kit(font, rate)
        if all(name in kit for name in _NEEDED):
            yield font.stem, kit


def read_hydrogen(description: Path, rate: int) -> Kit:
    """The sounds of a Hydrogen kit, from its ``drumkit.xml``; unreadable or unknown sounds are skipped."""
    try:
        text = re.sub(r'\sxmlns="[^"]*"', "", description.read_text("utf-8", errors="replace"), count=1)
        root = ET.fromstring(text)  # noqa: S314  files of a Debian package; expat bounds entities
    except (OSError, ET.ParseError):
        return {}
    kit: Kit = {}
    for instrument in root.iter("instrument"):
        name = instrument.findtext("name") or ""
        sound = next((sound for sound, pattern in _SOUNDS if pattern.search(name)), None)
        layers = []
        for layer in (*instrument.iter("layer"), instrument):
            file = layer.findtext("filename")
            if file:
                layers.append((float(layer.findtext("max") or 1.0), description.parent / Path(file).name))
        if sound is None or not layers:
            continue
        ordered = [path for _, path in sorted(layers, key=lambda layer: layer[0])]
        chosen = np.unique(np.linspace(0, len(ordered) - 1, MAX_LAYERS).round().astype(int))
        shots = [shot for index in chosen if (shot := _one_shot(ordered[index], rate)) is not None]
        if shots:
            kit.setdefault(sound, []).append(shots)
    return kit


def _one_shot(path: Path, rate: int) -> Floats | None:
    try:
        with soundfile.SoundFile(path) as file:
            samples = file.read(round((SECONDS + 0.5) * file.samplerate), dtype="float32", always_2d=True)
            own_rate = file.samplerate
    except (OSError, soundfile.LibsndfileError):
        return None
    mono = samples.mean(axis=1)
    return _trimmed(soxr.resample(mono, own_rate, rate, quality="HQ") if own_rate != rate else mono, rate)


def _trimmed(samples: Floats, rate: int) -> Floats | None:
    """The hit trimmed to its onset and audible decay, with a fade-out; None if it is silent."""
    peak = float(np.abs(samples).max(initial=0.0))
    if peak < 1e-4:
        return None
    loud = np.flatnonzero(np.abs(samples) > 0.02 * peak)
    audible = np.flatnonzero(np.abs(samples) > 0.001 * peak)
    first = max(0, int(loud[0]) - rate // 500)
    shot = samples[first : min(int(audible[-1]) + 1, first + round(SECONDS * rate))].astype(np.float32)
    fade = min(len(shot), rate // 50)
    shot[len(shot) - fade :] *= np.linspace(1.0, 0.0, fade, dtype=np.float32)
    return shot


def _avl_kit(font: Path, rate: int) -> Kit:
    """The sounds of a soundfont whose first preset is a kit; FluidSynth plays them one by one."""
    step = SECONDS + 0.5
    strokes = [(key, velocity) for key in _AVL_KEYS for velocity in _AVL_VELOCITIES]
    tones = tuple(Tone(index * step, SECONDS, key, velocity) for index, (key, velocity) in enumerate(strokes))
    try:
        source = fluidsynth.SoundFont(font, PACKAGES[-1], 1.0)
        sound = fluidsynth.render_parts([Part("voice", tones)], source, len(tones) * step, rate)[0]
    except (StoneError, OSError):
        return {}
    kit: Kit = {}
    for key in _AVL_KEYS:
        indices = [index for index, (other, _) in enumerate(strokes) if other == key]
        clips = [sound[round(index * step * rate) : round((index + 1) * step * rate)] for index in indices]
        shots = [shot for clip in clips if (shot := _trimmed(clip, rate)) is not None]
        if shots:
            kit.setdefault(SOUND_OF[key], []).append(shots)
    return kit


def is_held_out(name: str) -> bool:
    """Whether a preset or kit is excluded from training, together with those of the same name in other banks."""
    plain = re.sub(r"[^a-z]+", "", name.casefold()) or name
    return zlib.crc32(plain.encode()) % _HELD_OUT_EVERY == 0


def write_kits(out: Path, rate: int) -> int:
    """Write the installed kits to ``out``, each with its metadata; returns their number."""
    from stonecli_train.features import save_atomically

    count = 0
    for name, kit in installed_kits(rate):
        stem = "kit_" + re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_").lower()
        all_shots: list[Floats] = []
        hits: dict[str, list[list[list[int]]]] = {}
        start = 0
        for sound, articulations in sorted(kit.items()):
            for layers in articulations:
                spans = []
                for shot in layers:
                    spans.append([start, start + len(shot)])
                    all_shots.append(shot)
                    start += len(shot)
                hits.setdefault(sound, []).append(spans)
        samples = np.concatenate(all_shots)
        scaled = np.round(samples * (32767.0 * 0.9 / float(np.abs(samples).max()))).astype(np.int16)
        save_atomically(out / f"{stem}.npy", scaled)
        record = {"name": name, "file": f"{stem}.npy", "hits": hits, "held_out": is_held_out(name)}
        with atomic_text_file(out / f"{stem}.json") as file:
            json.dump(record, file)
        count += 1
    return count
