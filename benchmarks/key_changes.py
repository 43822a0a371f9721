"""Measure how well key changes are found: ``python benchmarks/key_changes.py LABELS.csv [LABELS.csv ...]``.

Each file of labels has the columns ``path`` (relative to the file) and ``key``. Two or three of its recordings are
concatenated, repeatedly: each starts at a random position and is transposed by whole semitones, so that fifths,
relatives and parallels occur and not only distant keys (with ``--any-keys``, keys are drawn at random); all have the
same tuning. A join counts as found if a segment starts within 7.5 s of it. Every other recording of a file belongs to
the second half: tune on one half, report the other. The single recordings show how often a false change is reported
(though their keys may change, as in a sonata).

``python -m stonecli_train.corpus.render --held-out --seconds 60 --audio`` makes renderings to join: the audio is the
``.flac`` file beside each ``.npy`` named in their ``labels.csv``.
"""

from __future__ import annotations

import argparse
import csv
import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soxr

from stonecli.audio.decode import read_audio
from stonecli.detection.detect import detect_key_in_audio
from stonecli.detection.estimate import KeyEstimate
from stonecli.detection.segments import Relation, relation
from stonecli.detection.tuning import cents_of, frame_peaks
from stonecli.key import Key
from stonecli.model.session import KeyModel

RATE = 22050
NEAR_SECONDS = 7.5
RELATIONS: tuple[Relation, ...] = ("far", "far", "fifth", "relative", "parallel", "diagonal")
MAX_SEMITONES = 4  # transposition of a recording; more sounds unnatural
DETUNING_CENTS = 6.0  # standard deviation

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Recording:
    """A recording of one key, at A = 440 Hz."""

    key: Key
    samples: Samples


def transposed(samples: Samples, semitones: float) -> Samples:
    """The samples, transposed up by ``semitones``."""
    if abs(semitones) < 1e-3:
        return samples
    result: Samples = soxr.resample(samples, RATE, RATE * 2.0 ** (-semitones / 12), quality="MQ")
    return result


def read_recordings(labels: Path) -> list[Recording]:
    """The recordings that have a key, with equal peak level and tuning."""
    found = []
    with labels.open(newline="") as file:
        for row in csv.DictReader(file):
            try:
                key = Key.parse(row["key"])
            except ValueError:  # an excerpt without a key
                continue
            path = labels.parent / row["path"]
            path = path.with_suffix(".flac") if path.suffix == ".npy" else path
            samples = np.concatenate(list(read_audio(path, RATE)))
            cents = cents_of(frame_peaks(samples, RATE).resultant) or 0.0
            scaled = (0.9 * samples / max(1e-6, float(np.abs(samples).max()))).astype(np.float32)
            found.append(Recording(key, transposed(scaled, -cents / 100)))
    return found


def excerpt(samples: Samples, seconds: float, random: np.random.Generator) -> Samples:
    """An excerpt of ``seconds`` from a random position; a recording that is too short is repeated."""
    length = int(seconds * RATE)
    samples = np.tile(samples, -(-length // len(samples)))
    start = int(random.integers(len(samples) - length + 1))
    return samples[start : start + length]


def joined(
    pool: Sequence[Recording], parts: int, random: np.random.Generator, any_keys: bool
) -> tuple[Samples, list[float], list[Relation]]:
    """Concatenated recordings, the times of the joins in seconds, and the relations of the keys there."""
    keys: list[Key] = []
    pieces: list[Samples] = []
    while len(pieces) < parts:
        recording = pool[int(random.integers(len(pool)))]
        steps = np.arange(-MAX_SEMITONES, MAX_SEMITONES + 1)
        if keys:
            possible = [relation(keys[-1], recording.key.transposed(int(step))) for step in steps]
            wanted = ["same"] if any_keys else [RELATIONS[int(random.integers(len(RELATIONS)))]]
            steps = steps[[(name in wanted) != any_keys for name in possible]]
        if not len(steps):
            continue
        semitones = int(random.choice(steps))
        keys.append(recording.key.transposed(semitones))
        pieces.append(excerpt(transposed(recording.samples, semitones), random.uniform(40, 90), random))
    cents = random.normal(0, DETUNING_CENTS)
    times = np.cumsum([len(piece) for piece in pieces])[:-1] / RATE * 2.0 ** (-cents / 1200)
    related = [relation(one, other) for one, other in itertools.pairwise(keys)]
    return transposed(np.concatenate(pieces), cents / 100), times.tolist(), related


def detect(model: KeyModel, samples: Samples, overlap: float) -> KeyEstimate:
    """The estimate for the samples."""
    return detect_key_in_audio(iter([samples]), model, RATE, overlap=overlap)


def main() -> None:
    """Print the share of the joins that were found, per file of labels and half."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path, nargs="+")
    parser.add_argument("--model", type=Path, help="model to measure (default: built-in)")
    parser.add_argument("--joined", type=int, default=60, help="number of concatenations per half (default: 60)")
    parser.add_argument("--any-keys", action="store_true", help="draw the keys at random")
    parser.add_argument("--overlap", type=float, default=0.0, help="overlap of windows (default: 0)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    model = KeyModel(options.model, device="cpu")
    for labels in options.labels:
        recordings = read_recordings(labels)
        for half in (0, 1):
            pool, random = recordings[half::2], np.random.default_rng([options.seed, half])
            found: dict[Relation, list[bool]] = defaultdict(list)
            wrong = []
            for _ in range(options.joined):
                parts = 3 if random.random() < 0.4 else 2
                samples, times, related = joined(pool, parts, random, options.any_keys)
                starts = np.array([segment.start for segment in detect(model, samples, options.overlap).segments[1:]])
                hits = [bool((np.abs(starts - time) <= NEAR_SECONDS).any()) for time in times]
                for name, hit in zip(related, hits, strict=True):
                    found[name].append(hit)
                wrong.append(max(0, len(starts) - sum(hits)))
            alone = [len(detect(model, recording.samples, options.overlap).segments[1:]) for recording in pool]
            joins = [hit for of_name in found.values() for hit in of_name]
            print(
                f"{labels}, half {half + 1}: {np.mean(joins):.0%} of {len(joins)} joins of {len(pool)} recordings found"
            )
            for name, of_name in sorted(found.items()):
                print(f"  {name:9} {np.mean(of_name):4.0%} of {len(of_name)} found")
            print(f"  {np.mean(wrong):.2f} false changes per concatenation, {np.mean(alone):.2f} per single recording")


if __name__ == "__main__":
    main()
