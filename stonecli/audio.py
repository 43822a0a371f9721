"""Any music file -> mono float32 samples at a low rate, block by block, in bounded memory.

libsndfile (``soundfile``) decodes WAV, AIFF, FLAC, Ogg Vorbis, MP3 and their kin; the ffmpeg that the
``imageio-ffmpeg`` wheel carries takes the rest (AAC and ALAC in M4A, WMA, WavPack, Monkey's Audio) as a process of its
own, so that a hostile file cannot reach into ours, and Opus, which libsndfile decodes at half the speed. Which of the
two is decided by content, never by the file's ending.
"""

from __future__ import annotations

import os
import re
import signal
import stat
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Event, Thread
from typing import IO, Protocol

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from stonecli.errors import AudioError
from stonecli.lengths import TRUNCATION_TOLERANCE, has_zero_length, is_chained_ogg, is_mp3_without_length

Samples = npt.NDArray[np.float32]

BLOCK_SECONDS = 4.0
MAX_CHANNELS = 64
MIN_RATE, MAX_RATE = 1_000, 1_000_000
TRUNCATION_SECONDS = 0.5  # that may be missing as well: encoder delay, rounded durations
_NO_LENGTH = 1 << 62  # frames; libsndfile announces the highest number where it does not know
SILENT_SECONDS = 60  # after which a decoder that gives nothing has hung
_BLOCK_VALUES = 1 << 21  # most samples of all channels together that are decoded at a time: 8 MB
_OUTPUTS = 16  # samples that one row of the decimating matrix product makes
KAISER_BETA = 7.5  # with 16 taps a step: 0.001 dB of ripple up to 0.35 of the new rate, -76 dB from 0.65 of it
_ONE_THREAD = 1 << 13  # rows times columns up to which OpenBLAS multiplies by a narrow matrix in the calling thread

# Demuxers of ffmpeg that may open a file; playlists and their like, which lead to other files, are not among them.
_DEMUXERS = "aac,aiff,ape,asf,au,caf,dsf,flac,iff,matroska,mov,mp3,mpc,mpc8,ogg,shn,tak,tta,w64,wav,wv"


def read_audio(path: str | os.PathLike[str], sample_rate: int) -> Iterator[Samples]:
    """The recording as mono blocks at ``sample_rate``, each float32 [n], n > 0, full scale 1.0.

    Channels are averaged; samples that are no number count as silence.

    Raises:
        AudioError: no audio that can be decoded, or the file ends before the length that it announces.
        OSError: the file cannot be read.
    """
    source = _open(Path(path), sample_rate)
    yield from source.read(_Resampler(source.rate, sample_rate))


@dataclass(frozen=True)
class Audio:
    """A recording that is being read.

    Attributes:
        rate: of the samples, in Hz.
        blocks: mono blocks in order, each float32 [n], n > 0, full scale 1.0; errors as :func:`read_audio`.
    """

    rate: float
    blocks: Iterator[Samples]


