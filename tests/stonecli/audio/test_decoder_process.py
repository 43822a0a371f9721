import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from stonecli.audio.decode import open_audio, read_audio
from stonecli.errors import AudioError
from stonecli.jobs import END_SIGNALS
from tests.fixture_types import Encode, Samples
from tests.tones import RATE, assert_is_the_tone, decoded, low_rate, tone


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


class TestSignals:
    """A signal that asks stone to end must not end the decoder: half a file would look complete, or damaged."""

    @pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
    @pytest.mark.parametrize("end", END_SIGNALS)
    def test_signals_sent_to_the_decoder_do_nothing(self, tmp_path: Path, encode: Encode, end: int) -> None:
        """They would, between its start and that of its session, or when a service manager ends all processes."""
        path = encode(tone(seconds=120), 44100, "m4a alac", tmp_path / "a")
        blocks = read_audio(path, RATE)
        first = next(blocks)
        (child,) = running_ffmpegs()
        os.kill(child, end)
        assert_is_the_tone(np.concatenate([first, *blocks]), 120)
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        assert end not in blocked

    def test_ctrl_c_does_not_reach_the_decoder(
        self, tmp_path: Path, encode: Encode, monkeypatch: pytest.MonkeyPatch
    ) -> None:
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
    """A list that collects the processes started from now on; with ``stopped``, each is stopped at once."""

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


class TestSilence:
    """A decoder that outputs nothing is killed."""

    @pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs SIGSTOP")
    @pytest.mark.parametrize("blocks_before", [0, 2])
    def test_a_decoder_without_output_is_killed(
        self,
        tmp_path: Path,
        encode: Encode,
        decoders: Callable[..., list[subprocess.Popen[bytes]]],
        monkeypatch: pytest.MonkeyPatch,
        blocks_before: int,
    ) -> None:
        path = encode(tone(seconds=120), 44100, "m4a alac", tmp_path / "a")
        started = decoders(stopped=blocks_before == 0)
        monkeypatch.setattr("stonecli.audio.decoder_process.SILENT_SECONDS", 1)
        blocks = read_audio(path, RATE)
        assert len(list(itertools.islice(blocks, blocks_before))) == blocks_before
        for process in started:
            process.send_signal(signal.SIGSTOP)
        with pytest.raises(AudioError, match="the decoder hangs"):
            list(blocks)
        assert len(started) == 1
        assert started[0].poll() is not None

    def test_a_decoder_that_waits_for_the_reader_is_not_killed(
        self, tmp_path: Path, encode: Encode, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = encode(tone(seconds=60), 44100, "m4a alac", tmp_path / "a")
        monkeypatch.setattr("stonecli.audio.decoder_process.SILENT_SECONDS", 1)
        blocks = read_audio(path, RATE)
        first = next(blocks)
        time.sleep(2.5)
        assert_is_the_tone(np.concatenate([first, *blocks]), 60)
        for thread in threading.enumerate():
            if thread.name == "stone-decoder":
                thread.join(30)
                assert not thread.is_alive()


class TestEnds:
    """A decoder ends with the recording, or when its output is no longer needed."""

    @pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
    def test_stopping_early_ends_ffmpeg(self, tmp_path: Path, encode: Encode) -> None:
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
    def test_an_ffmpeg_that_dies_half_way_is_an_error(self, tmp_path: Path, encode: Encode) -> None:
        path = encode(tone(seconds=120), 44100, "m4a alac", tmp_path / "a")
        blocks = read_audio(path, RATE)
        next(blocks)
        (child,) = running_ffmpegs()
        os.kill(child, 9)
        with pytest.raises(AudioError, match=r"truncated|the decoder failed"):
            list(blocks)

    def test_a_decoder_that_is_not_read_is_killed(
        self, tmp_path: Path, encode: Encode, decoders: Callable[..., list[subprocess.Popen[bytes]]]
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
    def test_ffmpeg_output_may_end_at_a_block_boundary(self, tmp_path: Path, encode: Encode, frames: int) -> None:
        path = encode(np.full(frames, 0.25, dtype=np.float32), 44100, "wavpack", tmp_path / "a")
        if frames == 0:
            with pytest.raises(AudioError, match="cannot be decoded"):
                low_rate(path)
            return
        assert len(low_rate(path)[1]) == -(-frames // 4)
