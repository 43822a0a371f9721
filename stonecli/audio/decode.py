"""Decode any music file to blocks of mono float32 samples at a low rate, in bounded memory.

Three decoders are tried. The content of the file decides which, never its name:

1. libsndfile (``soundfile``) decodes WAV, AIFF, FLAC, Ogg Vorbis, MP3 and similar formats.
2. The ffmpeg in the ``imageio-ffmpeg`` wheel decodes the rest (AAC and ALAC in M4A, WMA, WavPack, Monkey's Audio), and
   Opus, for which libsndfile takes twice as long. It runs in a process of its own, so a crafted file cannot harm stone.
3. If that ffmpeg is missing or does not start, audioread decodes with the decoders of the system
   (``stonecli.audio.other_decoders``), also in a process of its own.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import stat
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Event, Thread
from typing import IO, Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from stonecli.audio.channels import PEAK_LIMIT, ChannelMixer, Signs, finite, mixed
from stonecli.audio.declared_durations import (
    TRUNCATION_TOLERANCE,
    ends_with_whole_frame,
    has_zero_length,
    is_chained_ogg,
    is_mp3_without_length,
)
from stonecli.audio.native_stderr import libmpg123_silenced
from stonecli.audio.other_decoders import GUARDED_OUTPUT, NO_BACKEND_MESSAGE, guarded_input, read_wav_header
from stonecli.errors import AudioError, DecoderError, reason
from stonecli.util.installation import is_download, module_command

Samples = npt.NDArray[np.float32]

BLOCK_SECONDS = 4.0
MAX_CHANNELS = 64
MIN_RATE, MAX_RATE = 1_000, 1_000_000
TRUNCATION_SECONDS = 0.5  # missing audio that is tolerated: encoder delay, rounded durations
_UNKNOWN_FRAMES = 1 << 62  # libsndfile declares the largest number if it does not know the length
SILENT_SECONDS = 60  # a decoder that outputs nothing for so long is killed
_BLOCK_VALUES = 1 << 21  # max. samples decoded at a time, all channels counted: 8 MB
_OUTPUTS = 16  # output samples per row of the decimating matrix product
KAISER_BETA = 7.5  # 16 taps per input step: 0.001 dB ripple up to 0.35 of the new rate, -76 dB from 0.65 of it
_ONE_THREAD = 1 << 13  # rows times columns up to which OpenBLAS multiplies by a narrow matrix in the calling thread
_FFMPEG_MEMORY = 1 << 30  # bytes of address space, on systems that can limit another process (Linux)


def read_audio(path: str | os.PathLike[str], sample_rate: int) -> Iterator[Samples]:
    """The recording as mono blocks at ``sample_rate``, each float32 [n], n > 0, full scale 1.0.

    Channels are averaged, or subtracted if they are out of phase. NaN and infinity are replaced by zero.

    Raises:
        AudioError: the file contains no audio that can be decoded, or is truncated.
        DecoderError: no decoder for this format can be started on this machine.
        OSError: the file cannot be read.
    """
    source = _open(Path(path), sample_rate)
    yield from source.read(_Resampler(source.rate, sample_rate))


@dataclass(frozen=True)
class Audio:
    """A recording that is being read.

    Attributes:
        rate: sample rate in Hz.
        blocks: mono blocks in order, each float32 [n], n > 0, full scale 1.0; errors as :func:`read_audio`.
        notes: warnings about the file for the user; complete after the last block.
    """

    rate: float
    blocks: Iterator[Samples]
    notes: list[str]


def open_audio(path: str | os.PathLike[str], min_rate: int, file: BinaryIO | None = None) -> Audio:
    """The recording, decimated by the largest integer that keeps its rate at or above ``min_rate`` (in Hz).

    Decimation by an integer is the cheapest resampling. Up to 0.35 of ``min_rate`` the spectrum is that of the
    recording; above, it may be aliased. A recording with a rate below ``min_rate`` keeps its rate.

    ``file`` is the same file, if the caller has opened it: then the checks of the declared duration do not open it once
    more. It must stay open until the last block. A decoder opens the path itself, since it moves the offset of its
    descriptor.

    Raises:
        AudioError, OSError: as :func:`read_audio`.
    """
    source = _open(Path(path), min_rate, file)
    factor = max(1, source.rate // min_rate)
    return Audio(source.rate / factor, source.read(_Decimator(source.channels, factor)), source.notes)


class _Converter(Protocol):
    """Converts blocks of samples to mono at another rate; all blocks but the last are multiples of ``step`` long."""

    step: int

    def process(self, block: Samples, signs: Signs, *, last: bool) -> Samples:
        """The samples that ``block`` [n, channels] completes, float32 [n]; all remaining ones if ``last``."""


class _Source(Protocol):
    """An open file: the sample rate and the number of channels that :meth:`read` passes to its converter."""

    rate: int
    channels: int
    notes: list[str]

    def read(self, converter: _Converter) -> Iterator[Samples]:
        """The whole recording, converted. Call it once. Errors as :func:`read_audio`."""


def _open(path: Path, target: int, file: BinaryIO | None = None) -> _Source:
    with _readable(path, file) as content:
        has_no_length = _check_content(content)
        sound = None if has_no_length else _open_sound(path)
        if sound is None:
            return _DecoderProcess(path, check_length=not has_no_length)
        if sound.subtype == "OPUS":
            sound.close()
            return _DecoderProcess(path, rate=target)
        if _is_cut_short(content, sound):
            sound.close()
            return _DecoderProcess(path, check_length=False)
        return _Libsndfile(path, sound, file)


@contextmanager
def _readable(path: Path, file: BinaryIO | None) -> Iterator[BinaryIO]:
    """``file`` if there is one, or else the file at ``path``, open until the end of the block.

    Raises:
        AudioError: the path is no regular file.
        OSError: the file cannot be read. libsndfile would hide the reason.
    """
    if file is not None:
        yield file
        return
    if not stat.S_ISREG(path.stat().st_mode):  # open() would block on a pipe without a writer
        raise AudioError("not a regular file but a folder, pipe, socket or device")
    with path.open("rb") as own:
        yield own


def _is_cut_short(file: BinaryIO, sound: soundfile.SoundFile) -> bool:
    """Whether libsndfile would stop before the end of the file, or does not know its length."""
    if sound.frames > _UNKNOWN_FRAMES:
        return True
    if sound.format == "OGG":
        return is_chained_ogg(file)
    return sound.format == "MP3" and is_mp3_without_length(file)


def _check_format(channels: int, rate: int) -> None:
    if not (0 < channels <= MAX_CHANNELS and MIN_RATE <= rate <= MAX_RATE):
        raise AudioError(f"unsupported format: {channels} channels at {rate} Hz")


def _check_content(file: BinaryIO) -> bool:
    """Whether the file declares a length of zero.

    Raises:
        AudioError: the file is empty or truncated.
        OSError: the file cannot be read.
    """
    file.seek(0)
    if not file.read(1):
        raise AudioError("the file is empty")
    return has_zero_length(file)


class _SoundFile(soundfile.SoundFile):  # type: ignore[misc]
    """A file that is read once from start to end.

    In seekable files ``soundfile`` seeks to the current position after each read, which decodes MP3 frames again.
    """

    def seekable(self) -> bool:
        return False


def _open_sound(path: Path) -> soundfile.SoundFile | None:
    """The open file, or None if libsndfile does not support the format."""
    # soundfile encodes str strictly, so names that are not valid UTF-8 are passed as bytes; Windows takes only str.
    name = str(path) if sys.platform == "win32" else os.fsencode(path)
    try:
        with libmpg123_silenced():
            sound = _SoundFile(name)
    except (soundfile.SoundFileError, TypeError, ValueError, RuntimeError):
        return None
    # RAW is guessed from the extension (.gsm, .vox): any text would be decoded.
    if sound.format == "RAW":
        sound.close()
        return None
    return sound


class _Libsndfile:
    """A file that libsndfile has opened."""

    def __init__(self, path: Path, sound: soundfile.SoundFile, file: BinaryIO | None) -> None:
        self.rate: int = sound.samplerate
        self.channels: int = sound.channels
        self.notes: list[str] = []
        self._path = path
        self._file = file
        self._sound = sound
        try:
            _check_format(self.channels, self.rate)
        except AudioError:
            sound.close()
            raise

    def read(self, converter: _Converter) -> Iterator[Samples]:
        """As :meth:`_Source.read`. Stops at the declared end, because libFLAC fails at a tag after the audio."""
        buffer = np.empty((_block_frames(self, converter), self.channels), dtype=np.float32)
        mixer = ChannelMixer(self.channels, self.rate)
        done, last = 0, False
        with self._sound as sound:
            is_mp3 = sound.format == "MP3"
            while not last:
                wanted = min(len(buffer), sound.frames - done)
                try:
                    with libmpg123_silenced(is_mp3):
                        samples = sound.read(out=buffer[:wanted])
                except (soundfile.SoundFileError, RuntimeError) as error:
                    reason = str(getattr(error, "error_string", error)).removeprefix("Error : ").strip(" .")
                    raise AudioError(
                        f"damaged or truncated after {done / self.rate:.1f} s ({reason}); re-rip or re-download it"
                    ) from error
                done += len(samples)
                last = len(samples) < wanted or done >= sound.frames
                out = converter.process(samples, mixer.signs(samples), last=last)
                if len(out):
                    yield out
            seconds, declared = done / self.rate, sound.frames / self.rate
        if is_mp3 and _is_truncated(seconds, declared) and self._ends_with_whole_frame():
            self.notes.append(
                f"shorter than its header declares ({seconds:.0f} of {declared:.0f} s); analyzed to the end of the file"
            )
        else:
            _check_length(seconds, declared)

    def _ends_with_whole_frame(self) -> bool:
        with _readable(self._path, self._file) as file:
            return ends_with_whole_frame(file)


class _DecoderProcess:
    """A file that ffmpeg or audioread decodes, in a process that is killed when this object is released.

    Without ``rate``, samples have the file's own rate, because ffmpeg's resampler takes four times as long as stone's.
    Only Opus gets a rate: it is always at 48 kHz, and from there to the 11,025 Hz of a model, ffmpeg's single step is
    better than stone's two. ffmpeg mixes more than two channels to two, with its own weights.
    """

    channels = 1

    def __init__(self, path: Path, *, rate: int | None = None, check_length: bool = True) -> None:
        self.notes: list[str] = []
        self._check_length = check_length
        try:
            program = _ffmpeg_program()
            is_open = self._open(_ffmpeg_command(program, path, rate))
            if not is_open and not self._log.has_messages:
                _check_program(program)
        except OSError as error:
            is_open = self._open(_audioread_command(path))
            if not is_open and self._log.found_no_backend:
                raise DecoderError(_DECODER_HELP.format(reason(error))) from error
        if not is_open:
            raise AudioError(f"cannot be decoded: {self._log.reason}")

    def _open(self, command: list[str]) -> bool:
        """Start the decoder; False if it found no audio.

        Raises:
            AudioError: the decoder hangs, or the format is out of range.
            OSError: the decoder cannot be started.
        """
        with ExitStack() as process:
            self._output, self._log = process.enter_context(_running(command))
            header = read_wav_header(self._output)
            self._output.check()
            if header is not None:
                self.rate, self._file_channels, bits = header
                _check_format(self._file_channels, self.rate)
                self._type, self._scale = ("<i2", 1 / 32768) if bits == 16 else ("<f4", 1.0)
                self._process = process.pop_all()
        return header is not None

    def read(self, converter: _Converter) -> Iterator[Samples]:
        """As :meth:`_Source.read`."""
        # Both buffers are reused for every block: allocating them would take longer than the arithmetic.
        values = np.empty((_block_frames(self, converter), self._file_channels), dtype=self._type)
        mono = np.empty(len(values), dtype=np.float32)
        mixer = ChannelMixer(self._file_channels, self.rate)
        done, last = 0, False
        with self._process:
            while not last:
                size = self._output.read_into(values)
                last = size < values.nbytes
                if last:
                    self._output.check()
                frames = size // values.strides[0]
                samples = values[:frames].astype(np.float32, copy=False)
                done += frames
                _mean(samples, mixer.signs(samples), mono[:frames])
                if self._scale != 1.0:
                    mono *= np.float32(self._scale)
                out = converter.process(mono[:frames, None], (1,), last=last)
                if len(out):
                    yield out
        if not done:
            raise AudioError(f"cannot be decoded: {self._log.reason}")
        seconds = done / self.rate
        if self._check_length and self._log.audio_duration is not None:
            _check_length(seconds, self._log.audio_duration)
        if self._log.is_partial and self._log.audio_duration is None:
            raise AudioError(f"truncated after {seconds:.1f} s; re-rip or re-download it")
        if self._log.exit_code:
            raise AudioError(f"the decoder failed after {seconds:.1f} s")


def _mean(samples: Samples, signs: Signs, out: Samples) -> None:
    """Write the mean over the channels of [n, channels], each times its sign, to ``out``; stereo exactly as ffmpeg."""
    if samples.shape[1] != 2:
        out[:] = mixed(samples, signs)
        return
    with np.errstate(invalid="ignore", over="ignore"):  # inf - inf, and overflow of float32
        (np.add if signs[0] == signs[1] else np.subtract)(samples[:, 0], samples[:, 1], out=out)
        out *= np.float32(0.5)


def _block_frames(source: _Source, converter: _Converter) -> int:
    """Number of frames that are decoded at a time."""
    size = min(int(BLOCK_SECONDS * source.rate), _BLOCK_VALUES // source.channels)
    return max(1, size // converter.step) * converter.step


class _Output:
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


class _DecoderLog:
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
        return "unknown or damaged format"


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Block SIGINT: in child processes started inside for good, in this thread until the end of the block.

    The child gets its own session only after the fork. A Ctrl-C in between would end it, and its file would look
    damaged.
    """
    if sys.platform == "win32":  # no signal masks
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_DECODER_HELP = (
    DecoderError.START
    + " ({}); install it, or "
    + (
        "unpack the download of stone again"
        if is_download()
        else "reinstall stone's own with `pip install --force-reinstall imageio-ffmpeg`"
    )
)


