"""A decoder that runs in a process of its own, so that a crafted file cannot harm stone.

It is killed when it outputs nothing for a minute, and when its output is no longer read.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from stonecli.audio.other_decoders import NO_BACKEND_MESSAGE
from stonecli.errors import AudioError

SILENT_SECONDS = 60  # a decoder that outputs nothing for so long is killed
_MEMORY = 1 << 30  # bytes of address space, on systems that can limit another process (Linux)


@contextmanager
def running(command: list[str]) -> Iterator[tuple[DecoderOutput, DecoderLog]]:
    """A running decoder process; it is killed if the block ends early."""
    with _end_signals_blocked():
        process = subprocess.Popen(  # noqa: S603 (no shell; no path can be taken for an option)
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Ctrl-C in the terminal must not reach ffmpeg: it would exit normally, and half a file would look complete.
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
    _limit_memory(process)
    assert process.stdout is not None  # noqa: S101 (for the type checker)
    assert process.stderr is not None  # noqa: S101
    log = DecoderLog()
    reader = Thread(target=log.follow, args=(process.stderr,), daemon=True)
    reader.start()
    output = DecoderOutput(process, process.stdout)
    try:
        yield output, log
        log.exit_code = process.wait()
        reader.join()
    finally:
        _kill(process)
        process.wait()
        reader.join()
        output.close()
        process.stderr.close()


def _limit_memory(process: subprocess.Popen[bytes]) -> None:
    """Limit the address space of a new process, on Linux only; ``-max_alloc`` limits ffmpeg on all systems."""
    if sys.platform == "linux":
        import resource

        with suppress(OSError, ValueError):  # the process has ended, or has a lower limit
            resource.prlimit(process.pid, resource.RLIMIT_AS, (_MEMORY, _MEMORY))


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a decoder and the processes that it started: they form one process group."""
    if process.poll() is not None:
        return
    if sys.platform == "win32":
        process.kill()
    else:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


class DecoderOutput:
    """The output of a decoder process, which is killed if a read gets nothing for ``SILENT_SECONDS``.

    A watchdog thread counts the seconds, because only POSIX can wait for a pipe with a timeout, and because the clock
    may advance while the machine sleeps.
    """

    def __init__(self, process: subprocess.Popen[bytes], stream: IO[bytes]) -> None:
        self._process = process
        self._stream = stream
        self._has_hung = False
        self._is_reading = False
        self._reads = 0
        self._ended = Event()
        Thread(target=self._watch, name="stone-decoder", daemon=True).start()

    def read(self, size: int) -> bytes:
        """The next ``size`` bytes; fewer only at the end."""
        self._reads += 1
        self._is_reading = True
        try:
            return self._stream.read(size)
        finally:
            self._is_reading = False

    def read_into(self, array: npt.NDArray[Any]) -> int:
        """Fill ``array`` with the next bytes and return their number, less than the array's size only at the end."""
        self._reads += 1
        self._is_reading = True
        try:
            return self._stream.readinto(array.reshape(-1).view(np.uint8).data)  # type: ignore[attr-defined,no-any-return]
        finally:
            self._is_reading = False

    def check(self) -> None:
        """Raise if the output is incomplete.

        Raises:
            AudioError: the decoder was killed because it hung.
        """
        if self._has_hung:
            raise AudioError(f"the decoder hangs: no output for {SILENT_SECONDS} s")

    def close(self) -> None:
        """End the watchdog thread and close the pipe."""
        self._ended.set()
        self._stream.close()

    def _watch(self) -> None:
        seconds, reads = 0, 0
        while not self._ended.wait(1.0):
            seconds = seconds + 1 if self._is_reading and self._reads == reads else 0
            reads = self._reads
            if seconds >= SILENT_SECONDS:
                self._has_hung = True
                _kill(self._process)
                return


class DecoderLog:
    """The messages of a decoder process on standard error, and its exit code.

    Attributes:
        audio_duration: declared duration of the audio in seconds; None if no reliable one is known.
        is_partial: whether the file ends within its last packet.
        has_messages: whether the decoder printed a message, which shows that it works.
        found_no_backend: whether audioread has no decoder on this machine.
        exit_code: exit code of the process; None while it runs, or if stone killed it.
    """

    _DURATION = re.compile(rb"^  Duration: (\d+):(\d\d):(\d\d(?:\.\d+)?)")  # tag values are indented deeper
    _VIDEO = re.compile(rb"^  Stream #\d+:\d+[^ ]*: Video: (?!.*\(attached pic\))")

    def __init__(self) -> None:
        self.is_partial = False
        self.has_messages = False
        self.found_no_backend = False
        self.exit_code: int | None = None
        self._duration: float | None = None
        self._is_duration_of_audio = True
        self._last: deque[bytes] = deque(maxlen=4)

    @property
    def audio_duration(self) -> float | None:
        return self._duration if self._is_duration_of_audio else None

    def follow(self, stream: IO[bytes]) -> None:
        """Read ``stream`` to its end, and keep only what the attributes need."""
        while line := stream.readline(4096):
            match = self._DURATION.match(line)
            if match:  # the last match counts: the file's name, which is printed earlier, may contain such a line
                hours, minutes, seconds = (float(group) for group in match.groups())
                self._duration = hours * 3600 + minutes * 60 + seconds
            elif self._VIDEO.match(line):
                self._is_duration_of_audio = False  # the video may be longer than its audio
            elif line.startswith(b"["):
                self.has_messages = True
                self.found_no_backend = self.found_no_backend or line.startswith(NO_BACKEND_MESSAGE)
                if b"Estimating duration from bitrate" in line:
                    self._is_duration_of_audio = False
                self.is_partial = self.is_partial or b"partial file" in line
                self._last.append(line)

    @property
    def reason(self) -> str:
        """The cause of a failure, in a few words."""
        text = b" ".join(self._last).decode("utf-8", "replace")
        for phrase in ("moov atom not found", "does not contain any stream", "matches no streams", "Permission denied"):
            if phrase in text:
                return {"matches no streams": "no audio stream"}.get(phrase, phrase)
        return "not an audio file, or damaged; re-rip or re-download it"


@contextmanager
def _end_signals_blocked() -> Iterator[None]:
    """Block the signals that ask to end: in this thread until the end of the block, in the child processes for good.

    The child gets its own session only after the fork, and a service manager signals every process of a service. A
    decoder that ends would make its file look damaged.
    """
    if sys.platform == "win32":  # no signal masks
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
