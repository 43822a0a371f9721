"""Files whose length libsndfile gets wrong, and similar files that it reads correctly."""

from __future__ import annotations

import random
import struct
import subprocess
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
import soundfile
from mutagen.apev2 import APEv2
from mutagen.id3 import APIC, ID3, TIT2
from mutagen.oggvorbis import OggVorbis

from stonecli.audio.declared_durations import ends_with_whole_frame, has_zero_length, is_mp3_without_length
from stonecli.audio.decode import open_audio
from stonecli.errors import AudioError
from tests.fixture_types import CopySong, RunFfmpeg


def seconds_of(path: Path) -> float:
    """Duration of the decoded audio."""
    audio = open_audio(path, 11025)
    return sum(len(block) for block in audio.blocks) / audio.rate


@pytest.fixture
def no_ffmpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that need ffmpeg cannot be read."""
    monkeypatch.setattr("stonecli.audio.ffmpeg.running", None)


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory, ffmpeg: RunFfmpeg) -> Callable[[str], bytes]:
    """Ogg Vorbis files laid end to end, by their letters: a of 10 s, b of 13 s."""
    folder = tmp_path_factory.mktemp("parts")
    for name, seconds, number in (("a", 10, 1), ("b", 13, 2)):
        noise = np.random.default_rng(0).standard_normal((44100 * seconds, 2)) * 0.2  # for which it takes many bytes
        soundfile.write(folder / "a.wav", noise, 44100)
        options = ["-c:a", "libvorbis", "-q:a", "9", "-fflags", "+bitexact", "-serial_offset", str(number)]
        ffmpeg("-i", folder / "a.wav", *options, folder / f"{name}.ogg")
    return lambda names: b"".join((folder / f"{name}.ogg").read_bytes() for name in names)


@pytest.mark.parametrize(
    ("names", "seconds"),
    [("ab", 23), ("ba", 23), ("bab", 36), ("aba", 33), ("aa", 20), ("aaaaa", 50), ("ababababa", 102)],
)
def test_a_chained_ogg_is_read_to_its_end(
    tmp_path: Path, parts: Callable[[str], bytes], names: str, seconds: float
) -> None:
    (tmp_path / "a.ogg").write_bytes(parts(names))
    assert seconds_of(tmp_path / "a.ogg") == pytest.approx(seconds, abs=0.06)


def test_an_unchained_ogg_file_needs_no_ffmpeg(
    tmp_path: Path,
    parts: Callable[[str], bytes],
    song: CopySong,
    ffmpeg: RunFfmpeg,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "a.ogg").write_bytes(parts("a"))
    (tmp_path / "with art.ogg").write_bytes(parts("a"))
    tags = OggVorbis(tmp_path / "with art.ogg")
    tags["metadata_block_picture"] = ["A" * 500_000]
    tags.save()
    (tmp_path / "b.oga").write_bytes(parts("b"))
    two: list[str | Path] = ["-i", tmp_path / "a.ogg", "-i", tmp_path / "b.oga", "-map", "0", "-map", "1", "-c", "copy"]
    ffmpeg(*two, tmp_path / "two at once.ogg")
    assert seconds_of(tmp_path / "two at once.ogg") == pytest.approx(10, abs=0.06)
    monkeypatch.setattr("stonecli.audio.ffmpeg.running", None)
    for path in (tmp_path / "a.ogg", tmp_path / "with art.ogg"):
        assert seconds_of(path) == pytest.approx(10, abs=0.06)
    assert seconds_of(song("ogg vorbis")) == pytest.approx(16, abs=0.06)


# MP3


@pytest.fixture(scope="session")
def mp3s(tmp_path_factory: pytest.TempPathFactory, ffmpeg: RunFfmpeg) -> Callable[[str], bytes]:
    """An MP3 of 20 s, the first half of which is nearly silent: small frames, where their size may vary."""
    folder = tmp_path_factory.mktemp("mp3s")
    samples = np.random.default_rng(0).standard_normal((44100 * 20, 2)) * 0.3
    samples[: 44100 * 10] *= 1e-4
    soundfile.write(folder / "a.wav", samples, 44100)
    for name, options in MP3S.items():
        ffmpeg("-i", folder / "a.wav", *options, "-id3v2_version", "0", folder / f"{name}.mp3")
    return lambda name: (folder / f"{name}.mp3").read_bytes()


MP3S = {
    "cbr": ["-b:a", "192k"],
    "cbr 320": ["-b:a", "320k"],
    "cbr mpeg-2": ["-ar", "22050", "-b:a", "64k"],
    "cbr mpeg-2.5": ["-ar", "8000", "-b:a", "16k"],
    "abr": ["-abr", "1", "-b:a", "160k"],
    "vbr": ["-q:a", "2"],
    "vbr mono": ["-ac", "1", "-q:a", "6"],
    "vbr mpeg-2": ["-ar", "16000", "-q:a", "4"],
    "bare": ["-q:a", "2", "-write_xing", "0"],
}


def announcing(content: bytes, flags: int = 15, frames: float = 1.0, size: float = 1.0) -> bytes:
    """The MP3 with other flags in its header, and a share of its numbers."""
    at = max(content.find(name, 0, 200) for name in (b"Xing", b"Info")) + 4
    _, *numbers = struct.unpack_from(">III", content, at)
    changed = (round(number * share) for number, share in zip(numbers, (frames, size), strict=True))
    return content[:at] + struct.pack(">III", flags, *changed) + content[at + 12 :]


@pytest.mark.parametrize("name", [name for name in MP3S if name != "bare"])
def test_an_mp3_whose_header_is_right_needs_no_ffmpeg(
    tmp_path: Path, mp3s: Callable[[str], bytes], no_ffmpeg: None, name: str
) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(mp3s(name))
    assert seconds_of(path) == pytest.approx(20, abs=0.01)
    path.write_bytes(random.Random(0).randbytes(300) + mp3s(name))
    assert seconds_of(path) == pytest.approx(20, abs=0.01)

    path.write_bytes(mp3s(name))
    tags = ID3()
    tags.add(TIT2(encoding=3, text="Xing, Info"))
    tags.add(APIC(encoding=3, mime="image/jpeg", type=3, data=b"\xff\xfb\x90\x64" * 400_000))
    tags.save(path, v1=0)
    end = APEv2()
    end["Cover Art (Front)"] = "x" * 300_000
    end.save(path)
    content = path.read_bytes()
    assert content[-32:].startswith(b"APETAGEX")
    lyrics = b"LYRICSBEGININD0000200LYR" + b"99999" + b"x" * 99_999
    size = bytes([4, 0, 0x10, 0, 5, 0, 0])  # version 2.4.0 with a footer; 5 << 14 bytes
    appended = b"ID3" + size + bytes(5 << 14) + b"3DI" + size
    path.write_bytes(content + appended + lyrics + b"%06dLYRICS200" % len(lyrics) + b"TAG" + bytes(125))
    assert seconds_of(path) == pytest.approx(20, abs=0.01)


@pytest.mark.parametrize("name", [name for name in MP3S if name != "bare"])
@pytest.mark.parametrize(
    "changes",
    [
        {"flags": 0},
        {"flags": 14},
        {"frames": 0},
        {"frames": 0.001},  # 1
        {"frames": 0.1},
        {"frames": 0, "size": 0},
        {"frames": 0.1, "size": 0},
        {"frames": 0.5, "size": 0.5},
    ],
    ids=str,
)
def test_an_mp3_whose_header_declares_too_few_frames(
    tmp_path: Path, mp3s: Callable[[str], bytes], name: str, changes: dict[str, Any]
) -> None:
    (tmp_path / "a.mp3").write_bytes(announcing(mp3s(name), **changes))
    assert seconds_of(tmp_path / "a.mp3") == pytest.approx(20, abs=0.3)


@pytest.mark.parametrize("name", MP3S)
def test_mp3s_end_to_end(tmp_path: Path, mp3s: Callable[[str], bytes], name: str) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(mp3s(name) * 2)
    assert seconds_of(path) == pytest.approx(40, abs=0.5)
    path.write_bytes(mp3s(name))
    tags = ID3()
    tags.add(APIC(encoding=3, mime="image/jpeg", type=3, data=bytes(100_000)))
    tags.save(path, v1=2)
    path.write_bytes(path.read_bytes() * 2)
    assert seconds_of(path) == pytest.approx(40, abs=0.5)


@pytest.mark.parametrize("junk", [bytes(300), random.Random(0).randbytes(300), b"\xff\xfb\x90\x64" * 75])
def test_an_mp3_without_a_header_behind_other_bytes(tmp_path: Path, mp3s: Callable[[str], bytes], junk: bytes) -> None:
    (tmp_path / "a.mp3").write_bytes(junk + mp3s("bare"))
    assert seconds_of(tmp_path / "a.mp3") == pytest.approx(20, abs=0.1)


def test_vbri_is_a_length_as_well(tmp_path: Path, mp3s: Callable[[str], bytes]) -> None:
    """Fraunhofer's header, which no available encoder writes: made from the other one."""
    content = mp3s("vbr")
    at = content.index(b"Xing")
    _, frames, size = struct.unpack_from(">III", content, at + 4)
    for count in (frames, 0):
        header = struct.pack(">4sHHHIIHHHH", b"VBRI", 1, 0, 50, size, count, 0, 1, 2, 1)
        made = content[:36] + header + bytes(156 - 36 - len(header)) + content[156:]
        with BytesIO(made) as file:
            assert is_mp3_without_length(file) == (count == 0)


