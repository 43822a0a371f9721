"""Measure how well key changes are found: ``python benchmarks/key_changes.py LABELS.csv [LABELS.csv ...]``.

Each file of labels has ``path`` (relative to the file) and ``key``. Two or three of its recordings are joined,
repeatedly: each starts at a random position and is transposed by whole semitones, so that neighbors, relatives and
parallels occur and not only distant keys (with ``--any-keys``, keys are drawn at random); all have the same tuning. A
join counts as found if a segment starts within 7.5 s of it. Every other recording of a file belongs to the second half:
tune on one half, report the other. The single recordings show how often a change is reported where there is none
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
from stonecli.detection.detect import KeyEstimate, detect_key_in_audio
from stonecli.detection.segments import Relation, relation
from stonecli.detection.tuning import cents_of, frame_peaks
from stonecli.key import Key
from stonecli.model.session import KeyModel

RATE = 22050
NEAR_SECONDS = 7.5
RELATIONS: tuple[Relation, ...] = ("far", "far", "fifth", "relative", "parallel", "diagonal")
MOST_SEMITONES = 4  # that a recording is moved by: more does not sound like music any more
DETUNED_CENTS = 6.0  # standard deviation

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Recording:
    """A recording of one key, at A = 440 Hz."""

    key: Key
    samples: Samples


def moved(samples: Samples, semitones: float) -> Samples:
    """The samples, sounding so much higher."""
    if abs(semitones) < 1e-3:
        return samples
    result: Samples = soxr.resample(samples, RATE, RATE * 2.0 ** (-semitones / 12), quality="MQ")
    return result


def read_recordings(labels: Path) -> list[Recording]:
    """The recordings that have a key, as loud and tuned as each other."""
    found = []
    with labels.open(newline="") as file:
        for row in csv.DictReader(file):
            try:
                key = Key.parse(row["key"])
            except ValueError:  # of an excerpt without one
                continue
            path = labels.parent / row["path"]
            path = path.with_suffix(".flac") if path.suffix == ".npy" else path
            samples = np.concatenate(list(read_audio(path, RATE)))
            cents = cents_of(frame_peaks(samples, RATE).resultant) or 0.0
            scaled = (0.9 * samples / max(1e-6, float(np.abs(samples).max()))).astype(np.float32)
            found.append(Recording(key, moved(scaled, -cents / 100)))
    return found


def stretch(samples: Samples, seconds: float, random: np.random.Generator) -> Samples:
    """So many seconds from a random place on; what is too short is repeated."""
    length = int(seconds * RATE)
    samples = np.tile(samples, -(-length // len(samples)))
    start = int(random.integers(len(samples) - length + 1))
    return samples[start : start + length]


def joined(
    pool: Sequence[Recording], parts: int, random: np.random.Generator, any_keys: bool
) -> tuple[Samples, list[float], list[Relation]]:
    """Recordings joined, at which seconds, and how the keys there are related."""
    keys: list[Key] = []
    pieces: list[Samples] = []
    while len(pieces) < parts:
        recording = pool[int(random.integers(len(pool)))]
        steps = np.arange(-MOST_SEMITONES, MOST_SEMITONES + 1)
        if keys:
            there = [relation(keys[-1], recording.key.transposed(int(step))) for step in steps]
            wanted = ["same"] if any_keys else [RELATIONS[int(random.integers(len(RELATIONS)))]]
            steps = steps[[(name in wanted) != any_keys for name in there]]
        if not len(steps):
            continue
        semitones = int(random.choice(steps))
        keys.append(recording.key.transposed(semitones))
        pieces.append(stretch(moved(recording.samples, semitones), random.uniform(40, 90), random))
    cents = random.normal(0, DETUNED_CENTS)
    places = np.cumsum([len(piece) for piece in pieces])[:-1] / RATE * 2.0 ** (-cents / 1200)
    related = [relation(one, other) for one, other in itertools.pairwise(keys)]
    return moved(np.concatenate(pieces), cents / 100), places.tolist(), related


def heard(model: KeyModel, samples: Samples, overlap: float) -> KeyEstimate:
    """The estimate for the samples."""
    return detect_key_in_audio(iter([samples]), model, RATE, overlap=overlap)


def main() -> None:
    """Print what was found, for each file of labels and each half of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path, nargs="+")
    parser.add_argument("--model", type=Path, help="else the one that stone carries")
    parser.add_argument("--joined", type=int, default=60, help="made of each half")
    parser.add_argument("--any-keys", action="store_true", help="whatever keys meet, but for the same")
    parser.add_argument("--overlap", type=float, default=0.0, help="as of stone analyze")
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
                samples, places, related = joined(pool, parts, random, options.any_keys)
                starts = np.array([segment.start for segment in heard(model, samples, options.overlap).segments[1:]])
                hits = [bool((np.abs(starts - place) <= NEAR_SECONDS).any()) for place in places]
                for name, hit in zip(related, hits, strict=True):
                    found[name].append(hit)
                wrong.append(max(0, len(starts) - sum(hits)))
            alone = [len(heard(model, recording.samples, options.overlap).segments[1:]) for recording in pool]
            joins = [hit for of_name in found.values() for hit in of_name]
            print(
                f"{labels}, half {half + 1}: {np.mean(joins):.0%} of {len(joins)} joins of {len(pool)} recordings found"
            )
            for name, of_name in sorted(found.items()):
                print(f"  {name:9} {np.mean(of_name):4.0%} of {len(of_name)} found")
            print(f"  {np.mean(wrong):.2f} other changes in what is joined, {np.mean(alone):.2f} in a recording alone")


if __name__ == "__main__":
    main()
