"""Odd files of the kind that collections have: written with everything else in place, or refused (docs/tags.md)."""

import contextlib
import subprocess
from pathlib import Path
from typing import Literal

import imageio_ffmpeg
import mutagen
import pytest
from mutagen.flac import FLAC
from mutagen.id3 import COMM, ID3, TIT2

from stonecli.errors import TagError
from stonecli.key import Key
from stonecli.tags import FieldRule, read_tags, recorded, undo_run, write_key
from stonecli.tags.undo.journal import UndoJournal
from tests.fixture_types import BytesOf, ListLeftovers

RULES = (FieldRule("key", "musical"), FieldRule("comment", "camelot", "prepend"))
F_SHARP_MINOR = Key.parse("F#m")


def id3(tmp_path: Path, version: int = 3, padding: int = 0, encoding: int = 1) -> bytes:
    """A tag with a title and a comment, as mutagen writes it."""
    tag = ID3()
    tag.add(TIT2(encoding=encoding, text="Frühling ♯"))
    tag.add(COMM(encoding=encoding, lang="eng", desc="", text="mine"))
    tag.save(tmp_path / "tag", v2_version=version, padding=lambda _: padding)
    content = (tmp_path / "tag").read_bytes()
    (tmp_path / "tag").unlink()
    return content


def ape_tail() -> bytes:
    item = (4).to_bytes(4, "little") + bytes(4) + b"Artist\0Mine"
    size = len(item) + 32
    foot = b"APETAGEX" + b"".join(n.to_bytes(4, "little") for n in (2000, size, 1, 0)) + bytes(8)
    return item + foot


def chunk(name: bytes, content: bytes, order: Literal["little", "big"] = "little") -> bytes:
    return name + len(content).to_bytes(4, order) + content + b"\0" * (len(content) % 2)


def with_chunk(content: bytes, extra: bytes, order: Literal["little", "big"] = "little") -> bytes:
    content = content + extra
    return content[:4] + (len(content) - 8).to_bytes(4, order) + content[8:]


ID3V1 = b"TAG" + b"Title".ljust(125, b"\0")
MP3 = {
    "v2.3 UTF-16": lambda audio, at: id3(at) + audio,
    "v2.4 UTF-8": lambda audio, at: id3(at, version=4, encoding=3) + audio,
    "no padding": lambda audio, at: id3(at, padding=0) + audio,
    "1 MB of padding": lambda audio, at: id3(at, padding=1 << 20) + audio,
    "ID3v1 tail": lambda audio, at: audio + ID3V1,
    "APEv2 tail": lambda audio, at: audio + ape_tail(),
    "both tails": lambda audio, at: id3(at) + audio + ape_tail() + ID3V1,
    "zeros before the audio": lambda audio, at: id3(at) + bytes(3000) + audio,
}
OTHERS = {
    "FLAC with ID3 in front": ("flac", lambda audio, at: id3(at) + audio),
    "FLAC with ID3v1 behind": ("flac", lambda audio, at: audio + ID3V1),
    "WAV with INFO only": (
        "wav",
        lambda audio, at: with_chunk(audio, chunk(b"LIST", b"INFO" + chunk(b"INAM", b"x\0"))),
    ),
    "broadcast WAV": ("wav", lambda audio, at: with_chunk(audio, chunk(b"bext", bytes(603)))),
    "WAV with an odd chunk": ("wav", lambda audio, at: with_chunk(audio, chunk(b"odd ", b"123"))),
    "AIFF with an odd chunk": ("aiff", lambda audio, at: with_chunk(audio, chunk(b"ANNO", b"123", "big"), "big")),
    "WavPack with APEv2, as ffmpeg writes it": ("wavpack", lambda audio, at: audio),
}
WRITTEN = {f"MP3, {name}": ("mp3", make) for name, make in MP3.items()} | OTHERS
REFUSED = {
    "RF64": ("wav", lambda audio, at: b"RF64\xff\xff\xff\xff" + audio[8:], "RF64"),
    "fragmented M4A": ("fragmented", lambda audio, at: audio, "fragmented"),
    "raw AAC": ("adts", lambda audio, at: audio, "AAC"),
    "WAV with a chunk behind its end": ("wav", lambda audio, at: audio + b"abcd\2\0\0\0xx", "size of the file"),
    "WAV behind ID3": ("wav", lambda audio, at: id3(at) + audio, "ID3"),
    "M4A cut short": ("mp4", lambda audio, at: audio[:-100], "damaged|inconsistent"),
    "Ogg with a damaged page": ("ogg vorbis", lambda audio, at: audio[:-5] + b"\0\0\0\0\0", "checksum"),
}


def pcm(path: Path) -> bytes:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", path, "-map", "0:a", "-f", "s16le", "-"]
    return subprocess.run(command, capture_output=True, check=True).stdout


@pytest.mark.parametrize("name", WRITTEN)
def test_a_key_is_written_and_undone(
    name: str, samples: dict[str, bytes], tmp_path: Path, digest: BytesOf, left_over: ListLeftovers
) -> None:
    sample, make = WRITTEN[name]
    path = tmp_path / "song"
    content = make(samples[sample], tmp_path)
    path.write_bytes(content)
    audio, decoded = digest(path), pcm(path)
    with recorded() as run:
        assert write_key(path, F_SHARP_MINOR, RULES, journal=run)
    assert read_tags(path).text == "F#m"
    assert (digest(path), pcm(path)) == (audio, decoded)
    for tail in (ID3V1, ape_tail()):
        assert path.read_bytes().count(tail) == content.count(tail)
    assert not write_key(path, F_SHARP_MINOR, RULES)
    with contextlib.closing(UndoJournal()) as journal:
        (change,) = journal.changes(run.number)
    assert sum(len(splice.data) for splice in change.undo.splices) < 10_000  # not the megabyte of padding
    assert [undone.error for undone in undo_run(run.number)] == [None]
    assert path.read_bytes() == content
    assert left_over() == []


@pytest.mark.parametrize("name", REFUSED)
def test_unsafe_files_are_refused_and_unchanged(
    name: str, samples: dict[str, bytes], tmp_path: Path, left_over: ListLeftovers
) -> None:
    sample, make, reason = REFUSED[name]
    path = tmp_path / "song"
    content = make(samples[sample], tmp_path)
    path.write_bytes(content)
    status = path.stat()
    with pytest.raises(TagError, match=reason):
        write_key(path, F_SHARP_MINOR, RULES)
    assert path.read_bytes() == content
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (status.st_ino, status.st_mtime_ns)
    assert left_over() == []


def test_two_id3_tags_in_front(samples: dict[str, bytes], tmp_path: Path, digest: BytesOf) -> None:
    """The first is the one that programs read, and the one that is written; the second stays."""
    path = tmp_path / "song.mp3"
    second = id3(tmp_path, encoding=3, version=4)
    path.write_bytes(id3(tmp_path) + second + samples["mp3"])
    audio = digest(path)
    assert write_key(path, F_SHARP_MINOR, RULES)
    assert digest(path) == audio
    assert path.read_bytes().count(second) == 1
    assert mutagen.File(path).tags["TKEY"].text == ["F#m"]


def test_other_readers_find_the_key_in_a_flac_behind_id3(samples: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "song.flac"
    path.write_bytes(id3(tmp_path) + samples["flac"])
    write_key(path, F_SHARP_MINOR, RULES)
    assert FLAC(path)["initialkey"] == ["F#m"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", path, "-f", "ffmetadata", "-"]
    assert (
        b"INITIALKEY=F#m".lower() in subprocess.run(command, capture_output=True).stdout.replace(b"\\#", b"#").lower()
    )
