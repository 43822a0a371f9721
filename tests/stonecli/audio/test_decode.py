import gc
import itertools
import os
import signal
import struct
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import soundfile
from mutagen.apev2 import APEv2
from mutagen.id3 import ID3, TIT2

from stonecli.audio.decode import open_audio, read_audio
from stonecli.errors import AudioError
from tests.fixture_types import Encode, RunFfmpeg, Samples

RATE = 22050
SECONDS = 3.0
PITCH = 523.25


def tone(rate: int = 44100, seconds: float = SECONDS, pitch: float = PITCH) -> Samples:
    time = np.arange(round(rate * seconds)) / rate
    return (0.4 * np.sin(2 * np.pi * pitch * time)).astype(np.float32)


def decoded(path: Path) -> Samples:
    return np.concatenate(list(read_audio(path, RATE)))


def pitch_of(samples: Samples) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax() * RATE / len(samples))


def assert_is_the_tone(samples: Samples, seconds: float = SECONDS, slack: float = 0.06) -> None:
    assert samples.dtype == np.float32
    assert len(samples) / RATE == pytest.approx(seconds, abs=slack)  # lossy formats pad to whole frames
    assert pitch_of(samples) == pytest.approx(PITCH, abs=1.0)
    assert np.sqrt(np.mean(samples**2)) == pytest.approx(0.4 / np.sqrt(2), rel=0.1)


