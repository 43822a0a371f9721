"""WAV and AIFF: chunks of odd size, sizes that lie, and everything between."""

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import mutagen.aiff
import mutagen.wave
import numpy as np
import pytest
import soundfile

from stonecli.errors import TagError
from stonecli.key import Key
from stonecli.tags import FieldRule, read_tags, remove_key, write_key
from tests.fixture_types import BytesOf

A_MINOR = Key.parse("8A")
ORDER: dict[str, Literal["little", "big"]] = {"wav": "little", "aiff": "big"}
AUDIO = {"wav": b"data", "aiff": b"SSND"}
TAG = {"wav": b"id3 ", "aiff": b"ID3 "}


def chunk(kind: str, name: bytes, content: bytes, pad: bool = True) -> bytes:
    return name + len(content).to_bytes(4, ORDER[kind]) + content + b"\0" * (len(content) % 2 if pad else 0)


def form(kind: str, *chunks: bytes, size: int | None = None) -> bytes:
    body = (b"WAVE" if kind == "wav" else b"AIFF") + b"".join(chunks)
    head = b"RIFF" if kind == "wav" else b"FORM"
    return head + (len(body) if size is None else size).to_bytes(4, ORDER[kind]) + body


def description(kind: str) -> bytes:
    if kind == "wav":
        return chunk(kind, b"fmt ", struct.pack("<HHIIHH", 1, 1, 8000, 8000, 1, 8))
    return chunk(kind, b"COMM", struct.pack(">hIh", 1, 1001, 8) + b"\x40\x0b\xfa\0\0\0\0\0\0\0")


def audio(kind: str, frames: int = 1001) -> bytes:
    samples = bytes(np.random.default_rng(3).integers(0, 256, frames, dtype=np.uint8))
    return samples if kind == "wav" else bytes(8) + samples


def walk(kind: str, content: bytes) -> list[tuple[bytes, bytes]]:
    """Name and content of every chunk; checks the size of the file and every pad byte."""
    assert int.from_bytes(content[4:8], ORDER[kind]) == len(content) - 8
    at, found = 12, []
    while at < len(content):
        size = int.from_bytes(content[at + 4 : at + 8], ORDER[kind])
        found.append((content[at : at + 4], content[at + 8 : at + 8 + size]))
        if size % 2:
            assert content[at + 8 + size] == 0
        at += 8 + size + size % 2
    assert at == len(content)
    return found


@pytest.mark.parametrize("kind", ["wav", "aiff"])
@pytest.mark.parametrize("where", ["none", "before the audio", "after the audio"])
@pytest.mark.parametrize("old_size", [11, 10 + 13, 10 + 64, 10 + 65])
def test_odd_chunks_everywhere(kind: str, where: str, old_size: int, tmp_path: Path, digest: BytesOf) -> None:
    tag = b"ID3\x03\x00\x00\x00\x00\x00" + bytes([old_size - 10])
    tag += (b"TIT2\0\0\0\x02\0\0\0x" if old_size > 22 else b"").ljust(old_size - 10, b"\0")
    foreign = [(b"odd1", b"abc"), (AUDIO[kind], audio(kind)), (b"LIST", b"INFOINAM\x03\0\0\0ab\0\0")]
    parts = [chunk(kind, *foreign[0]), chunk(kind, *foreign[1]), chunk(kind, *foreign[2])]
    if where != "none":
        parts.insert(1 if where == "before the audio" else 3, chunk(kind, TAG[kind], tag))
    path = tmp_path / "song"
    path.write_bytes(form(kind, description(kind), *parts))
    before, content = digest(path), path.read_bytes()
    detected = soundfile.read(io.BytesIO(content))[0]
    assert write_key(path, A_MINOR)
    chunks = walk(kind, path.read_bytes())
    assert [item for item in chunks if item[0] != TAG[kind]][1:] == foreign
    assert sum(name == TAG[kind] for name, _ in chunks) == 1
    assert digest(path) == before
    assert np.array_equal(soundfile.read(path)[0], detected)
    opened: Any = mutagen.wave.WAVE(path) if kind == "wav" else mutagen.aiff.AIFF(path)
    assert opened.tags["TKEY"].text == ["8A"]
    # A new tag has the title of the INFO list, which only WAV has.
    assert ("TIT2" in opened.tags) == (kind == "wav" if where == "none" else old_size > 22)
    assert write_key(path, A_MINOR, [FieldRule("comment")])  # fits in the room of the tag, or moves the rest again
    walk(kind, path.read_bytes())
    remove_key(path, [FieldRule(), FieldRule("comment")])
    chunks = walk(kind, path.read_bytes())
    assert [item for item in chunks if item[0] != TAG[kind]][1:] == foreign
    if where == "none":
        assert path.read_bytes() == content


