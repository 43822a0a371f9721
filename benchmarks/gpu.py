"""The parts of ``benchmarks/gpu.sh``: parity of devices, windows per second, files per second.

    python benchmarks/gpu.py parity [--device cuda]
    python benchmarks/gpu.py windows [--device cuda]
    python benchmarks/gpu.py files FOLDER [--device cuda] [--count 100]

Each part prints one JSON object on one line. The music is synthesized: decaying chords with noise, in all 24 keys.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import soundfile

from stonecli.key import Key
from stonecli.model.session import KeyModel

Device = Literal["cpu", "cuda"]
RATE = 22050
SECONDS = 60.0
PROGRESSION = {"major": (0, 5, 7, 0), "minor": (0, 5, 7, 0)}
BATCHES = (1, 2, 4, 8, 16, 32, 64)


def music(key: Key, seconds: float, seed: int) -> npt.NDArray[np.float32]:
    """Chords of a key, two seconds each, float32 [samples] at ``RATE`` with a peak of 0.9."""
    rng = np.random.default_rng(seed)
    length = 2 * RATE
    time_ = np.arange(length) / RATE
    third = 4 if key.mode == "major" else 3
    parts = []
    for number in range(int(np.ceil(seconds / 2))):
        root = 48 + key.tonic + PROGRESSION[key.mode][number % 4]
        sound = np.zeros(length)
        for note in (root - 12, root, root + (4 if number % 4 == 2 else third), root + 7):
            frequency = 440.0 * 2 ** ((note - 69) / 12)
            for overtone in range(1, 6):
                sound += np.sin(2 * np.pi * frequency * overtone * time_) * np.exp(-time_ * overtone / 2) / overtone
        parts.append(sound + 0.02 * rng.standard_normal(length))
    whole = np.concatenate(parts)[: int(seconds * RATE)]
    return (0.9 * whole / np.abs(whole).max()).astype(np.float32)


def windows_of(model: KeyModel, count: int) -> npt.NDArray[np.float32]:
    """``count`` windows with the length and context of the model, float32 [count, samples]."""
    info = model.info
    samples = info.window_samples + 2 * info.context_samples
    windows = []
    for number in range(count):
        sound = music(Key.from_index(number % 24), samples / info.sample_rate + 1.0, number)
        step = RATE // info.sample_rate
        windows.append(sound[: samples * step].reshape(-1, step).mean(axis=1))
    return np.stack(windows)


def parity(device: Device) -> dict[str, Any]:
    """Differences of the probabilities of 48 windows between ``device`` and the CPU."""
    reference, model = KeyModel(device="cpu"), KeyModel(device=device)
    windows = windows_of(reference, 48)
    expected = reference(windows).classes
    found = np.concatenate([model(windows[start : start + 16]).classes for start in range(0, len(windows), 16)])
    return {
        "part": "parity",
        "device": model.device,
        "windows": len(windows),
        "largest_difference": float(np.abs(found - expected).max()),
        "equal_keys": float((found.argmax(axis=1) == expected.argmax(axis=1)).mean()),
    }


def windows_per_second(device: Device) -> dict[str, Any]:
    """Windows per second by batch size."""
    model = KeyModel(device=device)
    windows = windows_of(model, max(BATCHES))
    rates = {}
    for size in BATCHES:
        batch = windows[:size]
        model(batch)
        runs, started = 0, time.perf_counter()
        while time.perf_counter() - started < 2.0:
            model(batch)
            runs += 1
        rates[str(size)] = round(runs * size / (time.perf_counter() - started), 1)
    return {"part": "windows", "device": model.device, "windows_per_second_by_batch": rates}


def files(folder: Path, device: Device, count: int) -> dict[str, Any]:
    """Files per second of ``stone tag`` on ``count`` recordings of a minute, and the number of right keys."""
    keys = {}
    for number in range(count):
        path = folder / f"{number:03}.flac"
        keys[str(path)] = Key.from_index(number % 24)
        if not path.exists():
            soundfile.write(path, music(keys[str(path)], SECONDS, number), RATE)
    command = [sys.executable, "-m", "stonecli", "tag", str(folder), "--json", "--no-cache", "--device", device]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "NO_COLOR": "1"})
    seconds = time.perf_counter() - started
    records = [json.loads(line) for line in done.stdout.splitlines()]
    right = sum(
        record["key"] is not None and Key.parse(record["key"]["musical"]) == keys[str(Path(record["path"]))]
        for record in records
    )
    return {
        "part": "files",
        "device": device,
        "files": len(records),
        "seconds": round(seconds, 2),
        "files_per_second": round(len(records) / seconds, 2),
        "right_keys": right,
    }


def main() -> None:
    """Print the results of one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["parity", "windows", "files"])
    parser.add_argument("folder", type=Path, nargs="?", help="folder for the recordings of the part files")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--count", type=int, default=100, help="number of recordings (default: 100)")
    options = parser.parse_args()
    if options.part == "parity":
        print(json.dumps(parity(options.device)))
    elif options.part == "windows":
        print(json.dumps(windows_per_second(options.device)))
    else:
        if options.folder is None:
            parser.error("files needs a FOLDER")
        options.folder.mkdir(parents=True, exist_ok=True)
        print(json.dumps(files(options.folder, options.device, options.count)))


if __name__ == "__main__":
    main()