def running_ffmpegs() -> list[int]:
    """This process's children that are ffmpeg."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rsplit(")", 1)[1].split()[1])
            if parent == os.getpid() and b"ffmpeg" in (status.parent / "cmdline").read_bytes():
                found.append(int(status.parent.name))
        except OSError:
            continue
    return found


@pytest.fixture(scope="session")
def tones(tmp_path_factory: pytest.TempPathFactory, encode: Encode) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("tones")

    def of(container: str) -> Path:
        path = next(iter(folder.glob(container.replace(" ", "-") + ".*")), None)
        return path or encode(tone(), 44100, container, folder / container.replace(" ", "-"))

    return of


def test_every_container_has_its_length_and_its_pitch(any_container: str, tones: Callable[[str], Path]) -> None:
    assert_is_the_tone(decoded(tones(any_container)))


def test_the_ending_means_nothing(any_container: str, tones: Callable[[str], Path], tmp_path: Path) -> None:
    path = tmp_path / ("wrong.mp3" if "mp3" not in any_container else "wrong.flac")
    path.write_bytes(tones(any_container).read_bytes())
    assert_is_the_tone(decoded(path))


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 48000, 96000, 192000])
@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "FLOAT", "DOUBLE"])
def test_any_rate_and_depth(tmp_path: Path, rate: int, subtype: str) -> None:
    soundfile.write(tmp_path / "a.wav", tone(rate), rate, subtype=subtype)
    assert_is_the_tone(decoded(tmp_path / "a.wav"), slack=0.001)


@pytest.mark.parametrize("kind", ["RF64", "W64", "CAF", "AU"])
def test_rarer_containers_of_samples(tmp_path: Path, kind: str) -> None:
    soundfile.write(tmp_path / "a", tone(), 44100, format=kind, subtype="PCM_16")
    assert_is_the_tone(decoded(tmp_path / "a"), slack=0.001)


@pytest.mark.parametrize("channels", [2, 6])
@pytest.mark.parametrize("container", ["wav 16 bit", "flac", "m4a aac"])
def test_channels_are_averaged(tmp_path: Path, encode: Encode, channels: int, container: str) -> None:
    path = encode(np.repeat(tone()[:, None], channels, axis=1), 44100, container, tmp_path / "a")
    samples = decoded(path)
    if channels == 2 or container != "m4a aac":  # ffmpeg weighs the six of a cinema
        assert_is_the_tone(samples)
    assert len(samples) / RATE == pytest.approx(SECONDS, abs=0.06)
    assert pitch_of(samples) == pytest.approx(PITCH, abs=1.0)
    one = np.zeros((44100, channels), dtype=np.float32)
    one[:, 0] = tone(seconds=1)
    soundfile.write(tmp_path / "one.wav", one, 44100, subtype="FLOAT")
    assert np.abs(decoded(tmp_path / "one.wav")).max() == pytest.approx(0.4 / channels, rel=0.05)


def test_a_vbr_mp3_without_a_header_is_read_to_its_end(tmp_path: Path, ffmpeg: RunFfmpeg) -> None:
    # Near silence, then noise: the first frames are small, and whoever extrapolates from them is wrong.
    loud = np.random.default_rng(0).standard_normal(44100 * 10).astype(np.float32) * 0.3
    soundfile.write(tmp_path / "a.wav", np.concatenate([tone(seconds=10) * 1e-3, loud]), 44100)
    ffmpeg("-i", tmp_path / "a.wav", "-write_xing", "0", "-id3v2_version", "0", "-q:a", "2", tmp_path / "bare.mp3")
    ffmpeg("-i", tmp_path / "a.wav", "-write_xing", "0", "-q:a", "2", "-metadata", "title=x", tmp_path / "id3.mp3")
    assert (tmp_path / "bare.mp3").read_bytes()[:1] == b"\xff"
    assert (tmp_path / "id3.mp3").read_bytes()[:3] == b"ID3"
    for name in ("bare.mp3", "id3.mp3"):
        assert len(decoded(tmp_path / name)) / RATE == pytest.approx(20, abs=0.2)


def test_an_mp3_between_its_tags(tones: Callable[[str], Path], tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(tones("mp3").read_bytes())
    ID3().save(path)
    tags = ID3(path)
    tags.add(TIT2(encoding=3, text="t" * 100_000))
    tags.save(path, v1=2)
    end = APEv2()
    end["KEY"] = "8A" * 1000
    end.save(path)
    content = path.read_bytes()
    assert content.startswith(b"ID3")
    assert b"APETAGEX" in content[-40000:]
    assert_is_the_tone(decoded(path))


def test_an_id3_tag_before_a_flac_hides_no_truncation(tones: Callable[[str], Path], tmp_path: Path) -> None:
    tag = b"ID3\x03\0\0\0\0\0\x0a" + bytes(10)
    content = tones("flac").read_bytes()
    path = tmp_path / "a.flac"
    path.write_bytes(tag + content)
    assert_is_the_tone(decoded(path))
    path.write_bytes(tag + content[: len(content) // 2])
    with pytest.raises(AudioError, match="truncated"):
        decoded(path)


@pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0x7FFFF000, 0xFFFFFFFF], ids=hex)
@pytest.mark.parametrize("channels", [1, 2])
def test_a_streamed_wav_is_read_to_its_end(tmp_path: Path, size: int, channels: int) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.repeat(tone()[:, None], channels, axis=1), 44100)
    content = bytearray(path.read_bytes())
    assert content[36:40] == b"data"
    content[4:8] = content[40:44] = size.to_bytes(4, "little")
    path.write_bytes(content)
    assert_is_the_tone(decoded(path), slack=0.001)


def test_a_wav_from_a_pipe(tmp_path: Path, ffmpeg: RunFfmpeg) -> None:
    soundfile.write(tmp_path / "a.wav", tone(), 44100)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", tmp_path / "a.wav", "-f", "wav", "pipe:1"]
    (tmp_path / "b.wav").write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)
    assert b"\xff\xff\xff\xff" in (tmp_path / "b.wav").read_bytes()[:100]
    assert_is_the_tone(decoded(tmp_path / "b.wav"), slack=0.001)


@pytest.mark.parametrize("ending", ["wav", "aiff"])
def test_a_file_that_announces_more_than_it_has_is_truncated(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    soundfile.write(path, tone(), 44100, subtype="PCM_16")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(AudioError, match=r"truncated \(.* bytes"):
        decoded(path)
    name, size = (b"data", "<I") if ending == "wav" else (b"SSND", ">I")
    at = content.index(name) + 4
    path.write_bytes(content[:at] + struct.pack(size, 100_000_000) + content[at + 4 :])
    with pytest.raises(AudioError, match=r"truncated \(.* of 100000000 bytes"):
        decoded(path)


@pytest.mark.parametrize("moov", ["end", "faststart", "frag_keyframe+empty_moov"])
def test_a_truncated_m4a(tmp_path: Path, ffmpeg: RunFfmpeg, moov: str) -> None:
    soundfile.write(tmp_path / "a.wav", tone(seconds=12), 44100)
    options = [] if moov == "end" else ["-movflags", moov]
    ffmpeg("-i", tmp_path / "a.wav", "-c:a", "aac", *options, tmp_path / "a.m4a")
    content = (tmp_path / "a.m4a").read_bytes()
    assert_is_the_tone(decoded(tmp_path / "a.m4a"), 12)
    (tmp_path / "a.m4a").write_bytes(content[: len(content) * 6 // 10])
    with pytest.raises(AudioError, match=r"truncated|moov atom not found"):
        decoded(tmp_path / "a.m4a")


@pytest.mark.parametrize("container", ["mp3", "flac", "wavpack", "m4a alac"])
def test_other_truncated_files(songs: dict[str, Path], tmp_path: Path, container: str) -> None:
    content = songs[container].read_bytes()
    path = tmp_path / "a"
    path.write_bytes(content[: len(content) * 6 // 10])
    with pytest.raises(AudioError, match=r"truncated|moov atom not found"):
        decoded(path)


def test_a_film_that_is_longer_than_its_sound_is_whole(tmp_path: Path, ffmpeg: RunFfmpeg) -> None:
    soundfile.write(tmp_path / "a.wav", tone(), 44100)
    film = ["-f", "lavfi", "-i", "color=s=16x16:d=12:r=2", "-c:v", "mpeg4"]
    ffmpeg("-i", tmp_path / "a.wav", *film, "-c:a", "aac", "-movflags", "+faststart", tmp_path / "a.mp4")
    assert_is_the_tone(decoded(tmp_path / "a.mp4"))
    content = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(content[: len(content) // 3])
    with pytest.raises(AudioError, match="truncated after"):
        decoded(tmp_path / "a.mp4")


def test_a_duration_that_ffmpeg_only_estimates_is_no_error(tmp_path: Path, ffmpeg: RunFfmpeg) -> None:
    loud = np.random.default_rng(0).standard_normal(44100 * 20).astype(np.float32) * 0.3
    soundfile.write(tmp_path / "a.wav", np.concatenate([tone(seconds=12) * 1e-5, loud]), 44100)
    ffmpeg("-i", tmp_path / "a.wav", "-c:a", "aac", "-q:a", "2", tmp_path / "a.aac")
    assert len(decoded(tmp_path / "a.aac")) / RATE == pytest.approx(32, abs=0.2)


@pytest.mark.parametrize("name", ["a.mp3", "a.wav", "a.m4a", "a.gsm", "a.vox", "a.raw", "a"])
def test_text_is_not_audio_with_any_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("This is a letter and no music, believe me.\n" * 3000)
    with pytest.raises(AudioError, match="cannot be decoded"):
        decoded(tmp_path / name)


@pytest.mark.parametrize("content", [bytes(100_000), np.random.default_rng(0).bytes(100_000)], ids=["zeros", "random"])
@pytest.mark.parametrize("name", ["a.mp3", "a.flac", "a.m4a", "a.raw"])
def test_zeros_and_random_bytes_are_not_audio(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AudioError):
        decoded(tmp_path / name)


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.mp3").touch()
    with pytest.raises(AudioError, match="the file is empty"):
        decoded(tmp_path / "a.mp3")


def test_pipes_and_devices_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.mp3")  # opening it would wait for ever
    for path in (tmp_path, tmp_path / "a.mp3", Path("/dev/zero")):
        with pytest.raises(AudioError, match="not a regular file"):
            decoded(path)
    with pytest.raises(FileNotFoundError):
        decoded(tmp_path / "nothing.mp3")


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_nan_and_infinity_are_silence(tmp_path: Path, channels: int) -> None:
    samples = np.repeat(tone()[:, None], channels, axis=1)
    samples[1000:1100] = np.nan
    samples[2000, 0], samples[2000, -1] = np.inf, -np.inf
    samples[3000] = np.finfo(np.float32).max
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = decoded(tmp_path / "a.wav")
    assert np.isfinite(found).all()
    assert not found[1010:1090].any()
    assert found[2000] == 0
    assert np.abs(found).max() <= 1e6
    assert np.allclose(found[5000:], samples[5000:, 0], atol=1e-6)


NAMES = [
    "two  spaces ",
    'it\'s "quoted" `here` $HOME ; rm -rf',
    "[red]loud[-red]",
    "line\nbreak",
    "\x1b[31mred\x1b]0;title\x07",
    "héllo 🎹 👩‍🎤 ‮rtl",
    b"not \xff\xfe UTF-8",
    "-i",
    "--help",
    "concat:x|y",
    "http:",
    "http:example",
    "file:x",
    "pipe:0",
    "data:audio,x",
    "crypto:x",
    "subfile,,start,0,end,9,,:x",
    "%03d",
    "*?{a,b}",
    "n\n  Duration: 09:00:00.00, start",
    "n\n  Stream #0:0: Video: h264",
    "x" * 240,
]


@pytest.mark.parametrize("container", ["wav 16 bit", "m4a aac"])
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names_are_only_names(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tones: Callable[[str], Path],
    container: str,
    name: str | bytes,
) -> None:
    monkeypatch.chdir(tmp_path)  # so that the name comes first in the path
    source = tones(container)
    path = Path(os.fsdecode(name) + source.suffix)
    path.write_bytes(source.read_bytes())
    assert_is_the_tone(decoded(path))
    path.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    with pytest.raises(AudioError):
        decoded(path)


@pytest.fixture
def target(tmp_path: Path, ffmpeg: RunFfmpeg) -> Path:
    """Music in the same folder that a hostile file points at; it can be decoded in itself."""
    soundfile.write(tmp_path / "target.wav", tone(), 44100)
    ffmpeg("-i", tmp_path / "target.wav", "-c:a", "aac", tmp_path / "target.ts")
    ffmpeg("-i", tmp_path / "target.wav", "-c:a", "aac", tmp_path / "target.m4a")
    return tmp_path


@pytest.mark.parametrize("name", ["x.m4a", "x.m3u8", "x.mp3", "x.ffconcat"])
@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile target.wav\n",
        "ffconcat version 1.0\nfile target.m4a\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\ntarget.ts\n#EXT-X-ENDLIST\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
        '<?xml version="1.0"?><MPD><Period><AdaptationSet><Representation><BaseURL>target.m4a</BaseURL>'
        "</Representation></AdaptationSet></Period></MPD>",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
    ],
    ids=["concat wav", "concat m4a", "hls", "hls http", "dash", "sdp"],
)
def test_a_playlist_leads_nowhere(target: Path, name: str, text: str) -> None:
    (target / name).write_text(text)
    with pytest.raises(AudioError, match="cannot be decoded"):
        decoded(target / name)


@pytest.mark.parametrize("container", ["wav 16 bit", "flac", "mp3", "m4a aac", "m4a alac"])
def test_blocks_are_small_and_never_empty(tmp_path: Path, encode: Encode, container: str) -> None:
    path = encode(tone(seconds=30), 44100, container, tmp_path / "a")
    lengths = [len(block) for block in read_audio(path, RATE)]
    assert min(lengths) > 0
    assert max(lengths) <= 5 * RATE
    assert len(lengths) > 5


def test_many_channels_make_blocks_shorter_not_larger(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((200_000, 64), dtype=np.float32), 96_000, subtype="PCM_U8")
    lengths = [len(block) for block in read_audio(tmp_path / "a.wav", RATE)]
    assert sum(lengths) == pytest.approx(200_000 / 96_000 * RATE, abs=1)
    assert max(lengths) * 96_000 / RATE * 64 * 4 < 16 << 20  # bytes decoded at a time
    soundfile.write(tmp_path / "b.wav", np.zeros((1000, 100), dtype=np.float32), 44_100, subtype="PCM_U8")
    with pytest.raises(AudioError, match="100 channels"):
        decoded(tmp_path / "b.wav")


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_stopping_early_ends_ffmpeg(tmp_path: Path, encode: Encode) -> None:
    path = encode(tone(seconds=60), 44100, "m4a aac", tmp_path / "a")
    blocks: Iterator[Samples] = read_audio(path, RATE)
    first = list(itertools.islice(blocks, 2))
    assert len(first) == 2
    assert len(running_ffmpegs()) == 1
    blocks.close()  # type: ignore[attr-defined]
    assert running_ffmpegs() == []
    for _ in read_audio(path, RATE):  # dropped in the midst of an error
        break
    assert running_ffmpegs() == []
    decoded(path)
    assert running_ffmpegs() == []


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_an_ffmpeg_that_dies_half_way_is_an_error(tmp_path: Path, encode: Encode) -> None:
    path = encode(tone(seconds=120), 44100, "m4a alac", tmp_path / "a")
    blocks = read_audio(path, RATE)
    next(blocks)
    (child,) = running_ffmpegs()
    os.kill(child, 9)
    with pytest.raises(AudioError, match=r"truncated|the decoder failed"):
        list(blocks)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_an_interrupt_sent_to_the_decoder_does_nothing(tmp_path: Path, encode: Encode) -> None:
    """It would, between its start and that of its session (tests/stonecli/cli/test_tag.py met it once)."""
    path = encode(tone(seconds=120), 44100, "m4a alac", tmp_path / "a")
    blocks = read_audio(path, RATE)
    first = next(blocks)
    (child,) = running_ffmpegs()
    os.kill(child, signal.SIGINT)
    assert_is_the_tone(np.concatenate([first, *blocks]), 120)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert signal.SIGINT not in blocked


def test_the_decoder_is_out_of_reach_of_ctrl_c(tmp_path: Path, encode: Encode, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tone(), 44100, "m4a aac", tmp_path / "a")
    groups = []

    class Spy(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options)  # type: ignore[call-overload]
            groups.append(os.getpgid(self.pid))

    monkeypatch.setattr(subprocess, "Popen", Spy)
    decoded(path)
    assert len(groups) == 1
    assert os.getpgrp() not in groups


@pytest.fixture
def decoders(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[subprocess.Popen[bytes]]]:
    """Gives a list that the processes come into which are started from then on, ``stopped`` at once or not."""

    def watched(*, stopped: bool = False) -> list[subprocess.Popen[bytes]]:
        started: list[subprocess.Popen[bytes]] = []
        popen = subprocess.Popen

        def spy(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
            started.append(popen(*arguments, **options))  # type: ignore[call-overload]
            if stopped:
                started[-1].send_signal(signal.SIGSTOP)
            return started[-1]

        monkeypatch.setattr(subprocess, "Popen", spy)
        return started

    return watched


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs SIGSTOP")
@pytest.mark.parametrize("blocks_before", [0, 2])
def test_a_decoder_that_falls_silent_is_ended(
    tmp_path: Path,
    encode: Encode,
    decoders: Callable[..., list[subprocess.Popen[bytes]]],
    monkeypatch: pytest.MonkeyPatch,
    blocks_before: int,
) -> None:
    path = encode(tone(seconds=120), 44100, "m4a alac", tmp_path / "a")
    started = decoders(stopped=blocks_before == 0)
    monkeypatch.setattr("stonecli.audio.decode.SILENT_SECONDS", 1)
    blocks = read_audio(path, RATE)
    assert len(list(itertools.islice(blocks, blocks_before))) == blocks_before
    for process in started:
        process.send_signal(signal.SIGSTOP)
    with pytest.raises(AudioError, match="the decoder hangs"):
        list(blocks)
    assert len(started) == 1
    assert started[0].poll() is not None


def test_a_decoder_that_has_to_wait_for_us_has_not_fallen_silent(
    tmp_path: Path, encode: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = encode(tone(seconds=60), 44100, "m4a alac", tmp_path / "a")
    monkeypatch.setattr("stonecli.audio.decode.SILENT_SECONDS", 1)
    blocks = read_audio(path, RATE)
    first = next(blocks)
    time.sleep(2.5)
    assert_is_the_tone(np.concatenate([first, *blocks]), 60)
    for thread in threading.enumerate():
        if thread.name == "stone-decoder":
            thread.join(30)
            assert not thread.is_alive()


# At the lowest rate


def low_rate(path: Path, min_rate: int = 11025) -> tuple[float, Samples]:
    audio = open_audio(path, min_rate)
    return audio.rate, np.concatenate(list(audio.blocks))


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize(
    ("rate", "factor"), [(8000, 1), (11025, 1), (22050, 2), (44100, 4), (48000, 4), (96000, 8), (192000, 17)]
)
def test_the_low_rate_keeps_frequencies_below_a_third_of_it(
    tmp_path: Path, rate: int, factor: int, channels: int
) -> None:
    time = np.arange(round(9.3 * rate)) / rate  # more than two blocks
    tones = [(55.0, 0.2), (440.0, 0.2), (3800.0, 0.2), (0.44 * rate, 0.3)]
    wave = np.sum([level * np.sin(2 * np.pi * hertz * time + hertz) for hertz, level in tones], axis=0)
    shares = np.linspace(0.5, 1.5, channels) if channels > 1 else np.ones(1)
    soundfile.write(tmp_path / "a.wav", wave[:, None] * shares, rate, subtype="FLOAT")
    low, samples = low_rate(tmp_path / "a.wav")
    assert low == rate / factor
    assert len(samples) == -(-len(time) // factor)
    expected = sum(
        level * np.sin(2 * np.pi * hertz * np.arange(len(samples)) / low + hertz)
        for hertz, level in tones[: 4 if factor == 1 else 3]
    )
    inner = slice(20, -20)
    assert np.abs(samples - expected)[inner].max() < 3e-4 * (1 if factor > 1 else 0.01)


def test_at_the_low_rate_the_blocks_leave_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).standard_normal((44100 * 3 + 17, 2)).astype(np.float32) * 0.1
    soundfile.write(tmp_path / "a.wav", noise, 44100, subtype="FLOAT")
    _, whole = low_rate(tmp_path / "a.wav")
    for seconds in (1e-4, 0.01, 0.5):
        monkeypatch.setattr("stonecli.audio.decode.BLOCK_SECONDS", seconds)
        _, pieces = low_rate(tmp_path / "a.wav")
        np.testing.assert_allclose(pieces, whole, atol=1e-6)


@pytest.mark.parametrize("frames", [1, 2, 4, 63, 64, 65, 128, 129])
def test_a_few_frames_at_the_low_rate(tmp_path: Path, frames: int) -> None:
    soundfile.write(tmp_path / "a.wav", np.full((frames, 2), 0.25), 44100, subtype="FLOAT")
    _, samples = low_rate(tmp_path / "a.wav")
    assert len(samples) == -(-frames // 4)
    assert 0 < np.abs(samples).max() < 0.3


def test_nan_and_infinity_are_silence_at_the_low_rate(tmp_path: Path) -> None:
    samples = np.repeat(tone()[:, None], 2, axis=1)
    samples[5000], samples[20000, 1], samples[30000] = np.nan, np.inf, 1e30
    soundfile.write(tmp_path / "a.wav", samples, 44100, subtype="FLOAT")
    _, low = low_rate(tmp_path / "a.wav")
    assert np.isfinite(low).all()
    assert np.abs(low[8000:]).max() < 0.5  # 30000 / 4 and the reach of the filter


@pytest.mark.parametrize("least", [11025, 22050])
def test_every_container_at_the_low_rate(any_container: str, tones: Callable[[str], Path], least: int) -> None:
    rate, samples = low_rate(tones(any_container), least)
    assert least <= rate < 2 * least
    assert len(samples) / rate == pytest.approx(SECONDS, abs=0.06)
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    assert spectrum.argmax() * rate / len(samples) == pytest.approx(PITCH, abs=1.0)


def test_an_unreadable_file_raises_at_the_low_rate(tmp_path: Path, tones: Callable[[str], Path]) -> None:
    (tmp_path / "a.flac").write_bytes(b"")
    with pytest.raises(AudioError, match="empty"):
        low_rate(tmp_path / "a.flac")
    (tmp_path / "b.flac").write_bytes(tones("flac").read_bytes()[:9000])
    with pytest.raises(AudioError, match="truncated"):
        low_rate(tmp_path / "b.flac")


@pytest.mark.parametrize(
    ("rate", "low"), [(44100, 11025), (48000, 12000), (22050, 11025), (32000, 16000), (8000, 8000)]
)
def test_ffmpeg_decodes_at_the_file_rate_over_an_integer(tmp_path: Path, encode: Encode, rate: int, low: int) -> None:
    time = np.arange(round(9.3 * rate)) / rate
    path = encode((0.2 * np.sin(2 * np.pi * 440 * time)).astype(np.float32), rate, "m4a alac", tmp_path / "a")
    found, samples = low_rate(path)
    assert found == low
    assert len(samples) == pytest.approx(9.3 * low, abs=2)
    expected = 0.2 * np.sin(2 * np.pi * 440 * np.arange(len(samples)) / low)
    assert np.abs(samples - expected)[200:-200].max() < 1e-3


def test_a_decoder_that_nobody_reads_is_ended(
    tmp_path: Path, encode: Encode, decoders: Callable[..., list[subprocess.Popen[bytes]]]
) -> None:
    path = encode(tone(seconds=120), 44100, "m4a alac", tmp_path / "a")
    started = decoders()
    audio = open_audio(path, 11025)
    with pytest.raises(subprocess.TimeoutExpired):  # it waits for someone to take two minutes from the pipe
        started[0].wait(0.3)
    del audio
    gc.collect()
    assert started[0].poll() is not None


@pytest.mark.parametrize("frames", [0, 1000, 8 * 44100, 8 * 44100 + 1])
def test_ffmpeg_output_may_end_at_a_block_boundary(tmp_path: Path, encode: Encode, frames: int) -> None:
    path = encode(np.full(frames, 0.25, dtype=np.float32), 44100, "wavpack", tmp_path / "a")
    if frames == 0:
        with pytest.raises(AudioError, match="cannot be decoded"):
            low_rate(path)
        return
    assert len(low_rate(path)[1]) == -(-frames // 4)


@pytest.mark.parametrize("container", ["wav 16 bit", "wavpack"])
def test_an_odd_rate_is_refused(
    tmp_path: Path, encode: Encode, monkeypatch: pytest.MonkeyPatch, container: str
) -> None:
    path = encode(tone(seconds=120), 44100, container, tmp_path / "a")
    monkeypatch.setattr("stonecli.audio.decode.MAX_RATE", 8000)
    with pytest.raises(AudioError, match="unsupported format: 1 channels at 44100 Hz"):
        open_audio(path, 11025)
