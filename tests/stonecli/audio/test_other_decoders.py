"""Where the wheel's ffmpeg does not start, audioread decodes with what the system has, under the same guards."""

import gc
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from stonecli.audio.decode import open_audio
from stonecli.detection.detect import detect_key
from stonecli.errors import AudioError, DecoderError
from tests.fixture_types import Encode, MakeMusic, RunFfmpeg, Samples

SYSTEM_FFMPEG = shutil.which("ffmpeg")
needs_ffmpeg = pytest.mark.skipif(SYSTEM_FFMPEG is None, reason="needs an ffmpeg on PATH")
CONTAINERS = ["m4a aac", "m4a alac", "wma", "wavpack", "opus"]


@pytest.fixture(params=["missing", "not executable", "no ffmpeg"])
def no_wheel(
    request: pytest.FixtureRequest, songs: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From here on, the ffmpeg of the wheel is missing, not executable, or another program."""
    program = tmp_path / "programs" / "ffmpeg"
    if request.param != "missing":
        program.parent.mkdir()
        program.write_text("#!/bin/sh\nexit 1\n")
        program.chmod(0o755 if request.param == "no ffmpeg" else 0o644)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))


@pytest.fixture
def missing(songs: Mapping[str, Path], zeros: Path, inverted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``no_wheel``, from here on: the files that the tests encode are there."""
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/nonexistent/ffmpeg")


def samples_of(path: Path, rate: int = 11025) -> Samples:
    return np.concatenate(list(open_audio(path, rate).blocks))


@pytest.fixture(scope="module")
def zeros(tmp_path_factory: pytest.TempPathFactory, encode: Encode) -> Path:
    """Four minutes of silence."""
    samples = np.zeros(44100 * 240, dtype=np.float32)
    return encode(samples, 44100, "m4a alac", tmp_path_factory.mktemp("zeros") / "zeros")


@pytest.fixture(scope="module")
def inverted(tmp_path_factory: pytest.TempPathFactory, encode: Encode, music: MakeMusic) -> Path:
    """Music with an inverted channel."""
    mono = music("A minor", rate=44100)
    samples = np.stack([mono, -mono], axis=1)
    return encode(samples, 44100, "m4a aac", tmp_path_factory.mktemp("inverted") / "inverted")


@needs_ffmpeg
def test_a_wheel_without_an_ffmpeg_that_starts(songs: Mapping[str, Path], no_wheel: None) -> None:
    assert len(samples_of(songs["m4a aac"])) / 11025 == pytest.approx(16, abs=0.1)


@needs_ffmpeg
@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_is_decoded(songs: Mapping[str, Path], missing: None, container: str) -> None:
    audio = open_audio(songs[container], 11025)
    assert sum(len(block) for block in audio.blocks) / audio.rate == pytest.approx(16, abs=0.1)
    estimate = detect_key(songs[container])
    assert estimate.key is not None
    assert estimate.key.musical == "Dm"


@needs_ffmpeg
@pytest.mark.parametrize("container", ["m4a alac", "wavpack"])
def test_the_samples_are_those_of_the_wheel(
    tmp_path: Path, encode: Encode, music: MakeMusic, monkeypatch: pytest.MonkeyPatch,
    container: str,
) -> None:  # fmt: skip
    mono = music("A minor", seconds=30, rate=48000)
    path = encode(np.stack([mono, 0.5 * mono], axis=1), 48000, container, tmp_path / "a")
    expected = samples_of(path)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/nonexistent/ffmpeg")
    np.testing.assert_allclose(samples_of(path), expected, atol=2**-14)  # 16 bits


@needs_ffmpeg
def test_out_of_phase_channels(inverted: Path, music: MakeMusic, missing: None) -> None:
    expected = np.sqrt(np.mean(music("A minor", rate=44100) ** 2))
    assert np.sqrt(np.mean(samples_of(inverted) ** 2)) == pytest.approx(expected, rel=0.05)


@needs_ffmpeg
@pytest.mark.parametrize("container", ["m4a alac", "wavpack"])
def test_truncated_files(tmp_path: Path, songs: Mapping[str, Path], missing: None, container: str) -> None:
    content = songs[container].read_bytes()
    (tmp_path / "a").write_bytes(content[: len(content) * 6 // 10])
    with pytest.raises(AudioError, match=r"truncated|moov atom not found"):
        samples_of(tmp_path / "a")


NAMES = [
    "-i",
    "--help",
    "concat:x|y",
    "http:example",
    "pipe:0",
    "subfile,,start,0,end,9,,:x",
    "%03d",
    b"not \xff\xfe UTF-8",
    "No such file, audio: 8000 Hz, mono",
    "n\n  Duration: 09:00:00.00, start",
    "n\n  Stream #0:0: Audio: pcm_s16le, 8000 Hz, mono",
]


@needs_ffmpeg
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names_are_never_read_as_options_or_urls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, songs: Mapping[str, Path], missing: None, name: str | bytes
) -> None:
    monkeypatch.chdir(tmp_path)  # so that the name comes first in the path
    path = Path(os.fsdecode(name) + ".m4a")
    path.write_bytes(songs["m4a aac"].read_bytes())
    audio = open_audio(path, 11025)
    assert audio.rate == 11025
    assert sum(len(block) for block in audio.blocks) / audio.rate == pytest.approx(16, abs=0.1)


@needs_ffmpeg
@pytest.mark.parametrize("prefix", [b"", b"ID3\x04\0\0\0\0\0\x0a" + bytes(10)], ids=["", "ID3"])
@pytest.mark.parametrize(
    "text",
    [
        b"ffconcat version 1.0\nfile target.m4a\n",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\ntarget.m4a\n#EXT-X-ENDLIST\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
        b"This is a letter.\n" * 3000,
    ],
)
def test_a_playlist_does_not_open_other_files(
    tmp_path: Path, songs: Mapping[str, Path], missing: None, text: bytes, prefix: bytes
) -> None:
    shutil.copy(songs["m4a aac"], tmp_path / "target.m4a")
    (tmp_path / "x.m4a").write_bytes(prefix + text)
    with pytest.raises(AudioError, match="cannot be decoded"):
        samples_of(tmp_path / "x.m4a")


def test_no_module_and_no_program_of_the_current_folder_is_run(
    tmp_path: Path, songs: Mapping[str, Path], missing: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "run"
    for name in ("audioread.py", "queue.py", "stonecli.py"):
        (tmp_path / name).write_text(f"open({str(marker)!r}, 'w')")
    (tmp_path / "ffmpeg").write_text(f"#!/bin/sh\ntouch {marker}\n")
    (tmp_path / "ffmpeg").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", os.pathsep.join([".", "", os.environ["PATH"]]))
    if SYSTEM_FFMPEG:
        assert len(samples_of(songs["m4a aac"])) / 11025 == pytest.approx(16, abs=0.1)
    else:
        with pytest.raises(DecoderError):
            samples_of(songs["m4a aac"])
    assert not marker.exists()


def test_without_a_decoder_the_error_tells_how_to_install_one(
    songs: Mapping[str, Path], no_wheel: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    code = "from stonecli.audio.other_decoders import _backends; raise SystemExit(len(_backends()))"
    if subprocess.run([sys.executable, "-c", code], check=False).returncode:
        pytest.skip("audioread has another decoder here")
    with pytest.raises(DecoderError, match=r"^ffmpeg cannot be started \(.+\); install it, or reinstall"):
        samples_of(songs["m4a aac"])
    assert len(samples_of(songs["flac"])) / 11025 == pytest.approx(16, abs=0.1)  # needs none


def descendants() -> list[int]:
    """Processes below this one that run a decoder."""
    parents, found = {}, {os.getpid()}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(status.parent.name)] = int(status.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found - {os.getpid()})


@needs_ffmpeg
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_stopping_early_ends_the_process(zeros: Path, missing: None) -> None:
    before = descendants()
    blocks = open_audio(zeros, 11025).blocks
    assert len(list(itertools.islice(blocks, 2))) == 2
    started = sorted(set(descendants()) - set(before))
    assert len(started) == 2  # audioread and its ffmpeg
    del blocks
    gc.collect()
    for _ in range(100):
        if not [pid for pid in started if _is_running(pid)]:
            return
        time.sleep(0.1)
    pytest.fail("a decoder is left behind")


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@needs_ffmpeg
@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs SIGSTOP")
def test_a_decoder_without_output_is_killed(zeros: Path, missing: None, monkeypatch: pytest.MonkeyPatch) -> None:
    before = descendants()
    blocks = open_audio(zeros, 11025).blocks
    next(blocks)
    monkeypatch.setattr("stonecli.audio.decoder_process.SILENT_SECONDS", 1)
    for pid in set(descendants()) - set(before):
        os.kill(pid, signal.SIGSTOP)
    with pytest.raises(AudioError, match="the decoder hangs"):
        list(blocks)


@needs_ffmpeg
def test_output_that_nobody_reads_is_not_collected(tmp_path: Path, ffmpeg: RunFfmpeg) -> None:
    """audioread's own ffmpeg reader keeps all that was decoded: 20 minutes in 200 MB."""
    ffmpeg("-f", "lavfi", "-i", "anullsrc=r=44100:cl=stereo", "-t", "1200", "-c:a", "alac", tmp_path / "a.m4a")
    command: list[str | Path] = [sys.executable, "-P", "-m", "stonecli.audio.other_decoders", tmp_path / "a.m4a"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.read(100_000).startswith(b"RIFF")
            time.sleep(2)
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
            assert peak < 100_000  # kB
        finally:
            process.kill()
