"""Measure how answers change when a recording is detuned, transposed, compressed, band-limited or quiet.

    python benchmarks/robustness.py --labels LABELS.csv [--music FOLDER --tracks 60] [--model MODEL.onnx] [--json]

LABELS.csv (path, key) lists recordings for accuracies; the answers for other recordings in FOLDER are compared with
those for the original recording. The middle 60 s of each are analyzed. Detuning and transposition change the speed, as
a tape does. Sounds without a key are generated here: noise, silence, drums (``stonecli_train.corpus``), and speech by
espeak-ng (Debian), in voices that training does not use.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from stonecli.audio.decode import read_audio
from stonecli.detection.detect import detect_key
from stonecli.detection.estimate import KeyEstimate
from stonecli.errors import StoneError
from stonecli.evaluation.metrics import mirex_score
from stonecli.key import Key
from stonecli.library.walk import find_music
from stonecli.model.session import KeyModel
from stonecli_train.corpus.excerpt import Settings, play
from stonecli_train.corpus.keyless import draw_keyless
from stonecli_train.corpus.plain import RATE as CORPUS_RATE

RATE = 44100
SECONDS = 60.0
CENTS = tuple(range(-50, 51, 10))
SEMITONES = tuple(range(-5, 7))
NO_KEY_COUNT = 40  # of each kind
LIKELY = 0.5  # from this confidence on, the key is more probable than all others together

Floats = npt.NDArray[np.float32]


def middle(path: Path) -> Floats:
    """``SECONDS`` from the middle of the recording, mono at ``RATE``."""
    samples = np.concatenate(list(read_audio(path, RATE)))
    start = max(0, (len(samples) - round(SECONDS * RATE)) // 2)
    return samples[start : start + round(SECONDS * RATE)]


def transposed(samples: Floats, semitones: float) -> Floats:
    """The samples transposed up by ``semitones`` by playing them faster."""
    result: Floats = soxr.resample(samples, RATE * 2.0 ** (semitones / 12.0), RATE, quality="HQ")
    return result


def band_limited(samples: Floats, low: float, high: float) -> Floats:
    """The samples, band-limited to ``low`` to ``high`` Hz."""
    spectrum = np.fft.rfft(samples)
    hertz = np.fft.rfftfreq(len(samples), 1.0 / RATE)
    spectrum[(hertz < low) | (hertz > high)] = 0
    return np.fft.irfft(spectrum, len(samples)).astype(np.float32)


def detect(samples: Floats, model: KeyModel, folder: Path, rate: int = RATE) -> KeyEstimate:
    """The answer of ``stone`` for the samples in a WAV file."""
    path = folder / "sound.wav"
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return detect_key(path, model)


def detect_as_mp3(samples: Floats, model: KeyModel, folder: Path) -> KeyEstimate:
    """The answer of ``stone`` for the samples in an MP3 of 64 kbit/s."""
    source, coded = folder / "source.wav", folder / "coded.mp3"
    soundfile.write(source, samples, RATE)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-y", "-i", source, "-b:a", "64k", coded]
    subprocess.run(command, check=True)
    return detect_key(coded, model)


def no_key_audio(kind: str, number: int) -> Floats:
    """A sound of 30 s without a key, at ``CORPUS_RATE``."""
    rng = np.random.default_rng([77, number])
    count = 30 * CORPUS_RATE
    if kind == "silence":
        return np.zeros(count, dtype=np.float32) if number % 2 else 1e-6 * rng.standard_normal(count).astype(np.float32)
    if kind in ("white noise", "pink noise"):
        noise = rng.standard_normal(count)
        if kind == "pink noise":
            hertz = np.maximum(np.fft.rfftfreq(count, 1.0 / CORPUS_RATE), 20.0)
            noise = np.fft.irfft(np.fft.rfft(noise) / np.sqrt(hertz), count)
        return (0.2 * noise / noise.std()).astype(np.float32)
    settings = Settings((), seconds=30.0, held_out=True)
    for attempt in range(1000):
        drawing = np.random.default_rng([78, number, attempt])
        found, samples = draw_keyless(drawing, 30.0, CORPUS_RATE, True, partial(play, drawing, settings=settings))
        if found == kind:
            return 0.5 * samples / np.abs(samples).max()
    raise AssertionError(kind)


def wrapped(cents: float) -> float:
    """``cents`` in -50..50."""
    return (cents + 50.0) % 100.0 - 50.0


def main() -> None:
    """Print the results for the recordings on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, help="CSV with the columns path and key")
    parser.add_argument("--music", type=Path, help="folder of other music")
    parser.add_argument(
        "--tracks", type=int, default=60, help="number of tracks of --music, at regular intervals (default: 60)"
    )
    parser.add_argument("--model", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    model = KeyModel(options.model)
    tracks: list[tuple[Path, Key | None]] = []
    if options.labels:
        with options.labels.open(newline="", encoding="utf-8") as file:
            tracks += [(options.labels.parent / row["path"], Key.parse(row["key"])) for row in csv.DictReader(file)]
    if options.music:
        found = [finding.path for finding in find_music([options.music]) if finding.error is None]
        tracks += [(path, None) for path in found[:: max(1, len(found) // options.tracks)][: options.tracks]]

    report: dict[str, object] = {"model": model.name, "tracks": len(tracks)}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        report |= _changed(tracks, model, folder)
        report["no_key"] = {
            kind: float(
                np.mean(
                    [detect(no_key_audio(kind, n), model, folder, CORPUS_RATE).key is None for n in range(NO_KEY_COUNT)]
                )
            )
            for kind in ("silence", "white noise", "pink noise", "drums", "speech")
        }
    if options.json:
        print(json.dumps(report))
        return
    for name, value in report.items():
        print(f"{name}: {value}" if not isinstance(value, dict) else name)
        if isinstance(value, dict):
            for key, entry in value.items():
                print(f"  {key}: {entry}")


def _changed(tracks: list[tuple[Path, Key | None]], model: KeyModel, folder: Path) -> dict[str, object]:
    """Accuracy (if labeled), and agreement with the answer for the unchanged recording, for each change."""
    changes: dict[str, Callable[[Floats], KeyEstimate]] = {
        "MP3 64 kbit/s": lambda samples: detect_as_mp3(samples, model, folder),
        "300 to 3400 Hz": lambda samples: detect(band_limited(samples, 300.0, 3400.0), model, folder),
        "-30 dB": lambda samples: detect(samples * np.float32(10**-1.5), model, folder),
    }
    right: dict[str, list[float]] = {}
    same: dict[str, list[bool]] = {}
    same_likely: dict[str, list[bool]] = {}
    points: dict[str, list[float]] = {}
    errors: list[float] = []
    rejected: list[str] = []
    for path, label in tracks:
        try:
            samples = middle(path)
        except (StoneError, OSError) as error:
            print(f"{path.name}: {error}")
            continue
        plain = detect(samples, model, folder)
        if plain.key is None:
            rejected.append(path.name)
        answers = {"unchanged": (plain, 0)}
        answers |= {
            f"{cents:+d} cents": (detect(transposed(samples, cents / 100), model, folder), 0) for cents in CENTS
        }
        answers |= {
            f"{steps:+d} semitones": (detect(transposed(samples, steps), model, folder), steps) for steps in SEMITONES
        }
        answers |= {name: (change(samples), 0) for name, change in changes.items()}
        for cents in CENTS:
            estimate = answers[f"{cents:+d} cents"][0]
            if plain.tuning_cents is not None and estimate.tuning_cents is not None:
                errors.append(abs(wrapped(estimate.tuning_cents - plain.tuning_cents - cents)))
        for name, (estimate, steps) in answers.items():
            # If the changed recording is nearer to another semitone, that one is the right answer.
            offset = 0
            if name.endswith("cents") and plain.tuning_cents is not None:
                offset = round((plain.tuning_cents + int(name.split()[0])) / 100)
            shift = steps + offset
            if plain.key is not None:
                same.setdefault(name, []).append(estimate.key == plain.key.transposed(shift))
                if plain.confidence >= LIKELY:
                    same_likely.setdefault(name, []).append(same[name][-1])
            if label is not None:
                right.setdefault(name, []).append(estimate.key == label.transposed(shift))
                points.setdefault(name, []).append(mirex_score(label.transposed(shift), estimate.key))
    return {
        "rejected": rejected,
        "tuning error in cents (median, 95th percentile)": [float(np.quantile(errors, q)) for q in (0.5, 0.95)],
        "same answer as unchanged": _means(same),
        f"the same, of answers with a confidence of at least {LIKELY}": _means(same_likely),
        "right": _means(right),
        "MIREX": _means(points),
    }


def _means(values: dict[str, list[bool]] | dict[str, list[float]]) -> dict[str, float]:
    return {name: round(float(np.mean(row)), 3) for name, row in values.items()}


if __name__ == "__main__":
    main()