def _ffmpeg_program() -> str:
    """Path of the ffmpeg in the wheel, or of the one that ``IMAGEIO_FFMPEG_EXE`` names.

    Raises:
        OSError: neither exists.
    """
    import imageio_ffmpeg

    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise FileNotFoundError(errno.ENOENT, "not found") from error


@lru_cache(maxsize=4)
def _check_program(program: str) -> None:
    """Raise unless ``program`` is a working ffmpeg; called after it failed without any message.

    Raises:
        OSError: it is not a working ffmpeg.
    """
    try:
        done = subprocess.run(  # noqa: S603 (the program is the user's own)
            [program, "-version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=SILENT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise OSError(errno.ENOEXEC, f"{program}: does not answer") from error
    if not done.stdout.startswith(b"ffmpeg"):
        raise OSError(errno.ENOEXEC, f"{program}: exit code {done.returncode}")


def _ffmpeg_command(program: str, path: Path, rate: int | None) -> list[str]:
    """The command that decodes ``path`` with ffmpeg to a float32 WAV (at ``rate``) on standard output."""
    resampled = ["-ar", str(rate)] if rate else []
    return [program, *guarded_input(str(path)), *GUARDED_OUTPUT, *resampled, "-c:a", "pcm_f32le", "-f", "wav", "pipe:1"]


def _audioread_command(path: Path) -> list[str]:
    """The command that decodes ``path`` with audioread to a WAV."""
    return module_command("stonecli.audio.other_decoders", str(path.absolute()))


@contextmanager
def _running(command: list[str]) -> Iterator[tuple[_Output, _DecoderLog]]:
    """A running decoder process; it is killed if the block ends early."""
    with _interrupts_blocked():
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
    log = _DecoderLog()
    reader = Thread(target=log.follow, args=(process.stderr,), daemon=True)
    reader.start()
    output = _Output(process, process.stdout)
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
            resource.prlimit(process.pid, resource.RLIMIT_AS, (_FFMPEG_MEMORY, _FFMPEG_MEMORY))


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a decoder and the processes that it started: they form one process group."""
    if process.poll() is not None:
        return
    if sys.platform == "win32":
        process.kill()
    else:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


class _Resampler:
    """Mixes to mono and converts the sample rate as a stream; does not resample if the rates are equal."""

    step = 1

    def __init__(self, rate: int, target: int) -> None:
        self._stream = None if rate == target else soxr.ResampleStream(rate, target, 1, dtype="float32", quality="HQ")

    def process(self, block: Samples, signs: Signs, *, last: bool) -> Samples:
        mono = mixed(block, signs)
        if self._stream is None:
            return mono
        out: Samples = self._stream.resample_chunk(mono, last=last)
        return out


class _Decimator:
    """Mixes to mono, low-pass filters and decimates by ``factor``, in one matrix product on the interleaved samples.

    Each row of the left matrix is ``16 * factor`` frames; the right matrix is banded (Toeplitz). The filter has
    ``16 * factor + 1`` taps, so a row contributes to its own 16 outputs (first 16 columns) and to the 16 outputs of the
    row before (last 16 columns): overlap-add.
    """

    def __init__(self, channels: int, factor: int) -> None:
        self.step = _OUTPUTS * factor
        self._factor = factor
        self._channels = channels
        self._tail = np.zeros(_OUTPUTS, dtype=np.float32)  # overlap-add tail: the last row's part of its own outputs
        self._skip = _OUTPUTS // 2 if factor > 1 else 0  # outputs before the first sample, still to be dropped
        self._frames = self._written = 0

    def process(self, block: Samples, signs: Signs, *, last: bool) -> Samples:
        self._frames += len(block)
        if self._factor == 1:
            return mixed(block, signs)
        if last:
            block = np.concatenate([block, np.zeros((-len(block) % self.step, block.shape[1]), dtype=np.float32)])
        matrix = decimating_matrix(self._channels, self._factor, signs)
        parts = self._product(block, matrix)
        if len(parts) and not -PEAK_LIMIT < float(parts.min()) <= float(parts.max()) < PEAK_LIMIT:
            parts = self._product(finite(block), matrix)
        out = parts[:, _OUTPUTS:].copy()
        out[:1] += self._tail
        out[1:] += parts[:-1, :_OUTPUTS]
        if len(parts):
            self._tail = parts[-1, :_OUTPUTS].copy()
        mono = np.append(out, self._tail) if last else out.ravel()
        mono, self._skip = mono[self._skip :], max(0, self._skip - len(mono))
        if last:  # without the outputs of the padding
            mono = mono[: -(-self._frames // self._factor) - self._written]
        self._written += len(mono)
        return mono

    def _product(self, block: Samples, matrix: Samples) -> Samples:
        """The rows of ``block`` times the matrix: float32 [rows, 2 * 16]."""
        rows = block.reshape(-1, len(matrix))
        out = np.empty((len(rows), matrix.shape[1]), dtype=np.float32)
        # In pieces: OpenBLAS would split a large product among threads, which takes several times as long.
        piece = max(1, _ONE_THREAD // len(matrix))
        whole = len(rows) // piece * piece
        shape = (-1, piece, len(matrix))
        with np.errstate(invalid="ignore", over="ignore"):  # process() checks the result
            np.matmul(rows[:whole].reshape(shape), matrix, out=out[:whole].reshape(-1, piece, out.shape[1]))
            np.matmul(rows[whole:], matrix, out=out[whole:])
        return out


@lru_cache(maxsize=8)
def decimating_matrix(channels: int, factor: int, signs: Signs = ()) -> Samples:
    """The right matrix of :class:`_Decimator`: windowed sinc (Kaiser), float32 [16 * factor * channels, 2 * 16].

    Args:
        channels: number of channels.
        factor: decimation factor.
        signs: sign per channel; empty for +1 in all channels.
    """
    taps = _OUTPUTS * factor + 1
    low_pass = np.sinc((np.arange(taps) - taps // 2) / factor) * np.kaiser(taps, KAISER_BETA)
    low_pass /= low_pass.sum() * channels
    band = np.zeros((2 * _OUTPUTS * factor, _OUTPUTS))
    for output in range(_OUTPUTS):
        band[output * factor : output * factor + taps, output] = low_pass
    both = np.concatenate([band[: _OUTPUTS * factor], band[_OUTPUTS * factor :]], axis=1)
    matrix = np.repeat(both, channels, axis=0).astype(np.float32)
    if -1 in signs:
        matrix *= np.tile(np.array(signs, dtype=np.float32), len(both))[:, None]
    return matrix


def _is_truncated(seconds: float, declared: float) -> bool:
    """Whether a recording is shorter than its declared duration by more than encoder delay and rounding."""
    missing = declared - seconds
    return missing > TRUNCATION_SECONDS and missing > TRUNCATION_TOLERANCE * declared


def _check_length(seconds: float, declared: float) -> None:
    if _is_truncated(seconds, declared):
        raise AudioError(f"truncated ({seconds:.1f} of {declared:.1f} s); re-rip or re-download it")
