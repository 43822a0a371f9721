"""Damage real files of every container at random, and read, write and restore their tags.

    python benchmarks/fuzz_tags.py [--count 10000] [--seed 1] [--only flac] [--keep FOLDER]

For each damaged file, this checks: every error is a TagError of one line; it takes less than 10 s; a refused file is
unchanged; a written file can be read, has the same audio, and is restored byte for byte by undo. At the end, the peak
memory has to be below 500 MB. A file that fails is stored in FOLDER under the name of its seed; ``--seed N --count 1``
generates it again.

pytest runs 2,000 files in tests/conformance/test_fuzz.py, and ``pytest -m slow`` 10,000 or as many as ``STONE_FUZZ``.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import soundfile
from mutagen.apev2 import APEv2

from stonecli.errors import TagError
from stonecli.key import Key
from stonecli.tags import FieldRule, read_tags, remove_key, undo_change, write_key
from stonecli.tags.edit.audio_digest import audio_digest
from stonecli.tags.formats.sniff import sniff
from stonecli.tags.undo.record import Undo

MAX_SECONDS, MAX_MEGABYTES = 10.0, 500
RULES = (FieldRule(), FieldRule("comment", "camelot", "prepend"), FieldRule("title", "musical", "append"))
KEYS = list(Key.all())
_SOUNDFILE = {
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "wav": ("WAV", "PCM_16"),
    "aiff": ("AIFF", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
}
_FFMPEG = {
    "opus": ["-c:a", "libopus"],
    "m4a": ["-c:a", "aac"],
    "mp4": ["-c:a", "alac", "-movflags", "+faststart"],
    "wma": ["-c:a", "wmav2"],
    "wv": ["-c:a", "wavpack"],
    "oga": ["-c:a", "flac"],
}


def make_samples(folder: Path) -> dict[str, bytes]:
    """The content of a tagged file of a quarter of a second in each container, by name."""
    tone = 0.3 * np.sin(np.arange(11025) * 0.06) + 0.02 * np.random.default_rng(1).standard_normal(11025)
    samples = {}
    for name, (kind, subtype) in _SOUNDFILE.items():
        soundfile.write(folder / name, tone, 44100, format=kind, subtype=subtype)
    for name, options in _FFMPEG.items():
        source: list[str | Path] = ["-i", folder / "wav", *options, "-metadata", "title=A - B", folder / f"x.{name}"]
        subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *source], check=True)
        (folder / f"x.{name}").rename(folder / name)
    for name in (*_SOUNDFILE, *_FFMPEG):
        write_key(folder / name, Key.parse("3B"), [FieldRule(), FieldRule("comment"), FieldRule("grouping")])
        samples[name] = (folder / name).read_bytes()
        (folder / name).unlink()
    # Without an ID3v2 tag but with ID3v1, APEv2 or INFO fields, which are copied to a new tag.
    plain, wav = samples["mp3"].partition(b"\xff\xfb")[2], samples["wav"].partition(b"id3 ")[0]
    ape = APEv2()
    ape.update({"Title": "A - B", "Artist": "C", "Comment": "8A", "Year": "2001-05-03"})
    (folder / "old").write_bytes(b"\xff\xfb" + plain)
    ape.save(folder / "old")
    samples["mp3 old"] = (folder / "old").read_bytes() + b"TAG" + b"A - B".ljust(124, b"\0") + b"\x11"
    (folder / "old").unlink()
    wav += b"LIST\x1c\0\0\0INFOINAM\x05\0\0\0A - B\0IART\x01\0\0\0C\0"
    samples["wav old"] = wav[:4] + (len(wav) - 8).to_bytes(4, "little") + wav[8:]
    return samples


def damaged(content: bytes, chance: random.Random, others: list[bytes]) -> bytes:
    """The content with one to four random changes."""
    data = bytearray(content)
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        if not data:
            break
        near = min(len(data), chance.choice([16, 64, 600, 4000, len(data)]))  # most metadata is at the ends
        at = chance.randrange(near)
        at = at if chance.random() < 0.7 else len(data) - 1 - at
        length = chance.choice([1, 2, 4, 8, 100, 5000])
        match chance.randrange(9):
            case 0:
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                data[at] = chance.choice([0, 1, 0x7F, 0x80, 0xFE, 0xFF, chance.randrange(256)])
            case 2:
                del data[at:]
            case 3:
                del data[at : at + length]
            case 4:
                data[at:at] = data[at : at + length]
            case 5:
                data[at : at + length] = bytes(len(data[at : at + length]))
            case 6:
                number = chance.choice([0, 1, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, len(data)])
                data[at : at + 4] = number.to_bytes(4, chance.choice(["big", "little"]))
            case 7:
                other = chance.choice(others)
                data[at:at] = other[: chance.choice([10, 100, 3000])]
            case 8:
                data[at : at + length] = chance.randbytes(length)
    return bytes(data)


class Records(list[Undo]):
    """An undo journal in memory."""

    def add(self, path: Path, undo: Undo) -> int:
        """Store the record; its number."""
        self.append(undo)
        return len(self) - 1

    def forget(self, number: int) -> None:
        """Delete the record, which is the last one: its change was not made."""
        del self[number]


def examine(path: Path, content: bytes, chance: random.Random) -> str:
    """The outcome for the file, ``refused`` or ``written``.

    Raises:
        AssertionError: a check failed.
    """
    path.write_bytes(content)
    records = Records()
    start = time.monotonic()
    try:
        read_tags(path)
        with path.open("rb") as file:
            container = sniff(file)
        audio = None
        for act in (
            lambda: write_key(path, chance.choice(KEYS), RULES, journal=records),
            lambda: remove_key(path, RULES, journal=records),
        ):
            before = path.read_bytes()
            count = len(records)
            try:
                act()
            except TagError:
                if path.read_bytes() != before:
                    raise AssertionError("the file was refused but changed") from None
                raise
            with path.open("rb") as file:
                now = audio_digest(file, container)
            if audio not in (None, now):
                raise AssertionError("the audio changed")
            audio = now
            if len(records) == count and path.read_bytes() != before:
                raise AssertionError("the file was changed without an undo record")
        result = "written"
    except TagError as error:
        text = str(error)
        if not text.isprintable() or not 5 < len(text) < 120:
            raise AssertionError(
                f"the error message is not a printable line of 6 to 119 characters: {text!r}"
            ) from None
        result = "refused"
    for undo in reversed(records):
        undo_change(path, undo)
    if path.read_bytes() != content:
        raise AssertionError("the changes were not undone")
    if time.monotonic() - start > MAX_SECONDS:
        raise AssertionError(f"it took more than {MAX_SECONDS:.0f} s")
    return result


def fuzz(
    folder: Path, count: int, seed: int, only: str | None = None, keep: Path | None = None
) -> tuple[Counter[str], int]:
    """The numbers of refused and written files by container, and that of failures, which are printed to stderr."""
    samples = make_samples(folder)
    names = [only] if only else sorted(samples)
    counts: Counter[str] = Counter()
    failures = 0
    for number in range(seed, seed + count):
        chance = random.Random(number)
        name = names[number % len(names)]
        content = damaged(samples[name], chance, list(samples.values()))
        try:
            counts[f"{name} {examine(folder / 'song', content, chance)}"] += 1
        except Exception as error:
            failures += 1
            print(f"seed {number} ({name}): {type(error).__name__}: {error}", file=sys.stderr)
            if keep:
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{number}.{name}").write_bytes(content)
    left = [path.name for path in folder.iterdir() if path.name != "song"]
    if left:
        failures += 1
        print(f"temporary files were not deleted: {left}", file=sys.stderr)
    megabytes = peak_megabytes()
    if megabytes > MAX_MEGABYTES:
        failures += 1
        print(f"the peak memory is {megabytes:.0f} MB, more than {MAX_MEGABYTES} MB", file=sys.stderr)
    return counts, failures


def peak_megabytes() -> float:
    """Peak memory of this process in MB; on Linux not by ``ru_maxrss``, which starts with that of the parent."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print the counts by container; exit with code 1 if a file failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", metavar="CONTAINER", help="damage only files of this container")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="store files that fail in FOLDER")
    wanted = parser.parse_args()
    start = time.monotonic()
    # In memory if possible: on a disk, this takes eight times as long.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 (a unique name is used in it)
    with tempfile.TemporaryDirectory(prefix="stone-fuzz-", dir=memory) as folder:
        counts, failures = fuzz(Path(folder), wanted.count, wanted.seed, wanted.only, wanted.keep)
    for name, number in sorted(counts.items()):
        print(f"{number:6} {name}")
    print(f"{wanted.count} files in {time.monotonic() - start:.0f} s, {failures} failures")
    raise SystemExit(1 if failures else 0)


if __name__ == "__main__":
    main()