@pytest.mark.parametrize("kind", ["wav", "aiff"])
def test_the_last_chunk_may_lack_its_pad_byte(kind: str, tmp_path: Path, digest: BytesOf) -> None:
    samples = audio(kind)
    for counted in (0, 1):  # with and without the pad byte, and with one that is not counted
        content = form(kind, description(kind), chunk(kind, AUDIO[kind], samples, pad=False))
        if counted:
            content += b"\0"
        path = tmp_path / "song"
        path.write_bytes(content)
        before = digest(path)
        assert write_key(path, A_MINOR)
        assert walk(kind, path.read_bytes())[1] == (AUDIO[kind], samples)
        assert digest(path) == before


def test_a_wav_may_spell_its_chunk_in_capitals(tmp_path: Path) -> None:
    tag = b"ID3\x04\x00\x00\x00\x00\x00\x0dTKEY\0\0\0\x03\0\0\x00Cm"
    path = tmp_path / "song"
    path.write_bytes(form("wav", description("wav"), chunk("wav", b"data", b"abcd"), chunk("wav", b"ID3 ", tag)))
    assert read_tags(path).text == "Cm"
    assert write_key(path, A_MINOR)
    assert walk("wav", path.read_bytes())[-1] == (b"ID3 ", tag[:-2] + b"8A")


@pytest.mark.parametrize("kind", ["wav", "aiff"])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda whole, kind: whole + chunk(kind, b"more", b"text"), "size in the header"),
        (lambda whole, kind: whole[:-100], "size in the header"),
        (lambda whole, kind: whole[:4] + bytes(4) + whole[8:], "size in the header"),
        (lambda whole, kind: whole[:4] + b"\xff" * 4 + whole[8:], "size in the header"),
        (lambda whole, kind: whole.replace(AUDIO[kind], AUDIO[kind] + b"\x7f\xff\xff\x7f", 1)[: len(whole)], "larger"),
        (lambda whole, kind: form(kind, whole[12:], b"\x01\x02\x03\x04\0\0\0\0"), "unexpected data"),
        (lambda whole, kind: form(kind, whole[12:], b"shrt"), "truncated"),
        (lambda whole, kind: form(kind, whole[12:], chunk(kind, AUDIO[kind], b"")), "missing or duplicated"),
        (lambda whole, kind: form(kind, description(kind)), "missing or duplicated"),
        (lambda whole, kind: form(kind, whole[12:], chunk(kind, TAG[kind], b"not a tag")), "other data"),
        (
            lambda whole, kind: form(kind, whole[12:], chunk(kind, TAG[kind], b""), chunk(kind, TAG[kind], b"")),
            "more than",
        ),
        # An odd chunk without its pad byte in the middle: all that follows is one byte off.
        (lambda whole, kind: form(kind, chunk(kind, b"odd ", b"abc", pad=False), whole[12:]), "unexpected data|larger"),
    ],
)
def test_a_file_with_an_unknown_structure_is_refused(
    kind: str, change: Callable[..., Any], reason: str, tmp_path: Path
) -> None:
    content = change(form(kind, description(kind), chunk(kind, AUDIO[kind], audio(kind))), kind)
    path = tmp_path / "song"
    path.write_bytes(content)
    with pytest.raises(TagError, match=f"{reason}|damaged"):
        write_key(path, A_MINOR)
    assert path.read_bytes() == content


def test_rf64_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "song"
    soundfile.write(path, np.zeros(100), 8000, format="RF64", subtype="PCM_16")
    if path.read_bytes()[:4] == b"RIFF":  # libsndfile may downgrade a small file
        path.write_bytes(b"RF64" + path.read_bytes()[4:])
    with pytest.raises(TagError, match="RF64"):
        write_key(path, A_MINOR)
