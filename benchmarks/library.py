"""Measure ``stone tag`` on large libraries: ``python benchmarks/library.py [--files 100000]``, all on this machine.

Three measurements, each with its reference in the same run:

1. a second run over 100,000 recordings that were analyzed before: seconds and peak memory (limits: 60 s and 300 MB);
2. 1,000 tagged MP3 files, checked again by ``stone tag --write-tags``: files per second (limit: 500);
3. writing a key to a FLAC file of 200 MB with padding, compared with copying it: without a flush, flushed to the disk,
   and also renamed over the file, which is the minimum for a writer that never leaves a partial file. The file is in
   the page cache before each; the ratios are medians over the rounds.

Everything is in a temporary folder, with its own journal and cache.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from stonecli.cache.content_hash import hash_content
from stonecli.cache.results import ResultCache
from stonecli.detection.detect import detect_key
from stonecli.key import Key
from stonecli.library.music_file import opened
from stonecli.model.session import KeyModel
from stonecli.tags import remove_key, write_key
from stonecli.tags.undo.journal import UndoJournal

STONE = [sys.executable, "-c", "from stonecli.cli.main import run; run()"]
FOLDER_SIZE = 1000  # files per folder of the generated library
FLAC_BYTES = 200e6


def run_stone(*arguments: str | Path) -> tuple[float, float, str]:
    """Run ``stone`` in a separate process; its seconds, its peak memory in MB, and its last line."""
    start = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen([*STONE, *map(str, arguments)], stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        output.seek(0)
        lines = output.read().decode().splitlines()
    if status:
        raise SystemExit("\n".join(lines[-5:]))
    return seconds, usage.ru_maxrss / 1024, f"{len(lines) - 1} lines, the last: {lines[-1].split(chr(9))[1:]}"


def make_song(path: Path) -> None:
    """Two seconds of a chord in 16 kB of MP3."""
    time_axis = np.arange(2 * 22050) / 22050
    chord = sum(np.sin(2 * np.pi * hertz * time_axis) for hertz in (220.0, 261.6, 329.6)) / 4
    soundfile.write(path, chord, 22050, format="MP3", subtype="MPEG_LAYER_III")


def second_run(folder: Path, count: int) -> None:
    """Measurement 1."""
    song = folder / "song.mp3"
    make_song(song)
    model = KeyModel(device="cpu")
    estimate = detect_key(song, model)
    content = song.read_bytes()
    cache = ResultCache()
    cache._database.row("PRAGMA synchronous = OFF")  # only while it is filled
    print(f"1. making {count} files and their results ...", flush=True)
    for number in range(count):
        path = folder / "library" / f"{number // FOLDER_SIZE:03}" / f"Artist {number % 97} - Title {number}.mp3"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content + b"TAG" + f"{number:0125}".encode())  # the ID3v1 tag makes each a different recording
        identity = hash_content(path)
        if identity is None:
            raise SystemExit(f"{path}: no identity")
        cache.put(identity, model, estimate)
        with opened(path) as music:
            cache.record(music, identity)
    cache.close()
    empty, _, _ = run_stone("tag", "--device", "cpu", song)
    seconds, megabytes, last = run_stone("tag", "--device", "cpu", folder / "library")
    print(f"   second run: {seconds:.1f} s, {count / seconds:.0f} files/s, peak {megabytes:.0f} MB ({last})")
    print(f"   of this, one file takes {empty:.1f} s (the start of the program)")
    size = (cache.path.stat().st_size) / 1e6
    print(f"   size of the cache: {size:.0f} MB, {size * 1e6 / count:.0f} bytes per recording")


def recheck(folder: Path, count: int = 1000) -> None:
    """Measurement 2."""
    library = folder / "tagged"
    library.mkdir()
    make_song(folder / "one.mp3")
    write_key(folder / "one.mp3", Key.parse("8A"))
    for number in range(count):
        shutil.copy(folder / "one.mp3", library / f"{number}.mp3")
    empty, _, _ = run_stone("tag", "--device", "cpu", folder / "one.mp3", "--write-tags")
    seconds, megabytes, last = run_stone("tag", "--device", "cpu", library, "--write-tags")
    print(f"2. {count} tagged MP3 files re-checked in {seconds:.1f} s, {count / seconds:.0f} files/s ({last})")
    print(f"   of this, one file takes {empty:.1f} s (the start of the program); peak {megabytes:.0f} MB")


def large_flac(folder: Path, rounds: int = 15) -> None:
    """Measurement 3."""
    path, copy = folder / "large.flac", folder / "copy.flac"
    noise = np.random.default_rng(1).integers(-30000, 30000, (round(FLAC_BYTES / 4), 2), dtype=np.int16)
    soundfile.write(path, noise, 44100, format="FLAC", subtype="PCM_16")
    del noise
    write_key(path, Key.parse("8A"))  # makes the padding
    remove_key(path)
    run = UndoJournal().start("benchmark")

    def plain() -> None:
        shutil.copyfile(path, copy)

    def flushed() -> None:
        shutil.copyfile(path, copy)
        with copy.open("rb+") as file:
            os.fsync(file.fileno())

    def replacing() -> None:
        flushed()
        copy.replace(path)

    def tagged() -> None:
        if not write_key(path, Key.parse("8A"), journal=run):
            raise SystemExit("the key was not written")

    actions = {
        "copied": plain,
        "copied and flushed": flushed,
        "copied, flushed and renamed": replacing,
        "tagged": tagged,
    }
    walls: dict[str, list[float]] = {name: [] for name in actions}
    processors: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, act in actions.items():
            copy.unlink(missing_ok=True)
            path.read_bytes()  # now in the page cache, as after an analysis
            os.sync()
            start, busy = time.perf_counter(), time.process_time()
            act()
            walls[name].append(time.perf_counter() - start)
            processors[name].append(time.process_time() - busy)
            if act is tagged:
                remove_key(path)
    print(f"3. FLAC of {path.stat().st_size / 1e6:.0f} MB with padding, alternating, median (fastest) of {rounds}:")
    for name in actions:
        wall, processor = statistics.median(walls[name]), statistics.median(processors[name])
        ratio = statistics.median(ours / other for ours, other in zip(walls["tagged"], walls[name], strict=True))
        times = f"{wall:.3f} ({min(walls[name]):.3f}) s, {processor:.3f} s of CPU time"
        print(f"   {name:28} {times}; tagging takes {ratio:.2f} times as long")


def main() -> None:
    """Run all three measurements, or that of ``--only``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000, help="size of the library of the first measurement")
    parser.add_argument(
        "--folder", type=Path, help="folder for the files, with 2 GB of free space (default: a temporary one)"
    )
    parser.add_argument("--only", type=int, choices=(1, 2, 3), help="run only this measurement")
    files = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stone-benchmark-", dir=files.folder) as name:
        folder = Path(name)
        os.environ["STONE_STATE_DIR"] = str(folder / "state")
        os.environ["STONE_CACHE_DIR"] = str(folder / "cache")
        if files.only in (None, 3):
            large_flac(folder)
        if files.only in (None, 2):
            recheck(folder)
        if files.only in (None, 1):
            second_run(folder, files.files)
    print(f"this process: peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
