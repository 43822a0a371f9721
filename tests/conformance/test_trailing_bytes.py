"""Bytes behind the end of the audio change nothing in the analysis, and stay when a key is written."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from mutagen.apev2 import APEv2

from stonecli.audio.decode import open_audio
from stonecli.errors import AudioError, TagError
from stonecli.key import Key
from stonecli.tags import FieldRule, read_tags, write_key
from tests.fixture_types import Samples


def _ape_tag(folder: Path) -> bytes:
    tag = APEv2()
    tag["Mood"] = "dark"
    (folder / "tag").touch()
    tag.save(folder / "tag")
    return (folder / "tag").read_bytes()


TAILS: dict[str, Callable[[Path], bytes]] = {
    "ID3v1": lambda _: b"TAG" + bytes(125),  # as EAC writes
    "APE": _ape_tag,
    "APE and ID3v1": lambda folder: _ape_tag(folder) + b"TAG" + bytes(125),
    "APE header": lambda _: b"APETAGEX" + bytes(24),
    "one NUL": lambda _: b"\0",
    "zeros": lambda _: bytes(4096),
    "text": lambda _: b"ripped by somebody\r\n",
    "noise": lambda _: np.random.default_rng(0).bytes(5000),
}


def samples_of(path: Path) -> Samples:
    return np.concatenate(list(open_audio(path, 11025).blocks))


@pytest.mark.parametrize("tail", TAILS)
def test_bytes_after_the_audio_are_not_analyzed(
    tmp_path: Path, songs: dict[str, Path], any_container: str, tail: str
) -> None:
    source = songs[any_container]
    path = tmp_path / source.name
    path.write_bytes(source.read_bytes() + TAILS[tail](tmp_path))
    found, expected = samples_of(path), samples_of(source)
    if any_container == "mp3":  # a decoder without a length to go by may make a frame of what follows
        assert abs(len(found) - len(expected)) <= 2 * 1152 // 4
        length = min(len(found), len(expected))
        assert np.array_equal(found[:length], expected[:length])
    else:
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("tail", TAILS)
def test_it_stays_when_a_key_is_written(tmp_path: Path, songs: dict[str, Path], any_container: str, tail: str) -> None:
    if any_container == "wavpack" and tail.startswith("APE"):
        pytest.skip("there is an APE tag already, and a second one is refused")
    source = songs[any_container]
    path = tmp_path / source.name
    content, rest = source.read_bytes(), TAILS[tail](tmp_path)
    path.write_bytes(content + rest)
    before = samples_of(path)
    assert write_key(path, Key.parse("Am"), (FieldRule(),), write=True)
    assert read_tags(path).key == Key.parse("Am")
    written = path.read_bytes()
    # WavPack's tag comes last; what was behind the audio then stands before it.
    assert rest in written[-len(rest) - 300 :] if any_container == "wavpack" else written.endswith(rest)
    assert np.array_equal(samples_of(path), before)
    assert write_key(path, Key.parse("Em"), (FieldRule(),), write=True)
    assert read_tags(path).key == Key.parse("Em")
    assert np.array_equal(samples_of(path), before)


@pytest.mark.parametrize("tail", TAILS)
def test_a_truncated_flac_is_an_error_with_any_trailer(tmp_path: Path, songs: dict[str, Path], tail: str) -> None:
    path = tmp_path / "a.flac"
    content = songs["flac"].read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10] + TAILS[tail](tmp_path))
    with pytest.raises(AudioError, match="truncated"):
        samples_of(path)


def test_a_flac_with_damaged_frames_is_an_error(tmp_path: Path, songs: dict[str, Path]) -> None:
    content = bytearray(songs["flac"].read_bytes())
    middle = len(content) // 2
    content[middle : middle + 20_000] = bytes(20_000)
    (tmp_path / "a.flac").write_bytes(content)
    with pytest.raises(AudioError, match="damaged or truncated"):
        samples_of(tmp_path / "a.flac")


@pytest.mark.parametrize("tail", [None, *TAILS])
def test_a_flac_that_announces_no_length(tmp_path: Path, songs: dict[str, Path], tail: str | None) -> None:
    """As encoders write it that cannot seek back: total_samples, 36 bits of STREAMINFO, is 0."""
    content = bytearray(songs["flac"].read_bytes())
    assert content[4] & 0x7F == 0
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    path = tmp_path / "a.flac"
    path.write_bytes(bytes(content) + (TAILS[tail](tmp_path) if tail else b""))
    found, expected = samples_of(path), samples_of(songs["flac"])
    assert len(found) == pytest.approx(len(expected), abs=2)
    np.testing.assert_allclose(found[:-20], expected[: len(found) - 20], atol=1e-4)


CUT = ["wav 16 bit", "aiff", "ogg vorbis", "opus", "m4a aac", "wma", "wavpack"]


@pytest.mark.parametrize("container", CUT)
@pytest.mark.parametrize("tail", ["nothing", "ID3v1"])
def test_nothing_is_written_to_a_truncated_file(
    tmp_path: Path, songs: dict[str, Path], container: str, tail: str
) -> None:
    source = songs[container]
    path = tmp_path / source.name
    content = source.read_bytes()[: source.stat().st_size * 6 // 10] + (b"TAG" + bytes(125) if tail == "ID3v1" else b"")
    path.write_bytes(content)
    with pytest.raises(TagError):
        write_key(path, Key.parse("Am"), (FieldRule(),), write=True)
    assert path.read_bytes() == content


@pytest.mark.parametrize("container", ["wav 16 bit", "aiff"])
def test_chunks_behind_the_announced_size_are_refused(tmp_path: Path, songs: dict[str, Path], container: str) -> None:
    """A program has added a chunk, and has not changed the size in the header: a second tag might be there."""
    order: Literal["little", "big"] = "little" if container == "wav 16 bit" else "big"
    path = tmp_path / songs[container].name
    content = songs[container].read_bytes() + b"id3 " + (20).to_bytes(4, order) + b"ID3" + bytes(17)
    path.write_bytes(content)
    with pytest.raises(TagError, match="the size in the header"):
        write_key(path, Key.parse("Am"), (FieldRule(),), write=True)
    assert path.read_bytes() == content


@pytest.mark.parametrize("length", [12, 20, 36])
def test_a_wav_cut_within_its_header_reports_no_tags(tmp_path: Path, songs: dict[str, Path], length: int) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(songs["wav 16 bit"].read_bytes()[:length])
    with pytest.raises(TagError, match=r"^the file or its tags are damaged|^the size in the header"):
        write_key(path, Key.parse("Am"), (FieldRule(),), write=True)
