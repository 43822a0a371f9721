"""Lossy codecs at low bit rates: MP3, AAC, Vorbis and Opus with ffmpeg, and GSM (telephone)."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

import imageio_ffmpeg
import numpy as np
import numpy.typing as npt
import pedalboard

from stonecli.errors import StoneError

Floats = npt.NDArray[np.float32]

GSM = "gsm"
_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class Codec:
    """A codec of ffmpeg.

    Attributes:
        encoder, container: names in ffmpeg.
        rate: sampling rate of the encoder, in Hz.
        kilobits: bit rates to draw from, in kbit/s.
        weight: relative probability of being drawn.
    """

    encoder: str
    container: str
    rate: int
    kilobits: tuple[int, ...]
    weight: float


CODECS: dict[str, Codec] = {
    "mp3": Codec("libmp3lame", "mp3", 22050, (24, 32, 40, 48, 56, 64, 80), 0.5),
    "aac": Codec("aac", "adts", 22050, (20, 24, 32, 48, 64), 0.2),
    "opus": Codec("libopus", "ogg", 24000, (8, 12, 16, 24, 32), 0.2),
    "vorbis": Codec("libvorbis", "ogg", 22050, (24, 32, 48), 0.1),
}


def draw_codec(rng: np.random.Generator) -> tuple[str, int]:
    """A random codec: its name in ``CODECS``, and a bit rate in kbit/s."""
    weights = np.array([codec.weight for codec in CODECS.values()])
    name = list(CODECS)[int(rng.choice(len(CODECS), p=weights / weights.sum()))]
    return name, int(rng.choice(CODECS[name].kilobits))


def coded(samples: Floats, rate: int, name: str, kilobits: int) -> Floats:
    """The samples after encoding and decoding, float32 of the same length; GSM ignores ``kilobits``.

    Raises:
        StoneError: ffmpeg failed.
    """
    if name == GSM:
        decoded: Floats = pedalboard.GSMFullRateCompressor()(samples, rate)
    else:
        codec, raw = CODECS[name], ("-f", "f32le", "-ar", str(rate), "-ac", "1")
        encoding = ("-c:a", codec.encoder, "-b:a", f"{kilobits}k", "-ar", str(codec.rate), "-f", codec.container)
        file = _ffmpeg(samples.astype("<f4").tobytes(), *raw, "-i", "pipe:0", *encoding, "pipe:1")
        decoded = np.frombuffer(_ffmpeg(file, "-i", "pipe:0", *raw, "pipe:1"), dtype="<f4")
    out: Floats = np.pad(decoded[: len(samples)], (0, max(0, len(samples) - len(decoded)))).astype(np.float32)
    return out


def _ffmpeg(data: bytes, *arguments: str) -> bytes:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-v", "error", "-threads", "1", *arguments]
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=_TIMEOUT_SECONDS, check=False)  # noqa: S603
    except (OSError, subprocess.SubprocessError) as error:
        raise StoneError(f"ffmpeg: {error}") from error
    if done.returncode:
        raise StoneError(f"ffmpeg failed: {done.stderr.decode(errors='replace')[-200:]}")
    return done.stdout