def open_audio(path: str | os.PathLike[str], least_rate: int) -> Audio:
    """The recording at its own rate divided by a whole number, the lowest that is not below ``least_rate``.

    That is the cheapest rate that there is. Up to 0.35 of ``least_rate`` the spectrum is that of the recording; above,
    it may be folded. A recording whose own rate is lower keeps it.

    Raises:
        AudioError, OSError: as :func:`read_audio`.
    """
    source = _open(Path(path), least_rate)
    factor = max(1, source.rate // least_rate)
    return Audio(source.rate / factor, source.read(_Decimator(source.channels, factor)))


class _Converter(Protocol):
    """Makes a mono signal at another rate of blocks of samples, each but the last a multiple of ``step`` long."""

    step: int

    def process(self, block: Samples, *, last: bool) -> Samples:
        """The samples that are ready, float32 [n], of ``block`` [n, channels]; all that is left when ``last``."""


class _Source(Protocol):
    """A file that a decoder has opened: samples a second, and channels, as it will give them."""

    rate: int
    channels: int

    def read(self, converter: _Converter) -> Iterator[Samples]:
        """All of it by way of ``converter``, once; errors as :func:`read_audio`."""


def _open(path: Path, target: int) -> _Source:
    unsure_length = _check_file(path)
    sound = None if unsure_length else _open_sound(path)
    if sound is None:
        return _Ffmpeg(path, check_length=not unsure_length)
    if sound.subtype == "OPUS":
        sound.close()
        return _Ffmpeg(path, rate=target)
    if _is_cut_short(path, sound):
        sound.close()
        return _Ffmpeg(path, check_length=False)
    return _Libsndfile(sound)


def _is_cut_short(path: Path, sound: soundfile.SoundFile) -> bool:
    """Whether libsndfile is mistaken in the length of the file, where it would stop."""
    if sound.frames > _NO_LENGTH:
        return True
    with path.open("rb") as file:
        if sound.format == "OGG":
            return is_chained_ogg(file)
        return sound.format == "MP3" and is_mp3_without_length(file)


def _check_format(channels: int, rate: int) -> None:
    if not (0 < channels <= MAX_CHANNELS and MIN_RATE <= rate <= MAX_RATE):
        raise AudioError(f"odd format: {channels} channels at {rate} Hz")


def _check_file(path: Path) -> bool:
    """Whether the length that the file announces is nought; raises where there is nothing to decode, or too little."""
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe that nobody writes to would be waited for at open()
        raise AudioError("not a regular file but a folder, pipe, socket or device")
    with path.open("rb") as file:  # an OSError with its reason, before any decoder hides it
        if not file.read(1):
            raise AudioError("the file is empty")
        return has_zero_length(file)


class _SoundFile(soundfile.SoundFile):  # type: ignore[misc]
    """Read from its beginning to its end.

    After each read, ``soundfile`` seeks to where it is already; in an MP3 that decodes frames anew.
    """

    def seekable(self) -> bool:
        return False


def _open_sound(path: Path) -> soundfile.SoundFile | None:
    """The open file, or None where libsndfile does not know the format."""
    # soundfile encodes str strictly; bytes carry names that are not valid UTF-8. Windows has wide names instead.
    name = str(path) if sys.platform == "win32" else os.fsencode(path)
    try:
        sound = _SoundFile(name)
    except (soundfile.SoundFileError, TypeError, ValueError, RuntimeError):
        return None
    # RAW is a guess from the ending (.gsm, .vox), under which any text is sound.
    if sound.format == "RAW":
        sound.close()
        return None
    return sound


class _Libsndfile:
    def __init__(self, sound: soundfile.SoundFile) -> None:
        self.rate: int = sound.samplerate
        self.channels: int = sound.channels
        self._sound = sound
        try:
            _check_format(self.channels, self.rate)
        except AudioError:
            sound.close()
            raise

    def read(self, converter: _Converter) -> Iterator[Samples]:
        buffer = np.empty((_block_frames(self, converter), self.channels), dtype=np.float32)
        done = 0
        with self._sound as sound:
            while True:
                try:
                    samples = sound.read(out=buffer)
                except (soundfile.SoundFileError, RuntimeError) as error:
                    reason = str(getattr(error, "error_string", error)).removeprefix("Error : ").strip(" .")
                    raise AudioError(f"damaged or truncated after {done / self.rate:.1f} s: {reason}") from error
                done += len(samples)
                out = converter.process(samples, last=len(samples) < len(buffer))
                if len(out):
                    yield out
                if len(samples) < len(buffer):
                    break
            _check_length(done / self.rate, sound.frames / self.rate)


class _Ffmpeg:
    """Mono, so that few bytes go through the pipe. It runs from the beginning, and is killed when this is let go.

    The samples come at the file's rate where none is given, for ffmpeg's own resampler costs four times what ours do.
    From 48 kHz to the 11,025 Hz of a model it is better than ours in two steps, and Opus is nothing else.
    """

    channels = 1

    def __init__(self, path: Path, *, rate: int | None = None, check_length: bool = True) -> None:
        self._check_length = check_length
        with ExitStack() as process:
            self._output, self._log = process.enter_context(_ffmpeg(path, rate))
            found = _rate_of_wav(self._output)
            self._output.check()
            if found is not None:
                _check_format(self.channels, found)
                self.rate = found
                self._process = process.pop_all()
                return
        raise AudioError(f"not audio that can be decoded: {self._log.reason}")

    def read(self, converter: _Converter) -> Iterator[Samples]:
        size = _block_frames(self, converter) * 4
        done, last = 0, False
        with self._process:
            while not last:
                data = self._output.read(size)
                last = len(data) < size
                if last:
                    self._output.check()
                samples = np.frombuffer(data, dtype="<f4", count=len(data) // 4)
                done += len(samples)
                out = converter.process(samples[:, None], last=last)
                if len(out):
                    yield out
        if not done:
            raise AudioError(f"not audio that can be decoded: {self._log.reason}")
        seconds = done / self.rate
        if self._check_length and self._log.audio_duration is not None:
            _check_length(seconds, self._log.audio_duration)
        if self._log.is_partial and self._log.audio_duration is None:
            raise AudioError(f"truncated after {seconds:.1f} s")
        if self._log.exit_code:
            raise AudioError(f"the decoder failed after {seconds:.1f} s")


def _block_frames(source: _Source, converter: _Converter) -> int:
    """Frames that are decoded at a time."""
    size = min(int(BLOCK_SECONDS * source.rate), _BLOCK_VALUES // source.channels)
    return max(1, size // converter.step) * converter.step


def _rate_of_wav(stream: _Output) -> int | None:
    """Samples a second, by the header of a WAV that is read to where its samples begin; None where there is none."""
    rate = None
    if len(stream.read(12)) < 12:  # RIFF, its size, WAVE
        return None
    while len(header := stream.read(8)) == 8:
        name, size = struct.unpack("<4sI", header)
        if name == b"data":
            return rate
        content = stream.read(size)
        if name == b"fmt ":
            (rate,) = struct.unpack_from("<I", content, 4)
    return None


class _Output:
    """What a decoder gives. One that gives nothing for long, while it is waited for, is killed.

    The time is counted by a thread of its own, second by second: no system but POSIX can wait for a pipe and a time,
    and the clock may go on while the machine sleeps.
    """

    def __init__(self, process: subprocess.Popen[bytes], stream: IO[bytes]) -> None:
        self._process = process
        self._stream = stream
        self._has_hung = False
        self._is_waited_for = False
        self._reads = 0
        self._ended = Event()
        Thread(target=self._watch, name="stone-decoder", daemon=True).start()

    def read(self, size: int) -> bytes:
        """The next bytes, fewer than ``size`` at the end alone."""
        self._reads += 1
        self._is_waited_for = True
        try:
            return self._stream.read(size)
        finally:
            self._is_waited_for = False

    def check(self) -> None:
        """Nothing, unless what was read is not all.

        Raises:
            AudioError: the decoder was killed.
        """
        if self._has_hung:
            raise AudioError(f"the decoder fell silent: nothing in {SILENT_SECONDS} s")

    def close(self) -> None:
        """Nothing is read any more."""
        self._ended.set()
        self._stream.close()

    def _watch(self) -> None:
        seconds, reads = 0, 0
        while not self._ended.wait(1.0):
            seconds = seconds + 1 if self._is_waited_for and self._reads == reads else 0
            reads = self._reads
            if seconds >= SILENT_SECONDS:
                self._has_hung = True
                self._process.kill()
                return


class _FfmpegLog:
    """What ffmpeg says on its standard error, and how it ended.

    Attributes:
        audio_duration: announced length of the audio in seconds; None where nothing reliable is said of it.
        is_partial: whether the file ends within its last packet.
        exit_code: of the process; None while it runs, or where it was killed by us.
    """

    _DURATION = re.compile(rb"^  Duration: (\d+):(\d\d):(\d\d(?:\.\d+)?)")  # tag values are indented deeper
    _FILM = re.compile(rb"^  Stream #\d+:\d+[^ ]*: Video: (?!.*\(attached pic\))")

    def __init__(self) -> None:
        self.is_partial = False
        self.exit_code: int | None = None
        self._duration: float | None = None
        self._speaks_of_audio = True
        self._last: deque[bytes] = deque(maxlen=4)

    @property
    def audio_duration(self) -> float | None:
        return self._duration if self._speaks_of_audio else None

    def follow(self, stream: IO[bytes]) -> None:
        """Read ``stream`` to its end, keeping only what is needed."""
        while line := stream.readline(4096):
            match = self._DURATION.match(line)
            if match:  # the last one counts: a file's name, which comes before, may hold a line like this one
                hours, minutes, seconds = (float(group) for group in match.groups())
                self._duration = hours * 3600 + minutes * 60 + seconds
            elif self._FILM.match(line):
                self._speaks_of_audio = False  # the film may be longer than its sound
            elif line.startswith(b"["):
                if b"Estimating duration from bitrate" in line:
                    self._speaks_of_audio = False
                self.is_partial = self.is_partial or b"partial file" in line
                self._last.append(line)

    @property
    def reason(self) -> str:
        """The cause of a failure in a few words."""
        text = b" ".join(self._last).decode("utf-8", "replace")
        for phrase in ("moov atom not found", "does not contain any stream", "matches no streams", "Permission denied"):
            if phrase in text:
                return {"matches no streams": "no audio stream"}.get(phrase, phrase)
        return "unknown or damaged format"


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """For a child that is started within, Ctrl-C is blocked for good; for this thread it comes afterwards.

    The child begins its own session when it is there: a Ctrl-C just before would end it, and its file look damaged.
    """
    if sys.platform == "win32":  # which has no masks
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _ffmpeg(path: Path, rate: int | None) -> Iterator[tuple[_Output, _FfmpegLog]]:
    """ffmpeg decoding ``path`` into a mono float32 WAV (at ``rate``) on a pipe; killed when the block is left early."""
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-nostats", "-hide_banner", "-threads", "1"]
    # A file may name other files or addresses inside (playlists, MP4 references): only itself may be opened.
    command += ["-protocol_whitelist", "file,pipe", "-format_whitelist", _DEMUXERS, "-i", f"file:{path}"]
    # Frames of a thousand samples would each be handed through five threads: a third of the time.
    command += ["-map", "0:a:0", "-af", "asetnsamples=n=32768:p=0"]
    command += ["-ac", "1", "-rematrix_maxval", "1", "-map_metadata", "-1", "-fflags", "+bitexact"]
    command += ["-ar", str(rate)] if rate else []
    command += ["-c:a", "pcm_f32le", "-f", "wav", "pipe:1"]  # for its header, which has the rate
    with _interrupts_blocked():
        process = subprocess.Popen(  # noqa: S603 (no shell; the path is behind "file:")
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Ctrl-C in the terminal is for us: ffmpeg would end in good order, and half a file would look whole.
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
    assert process.stdout is not None  # noqa: S101 (for the type checker)
    assert process.stderr is not None  # noqa: S101
    log = _FfmpegLog()
    reader = Thread(target=log.follow, args=(process.stderr,), daemon=True)
    reader.start()
    output = _Output(process, process.stdout)
    try:
        yield output, log
        log.exit_code = process.wait()
        reader.join()
    finally:
        process.kill()
        process.wait()
        reader.join()
        output.close()
        process.stderr.close()


class _Resampler:
    """Mean over channels and streaming sample-rate conversion; a plain copy where the rates are equal."""

    step = 1

    def __init__(self, rate: int, target: int) -> None:
        self._stream = None if rate == target else soxr.ResampleStream(rate, target, 1, dtype="float32", quality="HQ")

    def process(self, block: Samples, *, last: bool) -> Samples:
        mono = _to_mono(block)
        if self._stream is None:
            return mono
        out: Samples = self._stream.resample_chunk(mono, last=last)
        return out


class _Decimator:
    """Mean over channels, low-pass and every ``factor``-th sample, in one matrix product on the samples as they lie.

    A row of the left matrix is ``16 * factor`` frames; the right one is banded (Toeplitz). Its first 16 columns hold
    what the row gives to its own outputs, the last 16 what it gives to those of the row before: the filter, of
    ``16 * factor + 1`` taps, is no longer than that.
    """

    def __init__(self, channels: int, factor: int) -> None:
        self.step = _OUTPUTS * factor
        self._factor = factor
        self._matrix = decimating_matrix(channels, factor)
        self._owed = np.zeros(_OUTPUTS, dtype=np.float32)  # what the last row gave to its own outputs
        self._ahead = _OUTPUTS // 2 if factor > 1 else 0  # outputs before the first sample
        self._frames = self._made = 0

    def process(self, block: Samples, *, last: bool) -> Samples:
        self._frames += len(block)
        if self._factor == 1:
            return _to_mono(block)
        if last:
            block = np.concatenate([block, np.zeros((-len(block) % self.step, block.shape[1]), dtype=np.float32)])
        parts = self._product(block)
        if len(parts) and not -1e6 < float(parts.min()) <= float(parts.max()) < 1e6:
            parts = self._product(_finite(block))
        out = parts[:, _OUTPUTS:].copy()
        out[:1] += self._owed
        out[1:] += parts[:-1, :_OUTPUTS]
        if len(parts):
            self._owed = parts[-1, :_OUTPUTS].copy()
        made = np.append(out, self._owed) if last else out.ravel()
        made, self._ahead = made[self._ahead :], max(0, self._ahead - len(made))
        if last:  # no more than the frames that there were
            made = made[: -(-self._frames // self._factor) - self._made]
        self._made += len(made)
        return made

    def _product(self, block: Samples) -> Samples:
        """Rows of ``block`` times the matrix, [rows, 2 * 16]."""
        rows = block.reshape(-1, len(self._matrix))
        out = np.empty((len(rows), self._matrix.shape[1]), dtype=np.float32)
        # Pieces: OpenBLAS would divide a large product among threads, which costs several times what it is.
        piece = max(1, _ONE_THREAD // len(self._matrix))
        whole = len(rows) // piece * piece
        shape = (-1, piece, len(self._matrix))
        with np.errstate(invalid="ignore", over="ignore"):  # what is no number is found in the result
            np.matmul(rows[:whole].reshape(shape), self._matrix, out=out[:whole].reshape(-1, piece, out.shape[1]))
            np.matmul(rows[whole:], self._matrix, out=out[whole:])
        return out


@lru_cache(maxsize=8)
def decimating_matrix(channels: int, factor: int) -> Samples:
    """The right matrix of :class:`_Decimator`: windowed sinc (Kaiser), float32 [16 * factor * channels, 2 * 16]."""
    taps = _OUTPUTS * factor + 1
    low_pass = np.sinc((np.arange(taps) - taps // 2) / factor) * np.kaiser(taps, KAISER_BETA)
    low_pass /= low_pass.sum() * channels
    band = np.zeros((2 * _OUTPUTS * factor, _OUTPUTS))
    for output in range(_OUTPUTS):
        band[output * factor : output * factor + taps, output] = low_pass
    both = np.concatenate([band[: _OUTPUTS * factor], band[_OUTPUTS * factor :]], axis=1)
    return np.repeat(both, channels, axis=0).astype(np.float32)


def _to_mono(samples: Samples) -> Samples:
    """Mean over channels of [n, channels], with what is no number as silence; never a view."""
    mono = samples[:, 0] / np.float32(samples.shape[1])
    with np.errstate(invalid="ignore", over="ignore"):  # inf - inf, and sums beyond float32
        for channel in range(1, samples.shape[1]):  # seven times as fast as mean(axis=1)
            mono += samples[:, channel] / np.float32(samples.shape[1])
    return _finite(mono)


def _finite(samples: Samples) -> Samples:
    # A float file may hold anything; past 1e6 the squares and the transform leave float32.
    if np.isfinite(samples).all():
        return np.clip(samples, -1e6, 1e6) if np.abs(samples).max(initial=0.0) > 1e6 else samples
    return np.clip(np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0), -1e6, 1e6)


def _check_length(seconds: float, announced: float) -> None:
    missing = announced - seconds
    if missing > TRUNCATION_SECONDS and missing > TRUNCATION_TOLERANCE * announced:
        raise AudioError(f"truncated: {seconds:.1f} s of {announced:.1f} s are there")
