"""Measure accuracy and cost of tempo estimation by stone, librosa, aubio and Essentia.

    python benchmarks/tempo.py LABELS.csv [--tool stone --tool librosa ...] [--renderings 60] [--cost SONG.mp3]

LABELS.csv has the columns ``path`` and ``tempo`` (beats per minute), and optionally ``genre``; rows without a tempo are
skipped. Accuracy 1 is the share of tempos within 4 % of the true one, Accuracy 2 that of tempos within 4 % of it or of
two or three times, a half or a third of it (Gouyon et al. 2006). ``--renderings`` renders electronic music at a
constant tempo that is known exactly, half of it as loops that are cut to whole samples and repeated, and counts tempos
within 0.1 beats per minute in any octave. ``--cost`` measures the CPU time of a recording: decoding alone, with the
key, with key and tempo; it depends on the sample rate. librosa is in the extra ``train``; install the others with pip
install aubio essentia.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from stonecli.audio.decode import open_audio, read_audio
from stonecli.detection.detect import detect_key
from stonecli.evaluation.tempo import FACTORS, is_same_tempo
from stonecli.model.session import default_model
from stonecli.tempo.estimate import TempoMeter

ELECTRONIC = ("house", "techno", "trance", "dubstep", "drum_and_bass", "electro", "dance_pop", "disco", "hiphop")
RENDERED_SECONDS = 60.0
EXACT_BPM = 0.1
REPEATS = 5

Tool = Callable[[Path], float | None]


def stone_tempo(path: Path) -> float | None:
    """The tempo by stone."""
    audio = open_audio(path, default_model().info.sample_rate)
    meter = TempoMeter(audio.rate)
    for _ in meter.tap(audio.blocks):
        pass
    return meter.estimate().bpm


def librosa_tempo(path: Path) -> float | None:
    """The tempo by ``librosa.beat.beat_track``."""
    import librosa

    samples = np.concatenate(list(read_audio(path, 22050)))
    tempo, _ = librosa.beat.beat_track(y=samples, sr=22050)
    return float(np.atleast_1d(tempo)[0]) or None


def aubio_tempo(path: Path) -> float | None:
    """The tempo by the beats of aubio: 60 s divided by the median interval between beats."""
    import aubio

    tracker = aubio.tempo("default", 1024, 512, 44100)
    samples = np.concatenate(list(read_audio(path, 44100)))
    beats = [
        tracker.get_last_s()
        for start in range(0, len(samples) - 511, 512)
        if tracker(np.ascontiguousarray(samples[start : start + 512], dtype=np.float32))
    ]
    return 60.0 / float(np.median(np.diff(beats))) if len(beats) > 2 else None


def essentia_tempo(path: Path, name: str) -> float | None:
    """The tempo by Essentia's ``RhythmExtractor2013`` (method degara) or ``PercivalBpmEstimator``."""
    import essentia.standard

    samples = np.concatenate(list(read_audio(path, 44100)))
    if name == "percival":
        return float(essentia.standard.PercivalBpmEstimator(sampleRate=44100)(samples)) or None
    return float(essentia.standard.RhythmExtractor2013(method=name)(samples)[0]) or None


TOOLS: dict[str, Tool] = {
    "stone": stone_tempo,
    "librosa": librosa_tempo,
    "aubio": aubio_tempo,
    "degara": partial(essentia_tempo, name="degara"),
    "percival": partial(essentia_tempo, name="percival"),
}


def read_tempos(labels: Path) -> list[tuple[Path, float, str]]:
    """Path, true tempo and genre of each row with a tempo."""
    with labels.open(encoding="utf-8", newline="") as file:
        return [
            (labels.parent / row["path"], float(row["tempo"]), row.get("genre", ""))
            for row in csv.DictReader(file)
            if row["tempo"]
        ]


def measure(name: str, tracks: Sequence[tuple[Path, float, str]]) -> None:
    """Print the scores of a tool, overall and by genre."""
    start = time.process_time()
    hits: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    for path, true, genre in tracks:
        bpm = TOOLS[name](path)
        hit = is_same_tempo(bpm, true), is_same_tempo(bpm, true, FACTORS)
        for group in ("all", genre):
            hits[group].append(hit)
    seconds = time.process_time() - start
    for group, found in hits.items():
        first, second = (100.0 * float(np.mean([hit[i] for hit in found])) for i in (0, 1))
        spent = f"   {seconds:.0f} s of CPU time" if group == "all" else ""
        print(f"{name:8} {group or '-':12} {len(found):4} tracks   {first:5.1f} / {second:5.1f}{spent}", flush=True)


