"""Samples synthesizers and drum kits for renderings with --instruments.

    python -m stonecli_train.corpus.instruments OUT --jobs 1

This writes ``HASH.npy`` (int16 [notes, samples]) for each preset that plays in tune, ``kit_NAME.npy`` (int16 [samples])
for each kit, a metadata file ``.json`` for each of them, and ``index.json`` with all metadata. Run the same command
again to resume an interrupted run. ``stonecli_train.corpus.render --instruments OUT`` uses the samples.
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from stonecli.jobs import run
from stonecli.util.atomic_file import atomic_text_file
from stonecli_train.corpus import kits, lmms
from stonecli_train.corpus.kits import is_held_out
from stonecli_train.corpus.notes import Check, checked_notes, find_loop
from stonecli_train.corpus.sampler import INDEX, RATE, instrument_family
from stonecli_train.parent import end_with_parent

PITCHES = tuple(range(24, 97, 4))  # MIDI: a note every four semitones
NOTE_SECONDS, GAP_SECONDS = 2.5, 1.5  # length of a note, and the gap before the next one for its release
STORED_SECONDS = 2.6  # stored length of each note
RENDERED, EXISTS = "rendered", "already rendered"  # outcomes of a preset
MIN_NOTES = 8  # minimum number of PITCHES with the requested pitch class
_EXCLUDED_BANKS = frozenset({"Arpeggios", "Drums", "Noises", "Cormi Noise", "Splitted", "Splited", "Kicker",
                             "AudioFileProcessor"})  # fmt: skip
_EXCLUDED_WORDS = ("arp", "drum", "noise", "sequence", "seq ", "kick", "snare", "hihat", "chord", "fifth", "5th")


def wanted_presets(count: int | None = None) -> list[lmms.Preset]:
    """The first ``count`` presets, ordered by hash, whose names suggest a pitched instrument."""
    wanted = [
        preset for preset in lmms.presets()
        if preset.bank not in _EXCLUDED_BANKS and not any(word in preset.name.casefold() for word in _EXCLUDED_WORDS)
    ]  # fmt: skip
    return sorted(wanted, key=lambda preset: zlib.crc32(preset.id.encode()))[:count]


def render_preset(preset: lmms.Preset, out: Path) -> str:
    """Sample a preset; returns ``RENDERED``, ``EXISTS``, or the reason for its rejection.

    Raises:
        StoneError: the preset cannot be read, or LMMS fails; the next run tries it again.
        OSError: the files cannot be written.
    """
    from stonecli_train.features import save_atomically

    stem = f"{zlib.crc32(preset.id.encode()):08x}"
    record, sound = out / f"{stem}.json", out / f"{stem}.npy"
    if record.exists():
        return EXISTS
    samples, rate = lmms.play(preset, PITCHES, NOTE_SECONDS, GAP_SECONDS)
    check = checked_notes(_notes(samples, rate), PITCHES, RATE, NOTE_SECONDS)
    if isinstance(check, Check) and len(check.pitches) < MIN_NOTES:
        check = "too few notes with the requested pitch"
    about = {"name": preset.name, "bank": preset.bank, "synth": preset.synth}
    if isinstance(check, str):
        _write_json(record, {**about, "left_out": check})
        return check
    notes = np.round(check.notes * 32767.0).astype(np.int16)
    loops = [find_loop(note, RATE, NOTE_SECONDS) if check.sustains else None for note in check.notes]
    save_atomically(sound, notes)
    row = {
        **about, "file": sound.name, "pitches": check.pitches, "octaves": check.octaves, "sustains": check.sustains,
        "attack": round(check.attack, 3), "loops": loops,
    }  # fmt: skip
    _write_json(record, row)
    return RENDERED


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with atomic_text_file(path) as file:
        json.dump(content, file)


def _notes(samples: lmms.Floats, rate: int) -> lmms.Floats:
    """The notes of one LMMS run, float32 [notes, samples at RATE]."""
    resampled = soxr.resample(samples, rate, RATE, quality="HQ")
    step, kept = round((NOTE_SECONDS + GAP_SECONDS) * RATE), round(STORED_SECONDS * RATE)
    resampled = np.pad(resampled, (0, max(0, len(PITCHES) * step - len(resampled))))
    notes: lmms.Floats = resampled[: len(PITCHES) * step].reshape(len(PITCHES), step)[:, :kept].astype(np.float32)
    return notes


def write_index(out: Path) -> Counter[str]:
    """Rebuild ``index.json`` from the metadata in ``out``; returns the number of presets per family, and of kits."""
    presets = []
    for record in sorted(out.glob("[0-9a-f]*.json")):
        row = json.loads(record.read_text("utf-8"))
        if "left_out" not in row:
            row["family"] = instrument_family(row["bank"], row["name"], row["sustains"])
            row["held_out"] = is_held_out(row["name"])
            presets.append(row)
    drum_kits = [json.loads(record.read_text("utf-8")) for record in sorted(out.glob("kit_*.json"))]
    _write_json(out / INDEX, {"rate": RATE, "instruments": presets, "kits": drum_kits})
    counts = Counter(str(row["family"]) for row in presets)
    counts["kits"] = len(drum_kits)
    return counts


def render_all(
    presets: Sequence[lmms.Preset], out: Path, jobs: int = 1, report: Callable[[str], None] = print
) -> Counter[str]:
    """Sample ``presets``; returns the number of presets per outcome (:func:`render_preset`)."""
    counts: Counter[str] = Counter()
    with ProcessPoolExecutor(jobs, initializer=end_with_parent) as executor:
        task = partial(render_preset, out=out)
        for done, outcome in enumerate(run(task, presets, executor=executor, in_flight=2 * jobs), start=1):
            counts[f"failed: {outcome.error}" if outcome.error is not None else str(outcome.result)] += 1
            if done % 100 == 0:
                write_index(out)  # so that other commands can already use the finished presets
                report(f"{done} of {len(presets)}: {dict(counts)}")
    return counts


def main(arguments: Sequence[str]) -> int:
    """Exit code after running the command."""
    parser = argparse.ArgumentParser(
        prog="python -m stonecli_train.corpus.instruments", description=__doc__.split("\n")[0]
    )
    parser.add_argument("out", type=Path, help="folder of the samples")
    parser.add_argument("--count", type=int, help="number of presets to try (default: all)")
    parser.add_argument("--jobs", type=int, default=1, help="number of processes (default: 1)")
    options = parser.parse_args(arguments)
    presets = wanted_presets(options.count)
    if not lmms.is_installed() or not presets:
        print(f"LMMS or its presets are missing: apt-get install {' '.join(lmms.PACKAGES)}", file=sys.stderr)
        return 1
    options.out.mkdir(parents=True, exist_ok=True)
    written = kits.write_kits(options.out, RATE)
    print(f"{written} drum kits (apt-get install {' '.join(kits.PACKAGES)})", flush=True)
    counts = render_all(presets, options.out, options.jobs, partial(print, flush=True))
    families = write_index(options.out)
    for reason, count in counts.most_common():
        print(f"{count} x {reason}")
    print(", ".join(f"{count} {family}" for family, count in families.most_common()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
