"""Real files in every container, made once a session, and helpers that the tests share."""

from __future__ import annotations

import struct
import subprocess
import zlib
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import soundfile
from mutagen import id3
from mutagen.apev2 import APEv2
from mutagen.flac import FLAC
from mutagen.ogg import OggPage

from stonecli.tags.edit.audio_digest import audio_digest
from stonecli.tags.formats.containers import CONTAINERS as ROWS
from stonecli.tags.formats.containers import load_class
from stonecli.tags.formats.sniff import sniff
from tests.fixture_types import BytesOf, CopySample, ListLeftovers, MakePicture

_SECONDS = 1.5
_SOUNDFILE = {  # name: format, subtype, rate
    "mp3": ("MP3", "MPEG_LAYER_III", 44100),
    "wav": ("WAV", "PCM_16", 44100),
    "aiff": ("AIFF", "PCM_16", 44100),
    "flac": ("FLAC", "PCM_16", 44100),
    "ogg vorbis": ("OGG", "VORBIS", 44100),
    "opus": ("OGG", "OPUS", 48000),
}
_FFMPEG = {  # name: ending, options
    "mp4": ("m4a", ["-c:a", "aac"]),
    "alac": ("m4a", ["-c:a", "alac"]),
    "faststart": ("m4a", ["-c:a", "aac", "-movflags", "+faststart"]),
    "fragmented": ("m4a", ["-c:a", "aac", "-movflags", "frag_keyframe+empty_moov"]),
    "asf": ("wma", ["-c:a", "wmav2"]),
    "wavpack": ("wv", ["-c:a", "wavpack"]),
    "ogg flac": ("oga", ["-c:a", "flac"]),
    "adts": ("aac", ["-c:a", "aac"]),
}
WITHOUT_AUDIO = {"musepack": b"MPCK", "monkey's audio": b"MAC \x96\x0f"}
"""First bytes of samples that are noise after them, because there is no free encoder; only the tag matters."""

CONTAINERS = {name: name for name in (*_SOUNDFILE, "mp4", "asf", "wavpack", "ogg flac", "speex", *WITHOUT_AUDIO)} | {
    "alac": "mp4",
    "faststart": "mp4",
}
"""The container that ``sniff`` finds in each sample that can be tagged."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs a test that asks for ``sample`` on every kind of file that can be tagged."""
    if "sample" in metafunc.fixturenames:
        metafunc.parametrize("sample", CONTAINERS)


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The content of a short file of each kind, by name."""
    folder = tmp_path_factory.mktemp("samples")
    made = {}
    for name, (kind, subtype, rate) in _SOUNDFILE.items():
        time = np.arange(int(rate * _SECONDS)) / rate
        tone = 0.3 * np.sin(2 * np.pi * 440 * time) + 0.05 * np.random.default_rng(1).standard_normal(time.size)
        path = folder / f"{kind}-{subtype}"
        soundfile.write(path, tone, rate, format=kind, subtype=subtype)
        made[name] = path.read_bytes()
    for name, (ending, options) in _FFMPEG.items():
        path = folder / f"{name}.{ending}"
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", folder / "WAV-PCM_16", *options, path]
        subprocess.run(command, check=True)
        made[name] = path.read_bytes()
    noise = np.random.default_rng(2).bytes(5000)
    made["speex"] = _speex(noise)
    return made | {name: magic + noise for name, magic in WITHOUT_AUDIO.items()}


def _speex(noise: bytes) -> bytes:
    """Pages as an encoder would write them, around noise."""
    header = b"Speex   1.2".ljust(36, b"\0") + struct.pack("<5i", 16000, 1, 4, 1, 0).ljust(44, b"\0")
    pages = []
    for number, packet in enumerate((header, struct.pack("<i5si", 5, b"maker", 0), noise[:700], noise[700:900])):
        page = OggPage()
        page.packets, page.sequence, page.serial, page.position = [packet], number, 77, max(0, number - 1) * 320
        page.first, page.last = number == 0, number == 3
        pages.append(page.write())
    return b"".join(pages)


def write_texts(path: Path, put: dict[str, str]) -> None:
    """Put texts into a file as another program would: through mutagen."""
    names = {
        "id3": {"comment": "COMM", "grouping": "TIT1", "title": "TIT2"},
        "vorbis": {"comment": "COMMENT", "grouping": "GROUPING", "title": "TITLE"},
        "mp4": {"comment": "\xa9cmt", "grouping": "\xa9grp", "title": "\xa9nam"},
        "apev2": {"comment": "Comment", "grouping": "Grouping", "title": "Title"},
        "asf": {"comment": "Description", "grouping": "WM/ContentGroupDescription", "title": "Title"},
    }
    with path.open("rb") as file:
        row = ROWS[sniff(file)]
    if row.family == "apev2":
        tags = APEv2()
        tags.update({names["apev2"][field]: text for field, text in put.items()})
        tags.save(path)
        return
    opened = load_class(row.file_class)(path)
    if opened.tags is None:
        opened.add_tags()
    for field, text in put.items():
        if row.family == "id3":
            frame = getattr(id3, names["id3"][field])
            more = {"lang": "deu", "desc": ""} if field == "comment" else {}
            opened.tags.add(frame(encoding=3 if len(text) > 20 else 0, text=[text], **more))
        else:
            opened.tags[names[row.family][field]] = [text]
    opened.save()


@pytest.fixture
def make(samples: dict[str, bytes], tmp_path: Path) -> CopySample:
    """A fresh copy of a sample: ``make("mp3")``; with another file name: ``make("mp3", "song.flac")``."""

    def copy(sample: str, name: str = "song") -> Path:
        path = tmp_path / name
        path.write_bytes(samples[sample])
        return path

    return copy


@pytest.fixture(scope="session")
def png() -> MakePicture:
    """A valid picture of one pixel with about that many bytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4) + name + data + zlib.crc32(name + data).to_bytes(4)

    def picture(size: int) -> bytes:
        start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bytes([0, 0, 0, 1, 0, 0, 0, 1, 8, 0, 0, 0, 0]))
        return start + chunk(b"prVt", bytes(size)) + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")

    return picture


@pytest.fixture
def digest() -> BytesOf:
    """The audio digest of a file."""

    def of(path: Path) -> bytes:
        with path.open("rb") as file:
            return audio_digest(file, sniff(file))

    return of


@pytest.fixture
def decoded() -> BytesOf:
    """The samples that ffmpeg decodes from a file; fails where ffmpeg has anything to complain about."""

    def of(path: Path) -> bytes:
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", path, "-map", "0:a", "-f", "s16le", "-"]
        result = subprocess.run(command, capture_output=True, check=True)
        assert not result.stderr, result.stderr
        return result.stdout

    return of


@pytest.fixture
def left_over(tmp_path: Path) -> ListLeftovers:
    """The names of temporary files that were not cleaned up."""
    return lambda: [path.name for path in tmp_path.iterdir() if path.name.startswith(".stone-")]


def tagged(path: Path, **texts: str) -> Path:
    """A FLAC file with these texts."""
    file = FLAC(path)
    for name, text in texts.items():
        file[name] = text
    file.save()
    return path
