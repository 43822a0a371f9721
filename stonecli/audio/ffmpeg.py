"""The formats that libsndfile cannot read, decoded by ffmpeg or, if there is none, by audioread."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path

import numpy as np

from stonecli.audio.channels import ChannelMixer, Samples, Signs, mixed
from stonecli.audio.decoder_process import SILENT_SECONDS, running
from stonecli.audio.other_decoders import GUARDED_OUTPUT, guarded_input, read_wav_header
from stonecli.audio.source import Converter, block_frames, check_format, check_length
from stonecli.errors import AudioError, DecoderError, reason
from stonecli.util.installation import is_download, module_command

_DECODER_HELP = (
    DecoderError.START
    + " ({}); install it, or "
    + (
        "unpack the download of stone again"
        if is_download()
        else "reinstall stone's own with `pip install --force-reinstall imageio-ffmpeg`"
    )
)


class ProcessSource:
    """A file that ffmpeg or audioread decodes, in a process that is killed when this object is released.

    Without ``rate``, samples have the file's own rate, because ffmpeg's resampler takes four times as long as stone's.
    Only Opus gets a rate: it is always at 48 kHz, and from there to the 11,025 Hz of a model, ffmpeg's single step is
    better than stone's two. ffmpeg mixes more than two channels to two, with its own weights.
    """

    channels = 1

    def __init__(self, path: Path, *, rate: int | None = None, check_length: bool = True) -> None:
        self.notes: list[str] = []
        self.check_length = check_length
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
            self._output, self._log = process.enter_context(running(command))
            header = read_wav_header(self._output)
            self._output.check()
            if header is not None:
                self.rate, self._file_channels, bits = header
                check_format(self._file_channels, self.rate)
                self._type, self._scale = ("<i2", 1 / 32768) if bits == 16 else ("<f4", 1.0)
                self._process = process.pop_all()
        return header is not None

    def read(self, converter: Converter) -> Iterator[Samples]:
        """As :meth:`Source.read`."""
        # Both buffers are reused for every block: allocating them would take longer than the arithmetic.
        values = np.empty((block_frames(self, converter), self._file_channels), dtype=self._type)
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
        if self.check_length and self._log.audio_duration is not None:
            check_length(seconds, self._log.audio_duration)
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
