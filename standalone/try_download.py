"""Unpack the download and use it as a DJ would: analyze, tag, undo, a page and a playlist.

    python standalone/try_download.py ARCHIVE

This needs nothing but Python, and the program that it tries gets none: its PATH is an empty folder.
"""

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import wave
from array import array
from itertools import cycle
from pathlib import Path

RATE = 22050  # Hz
SECONDS_PER_CHORD = 2
ENDINGS = ("wav", "mp3", "m4a", "flac", "ogg", "wma")
# Pitches of the chords in semitones above C4, in the order i iv V i and I IV V I.
SONGS = {
    "Dm": [(2, 5, 9), (-5, -2, 2), (-3, 1, 4), (2, 5, 9)],
    "E": [(4, 8, 11), (-3, 1, 4), (-1, 3, 6), (4, 8, 11)],
}


def main(archive: Path) -> None:
    """Raises AssertionError with what is wrong."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        shutil.unpack_archive(archive, folder / "unpacked")
        assert [path.name for path in (folder / "unpacked").iterdir()] == ["stone"], "one folder in the archive"
        program = folder / "unpacked" / "stone" / ("stone.exe" if os.name == "nt" else "stone")
        use(Download(program, folder), folder)


class Download:
    """The unpacked program with folders of its own and without the user's PATH."""

    def __init__(self, program: Path, folder: Path) -> None:
        self.program = program
        (folder / "empty").mkdir()
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))},
            **{f"STONE_{name.upper()}_DIR": str(folder / name) for name in ("state", "cache", "config", "data")},
            "PATH": str(folder / "empty"),
        }

    def __call__(self, *arguments: str | Path) -> str:
        """Its standard output; AssertionError if it fails."""
        done = subprocess.run(
            [self.program, *arguments], env=self.environment, capture_output=True, encoding="utf-8", check=False
        )
        assert done.returncode == 0, f"stone {arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout

    def ffmpeg(self) -> Path:
        """The ffmpeg inside."""
        [program] = (self.program.parent / "files" / "imageio_ffmpeg" / "binaries").glob("ffmpeg*")
        return program


def use(stone: Download, folder: Path) -> None:
    """Go through the commands of the first hour."""
    version = stone("--version").strip()
    assert version.startswith("stone "), version
    assert "tag" in stone("--help")
    assert "--write-tags" in stone("tag", "--help")
    assert "MIT" in stone("models", "list")

    music = folder / "music"
    music.mkdir()
    keys = {}
    for number, ending in enumerate(ENDINGS):
        key = list(SONGS)[number % len(SONGS)]
        path = music / f"{number}.{ending}"
        write_song(folder / "song.wav", key)
        options = ("-v", "error", "-i", folder / "song.wav")
        subprocess.run([stone.ffmpeg(), *options, path], check=True)
        keys[path.name] = key
    before = {path: path.read_bytes() for path in music.iterdir()}

    records = [json.loads(line) for line in stone("analyze", "--json", music).splitlines()]
    detected = {Path(record["path"]).name: record["key"]["musical"] for record in records}
    assert detected == keys, detected
    stone("tag", music, "--bpm", "--write-tags", "--html", folder / "page.html")
    assert (folder / "page.html").stat().st_size > 10_000
    statuses = {record["status"] for record in map(json.loads, stone("tag", music, "--json").splitlines())}
    assert statuses == {"kept"}, statuses
    stone("mix", music, "--playlist", folder / "set.m3u8")
    assert (folder / "set.m3u8").read_text("utf-8").count("music") == len(keys)
    stone("undo")
    assert {path: path.read_bytes() for path in music.iterdir()} == before, "undo does not restore every byte"
    print(f"{version}: {len(keys)} files analyzed, tagged, mixed and restored")


def write_song(path: Path, key: str) -> None:
    """Write 16 seconds of a chord progression in ``key`` as a mono WAV."""
    samples = array("h")
    chords = cycle(SONGS[key])
    for _ in range(2 * len(SONGS[key])):
        pitches = next(chords)
        for frame in range(RATE * SECONDS_PER_CHORD):
            time = frame / RATE
            value = sum(
                math.sin(2 * math.pi * 261.63 * 2 ** (pitch / 12) * partial * time) / partial
                for pitch in (*pitches, pitches[0] - 12)
                for partial in (1, 2, 3)
            )
            samples.append(int(2500 * value * math.exp(-2 * (time % 0.5))))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