def render(folder: Path, count: int) -> list[tuple[Path, float, str]]:
    """Render held-out electronic music to ``folder``: path, exact tempo and kind of each file."""
    from stonecli_train.corpus.excerpt import Settings, play
    from stonecli_train.corpus.plain import RATE
    from stonecli_train.corpus.sources import GENERATED, Library

    settings = Settings((), RENDERED_SECONDS, held_out=True)
    library = Library({}, held_out=True, styles=ELECTRONIC)
    tracks = []
    for number in range(count):
        rng = np.random.default_rng([77, number])
        excerpt = library.draw(rng, GENERATED, RENDERED_SECONDS)
        samples = play(rng, excerpt.parts, settings, excerpt.style)
        bpm, kind = excerpt.bpm, "rendering"
        if number % 2:
            samples, bpm = joined_loop(samples, RATE, bpm)
            kind = "joined loops"
        path = folder / f"{number}.wav"
        soundfile.write(path, samples / max(1.0, float(np.abs(samples).max())), RATE)
        tracks.append((path, bpm, kind))
    return tracks


def joined_loop(samples: npt.NDArray[np.float32], rate: int, bpm: float) -> tuple[npt.NDArray[np.float32], float]:
    """The first 16 beats, cut to whole samples and repeated, and their exact tempo."""
    length = round(16.0 * 60.0 / bpm * rate)
    repeats = max(1, round(RENDERED_SECONDS * rate / length))
    return np.tile(samples[:length], repeats), 16.0 * 60.0 * rate / length


def measure_renderings(name: str, tracks: Sequence[tuple[Path, float, str]]) -> None:
    """Print the share of tempos within 0.1 beats per minute in any octave, by kind."""
    exact: dict[str, list[bool]] = defaultdict(list)
    for path, true, kind in tracks:
        bpm = TOOLS[name](path)
        exact[kind].append(bpm is not None and any(abs(bpm / factor - true) <= EXACT_BPM for factor in FACTORS))
    for kind, found in exact.items():
        print(f"{name:8} {kind:12} {len(found):4} tracks   {100 * np.mean(found):5.1f} % within {EXACT_BPM} BPM")


def measure_cost(path: Path) -> None:
    """Print the minimum CPU time of several alternating runs on a file, which soundfile has to be able to read."""
    model = default_model("cpu")

    def decode() -> None:
        for _ in soundfile.blocks(path, 65536, dtype="float32"):
            pass

    runs: dict[str, Callable[[], object]] = {
        "decoding": decode,
        "key": lambda: detect_key(path, model),
        "key and tempo": lambda: detect_key(path, model, tempo=True),
    }
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(REPEATS):
        for name, run in runs.items():
            start = time.process_time()
            run()
            best[name] = min(best[name], time.process_time() - start)
    print(path.name)
    for name, seconds in best.items():
        print(f"{name:14} {seconds:.3f} s of CPU time, {seconds / best['decoding']:.2f} times decoding")


def main(arguments: Sequence[str]) -> int:
    """Print the measurements on the command line; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path, nargs="?")
    parser.add_argument("--tool", action="append", choices=list(TOOLS), help="default: all")
    parser.add_argument("--renderings", type=int, default=0, metavar="N", help="also render and measure N excerpts")
    parser.add_argument("--cost", type=Path, action="append", default=[], metavar="FILE", help="measure its CPU time")
    options = parser.parse_args(arguments)
    tools = options.tool or list(TOOLS)
    if options.labels is not None:
        tracks = read_tempos(options.labels)
        for name in tools:
            measure(name, tracks)
    with tempfile.TemporaryDirectory() as folder:
        if options.renderings:
            rendered = render(Path(folder), options.renderings)
            for name in tools:
                measure_renderings(name, rendered)
    for path in options.cost:
        measure_cost(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