@pytest.mark.parametrize("length", [1, 4, 10, 150, 500])
def test_a_truncated_mp3_is_read_without_an_error(mp3s: Callable[[str], bytes], length: int) -> None:
    for name in ("vbr", "bare"):
        assert isinstance(is_mp3_without_length(BytesIO(mp3s(name)[:length])), bool)


def frames_of(content: bytes) -> list[int]:
    """Where the frames of an MP3 of layer III begin, and where the last one ends."""
    low, high = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160), (32, 40, 48, 56, 64, 80, 96, 112, 128)
    position, found = 0, [0]
    while position + 4 <= len(content):
        assert content[position] == 0xFF
        version, padding = content[position + 1] >> 3 & 3, content[position + 2] >> 1 & 1
        table = (*high, 160, 192, 224, 256, 320) if version == 3 else low
        rate = (44100, 48000, 32000)[content[position + 2] >> 2 & 3] // {3: 1, 2: 2, 0: 4}[version]
        bits = table[(content[position + 2] >> 4) - 1] * 1000
        position += (144 if version == 3 else 72) * bits // rate + padding
        found.append(position)
    return found


TAGS_AT_THE_END = {"no tag": b"", "ID3v1": b"TAG" + bytes(125)}


@pytest.mark.parametrize("end", TAGS_AT_THE_END)
@pytest.mark.parametrize("name", [name for name in MP3S if name != "bare"])
def test_an_mp3_trimmed_between_two_frames_is_read_to_its_end(
    tmp_path: Path, mp3s: Callable[[str], bytes], name: str, end: str
) -> None:
    """As programs for DJs trim files: the header at the beginning still has the old length."""
    content = mp3s(name)
    frames = frames_of(content)
    path = tmp_path / "a.mp3"
    path.write_bytes(content[: frames[len(frames) * 6 // 10]] + TAGS_AT_THE_END[end])
    audio = open_audio(path, 11025)
    assert audio.notes == []
    seconds = sum(len(block) for block in audio.blocks) / audio.rate
    assert seconds == pytest.approx(12, abs=0.2)
    assert audio.notes == ["shorter than its header declares (12 of 20 s); analyzed to the end of the file"]


@pytest.mark.parametrize("end", TAGS_AT_THE_END)
@pytest.mark.parametrize("name", [name for name in MP3S if name != "bare"])
@pytest.mark.parametrize("missing", [1, 2, 20])
def test_an_mp3_that_ends_within_a_frame_is_truncated(
    tmp_path: Path, mp3s: Callable[[str], bytes], name: str, end: str, missing: int
) -> None:
    content = mp3s(name)
    frames = frames_of(content)
    (tmp_path / "a.mp3").write_bytes(content[: frames[len(frames) * 6 // 10] - missing] + TAGS_AT_THE_END[end])
    with pytest.raises(AudioError, match="truncated"):
        seconds_of(tmp_path / "a.mp3")


def test_only_whole_frames_end_an_mp3() -> None:
    for content in (
        b"",
        b"\xff",
        b"\xff\xfb\x90\x64",
        bytes(1000),
        b"\xff\xfb\x90\x64" * 20_000,
        b"ID3\x04\0\0\x7f\x7f\x7f\x7f",
    ):
        assert not ends_with_whole_frame(BytesIO(content))
    frame = b"\xff\xfb\x90\x64" + bytes(413)
    assert ends_with_whole_frame(BytesIO(frame * 5))
    assert not ends_with_whole_frame(BytesIO(frame * 5 + b"\0"))


# Samples as they are


SAMPLES = {  # name: options of ffmpeg
    "rf64": ["-f", "wav", "-rf64", "always"],
    "w64": ["-f", "w64"],
    "au": ["-f", "au"],
    "caf": ["-f", "caf"],
    "alac.caf": ["-f", "caf", "-c:a", "alac"],
}


@pytest.fixture(params=[*SAMPLES, "libsndfile RF64", "libsndfile W64", "libsndfile AU", "libsndfile CAF", "little AU"])
def samples_file(request: pytest.FixtureRequest, tmp_path: Path, ffmpeg: RunFfmpeg) -> Path:
    """Ten seconds of noise in a file that announces how many bytes they take."""
    noise = np.random.default_rng(0).standard_normal((44100 * 10, 2)) * 0.1
    path = tmp_path / "a"
    if request.param in SAMPLES:
        soundfile.write(tmp_path / "a.wav", noise, 44100)
        ffmpeg("-i", tmp_path / "a.wav", *SAMPLES[request.param], path)
    else:
        order = "LITTLE" if request.param.startswith("little") else None
        kind = request.param.split()[1]
        soundfile.write(path, noise, 44100, format=kind, subtype="PCM_16", endian=order)
    return path


def test_a_file_of_samples_that_ends_early_is_truncated(samples_file: Path) -> None:
    assert seconds_of(samples_file) == pytest.approx(10, abs=0.1)
    content = samples_file.read_bytes()
    samples_file.write_bytes(content[: len(content) // 2])
    with pytest.raises(AudioError, match=r"truncated \(\d+ of \d+ bytes of audio\); re-rip"):
        seconds_of(samples_file)
    samples_file.write_bytes(content[:20])
    with pytest.raises(AudioError):
        seconds_of(samples_file)


@pytest.mark.parametrize("name", ["w64", "au", "caf"])
def test_samples_without_a_length_are_read_to_their_end(tmp_path: Path, name: str) -> None:
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).standard_normal(44100 * 10) * 0.1, 44100)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", tmp_path / "a.wav", *SAMPLES[name], "pipe:1"]
    content = subprocess.run(command, check=True, capture_output=True).stdout
    assert b"\xff" * 4 in content[:200]
    (tmp_path / "a").write_bytes(content)
    assert seconds_of(tmp_path / "a") == pytest.approx(10, abs=0.01)


def test_a_flac_without_a_length_is_read_to_its_end(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).standard_normal(44100 * 10) * 0.1, 44100)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", tmp_path / "a.wav", "-f", "flac", "pipe:1"]
    (tmp_path / "a.flac").write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)
    assert soundfile.info(tmp_path / "a.flac").frames > 1 << 62
    assert seconds_of(tmp_path / "a.flac") == pytest.approx(10, abs=0.01)


@pytest.mark.parametrize(
    "start",
    [
        b".snd",
        b"caff\0\1\0\0" + b"desc" + b"\xff" * 8 + b"data",
        b"caff\0\1\0\0" + b"desc\x7f" + b"\xff" * 7 + b"data",
        b"riff" + bytes(52) + b"\xff" * 7 + b"\x7f",
        b"riff" + bytes(36) + bytes(24) * 9,
        b"RF64\xff\xff\xff\xffWAVEds64",
        b"RIFF" + bytes(8) + b"abcd\xff\xff\xff\xff",
    ],
)
def test_a_damaged_start_is_not_a_zero_length_file(start: bytes) -> None:
    assert not has_zero_length(BytesIO(start))
    assert not has_zero_length(BytesIO(start + bytes(10_000)))
