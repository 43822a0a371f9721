"""Small files that declare gigabytes: the whole process tree of ``stone`` stays small."""

import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

LIMIT = 300 << 20  # bytes
HUGE = 0x7FFFFFF0

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def peak_memory(command: list[str | Path], **variables: str) -> tuple[int, str]:
    """Peak of the resident memory of a process and its largest descendant together, in bytes, and what it printed."""
    peaks: dict[int, int] = {}
    environment = {**os.environ, **variables}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment) as process:
        try:
            deadline = time.monotonic() + 120
            while process.poll() is None and time.monotonic() < deadline:
                for pid in _tree(process.pid):
                    peaks[pid] = max(peaks.get(pid, 0), _peak(pid))
                time.sleep(0.002)
        finally:
            process.kill()
        assert process.stdout is not None
        own = peaks.pop(process.pid, 0)
        return own + max(peaks.values(), default=0), process.stdout.read().decode("utf-8", "replace")


def _tree(pid: int) -> list[int]:
    found = [pid]
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            for child in tasks.read_text().split():
                found += _tree(int(child))
        except OSError:
            continue
    return found


def _peak(pid: int) -> int:
    """Peak memory of a process that starts a program: between fork and exec it shares the memory of its parent."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        if os.readlink(f"/proc/{pid}/exe") == os.readlink(f"/proc/{_parent(status)}/exe"):  # noqa: PTH115
            return 0 if b"other_decoders" not in Path(f"/proc/{pid}/cmdline").read_bytes() else _field(status, "VmHWM")
        return _field(status, "VmHWM")
    except (OSError, StopIteration):
        return 0


def _parent(status: str) -> int:
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("PPid:"))


def _field(status: str, name: str) -> int:
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith(name))


def wav_with_list(size: int) -> bytes:
    """176 kB: a LIST chunk that says it is 2 GB long, and a text in it of ``size`` bytes."""
    samples = bytes(2 * 44100 * 2)
    form = struct.pack("<HHIIHH", 1, 1, 44100, 88200, 2, 16)
    body = b"WAVEfmt " + struct.pack("<I", 16) + form + b"LIST" + struct.pack("<I", 0x7FFFFFFF) + b"INFOIART"
    body += struct.pack("<I", size) + b"data" + struct.pack("<I", len(samples)) + samples
    return b"RIFF" + struct.pack("<I", len(body)) + body


def with_id3(content: bytes, frame: bytes, size: int) -> bytes:
    """``content`` behind an ID3v2.4 tag that declares 256 MB, with one frame that declares ``size``."""
    safe = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + frame + safe + b"\0\0\0text" + content


def flac_block(content: bytes, kind: int, body: bytes) -> bytes:
    """``content`` with a metadata block behind STREAMINFO that declares 16 MB."""
    return (
        content[:4] + bytes([content[4] & 0x7F]) + content[5:42] + bytes([kind]) + b"\xff\xff\xff" + body + content[42:]
    )


BOMBS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {  # name: container, and what becomes of it
    "wav list": ("wav 16 bit", lambda _: wav_with_list(HUGE)),
    "wav list below the limit": ("wav 16 bit", lambda _: wav_with_list((64 << 20) - 64)),
    "wav id3": ("wav 16 bit", lambda c: c + b"id3 " + struct.pack("<I", HUGE) + b"ID3\x04\0\0\x7f\x7f\x7f\x7f"),
    "aiff text": ("aiff", lambda c: c[:12] + b"NAME" + struct.pack(">I", HUGE) + c[12:]),
    "mp3 text": ("mp3", lambda c: with_id3(c, b"TIT2", (1 << 28) - 1)),
    "mp3 picture": ("mp3", lambda c: with_id3(c, b"APIC", (1 << 28) - 1)),
    "flac comments": ("flac", lambda c: flac_block(c, 4, b"\xff\xff\xff\x7f" * 4)),
    "flac picture": ("flac", lambda c: flac_block(c, 6, b"\0\0\0\3\x7f\xff\xff\xff" * 4)),
    "ogg comments": ("ogg vorbis", lambda c: c.replace(b"\3vorbis", b"\3vorbis\xff\xff\xff\x7f\xff\xff\xff\x7f", 1)),
    "m4a table": ("m4a aac", lambda c: _with_count(c, b"stsz", 12, 0x0FFFFFFF)),
    "m4a times": ("m4a aac", lambda c: _with_count(c, b"stts", 8, 0x0FFFFFFF)),
    "m4a text": ("m4a aac", lambda c: _with_count(c, b"data", -4, HUGE)),
    "wma header": ("wma", lambda c: c[:16] + struct.pack("<Q", HUGE) + c[24:]),
    "wavpack block": ("wavpack", lambda c: c[:4] + struct.pack("<I", HUGE) + c[8:]),
    "ape seek table": ("wavpack", lambda c: b"MAC " + struct.pack("<HHIIIIII", 3990, 0, 52, 24, HUGE, 44, HUGE, 0) + c),
    "ape tag": ("wavpack", lambda c: c + b"APETAGEX" + struct.pack("<IIII", 2000, HUGE, 0x0FFFFFFF, 0) + bytes(8)),
}


def _with_count(content: bytes, atom: bytes, offset: int, count: int) -> bytes:
    at = content.index(atom) + offset
    return content[:at] + struct.pack(">I", count) + content[at + 4 :]


@pytest.fixture(scope="module")
def bombs(songs: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bombs")
    for name, (container, change) in BOMBS.items():
        source = songs[container]
        (folder / name).with_suffix(source.suffix).write_bytes(change(source.read_bytes()))
    return folder


@pytest.mark.parametrize("command", ["analyze", "tag"])
def test_declared_sizes_are_not_allocated(bombs: Path, tmp_path: Path, command: str) -> None:
    folder = shutil.copytree(bombs, tmp_path / "bombs")
    assert max(path.stat().st_size for path in folder.iterdir()) < 3 << 20
    options = ["--jobs", "1", "--no-cache", "--write-tags"] if command == "tag" else []
    peak, text = peak_memory([sys.executable, "-m", "stonecli", command, folder, *options])
    assert "Traceback" not in text
    assert "unexpected" not in text
    assert peak < LIMIT


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs an ffmpeg on PATH")
def test_nor_by_the_other_decoders(bombs: Path) -> None:
    for path in (bombs / "wav list.wav", bombs / "wav list below the limit.wav"):
        peak, text = peak_memory([sys.executable, "-m", "stonecli", "analyze", path], IMAGEIO_FFMPEG_EXE="/nonexistent")
        assert "cannot be decoded" in text
        assert peak < LIMIT
