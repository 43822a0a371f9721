"""System calls on a music file during ``stone tag --write-tags``: ``python benchmarks/file_calls.py [--show]``.

Counts how often a file is opened and its status is read, with ``strace -f``, for one file per container: in a first
run, and in a second one with the result in the cache. Opening a file costs a round trip on a network share, and reading
the status often does.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import soundfile

STONE = [sys.executable, "-c", "from stonecli.cli.main import run; run()"]
RATE = 44100
_CALL = re.compile(r"\d+ +(?P<call>\w+)\((?P<arguments>.*)")  # strace may print the result on a later line
_OPEN, _STATUS = ("open", "openat", "openat2"), ("stat", "lstat", "newfstatat", "statx")


def main() -> None:
    """Print the numbers of calls as a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--show", action="store_true", help="also print the calls")
    arguments = parser.parse_args()
    if not shutil.which("strace"):
        raise SystemExit("strace is not installed")
    print(f"{'file':6} {'run':14} {'opened':>6} {'status read':>12}")
    for suffix in ("mp3", "flac", "m4a"):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            path = make_song(folder, suffix)
            for run in ("first", "key exists", "cached result"):
                extra = ["--overwrite", "--notation", "openkey"] if run == "cached result" else []
                before = path.stat().st_ino
                calls = calls_on(path, folder, extra)
                if (path.stat().st_ino != before) != (run != "key exists"):
                    expected = "should not have been" if run == "key exists" else "was not"
                    raise SystemExit(f"run {run!r}: the file {expected} written")
                opened, status_read = counts(calls)
                print(f"{suffix:6} {run:14} {opened:6} {status_read:12}")
                if arguments.show:
                    print(*(f"    {call['call']}({call['arguments'][:80]})" for call in calls), sep="\n")


def make_song(folder: Path, suffix: str) -> Path:
    """Path of a new file of 32 s in A minor: Am, Dm, E, Am, with overtones."""
    time = np.arange(2 * RATE) / RATE
    chords = [
        sum(
            np.sin(2 * np.pi * 440 * 2 ** ((note - 69) / 12) * harmonic * time) / harmonic**2
            for note in notes
            for harmonic in range(1, 6)
        )
        for notes in ((45, 57, 60, 64), (50, 57, 62, 65), (52, 56, 59, 64), (45, 57, 60, 64))
    ]
    wav = folder / "song.wav"
    soundfile.write(wav, 0.1 * np.tile(np.concatenate(chords), 4), RATE)
    path = folder / "music" / f"song.{suffix}"
    path.parent.mkdir()
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", wav, path], check=True)
    return path


def counts(calls: list[re.Match[str]]) -> tuple[int, int]:
    """The numbers of calls that open the file and that read its status."""
    return sum(call["call"] in _OPEN for call in calls), sum(call["call"] in _STATUS for call in calls)


def calls_on(path: Path, folder: Path, options: list[str]) -> list[re.Match[str]]:
    """The successful calls of ``stone tag --write-tags`` that name the file; those on an open descriptor do not count.

    The state, cache, config and data folders of stone and the log of strace are in ``folder``.
    """
    log = folder / "strace"
    state = {f"STONE_{name}_DIR": str(folder / name.lower()) for name in ("STATE", "CACHE", "CONFIG", "DATA")}
    command = ["strace", "-f", "-s", "4096", "-e", "trace=%file", "-o", str(log), *STONE]
    subprocess.run(
        [*command, "tag", "--write-tags", "--jobs", "1", *options, str(path)],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, **state},
    )
    matches = (_CALL.match(line) for line in log.read_text("utf-8", "replace").splitlines())
    made = [match for match in matches if match and " = -1 " not in match["arguments"]]
    return [call for call in made if f'"{path}"' in call["arguments"]]


if __name__ == "__main__":
    main()
