"""Decode any music file to blocks of mono float32 samples at a low rate, in bounded memory.

Three decoders are tried. The content of the file decides which, never its name:

1. libsndfile (``soundfile``) decodes WAV, AIFF, FLAC, Ogg Vorbis, MP3 and similar formats.
2. The ffmpeg in the ``imageio-ffmpeg`` wheel decodes the rest (AAC and ALAC in M4A, WMA, WavPack, Monkey's Audio), and
   Opus, for which libsndfile takes twice as long. It runs in a process of its own, so a crafted file cannot harm stone.
3. If that ffmpeg is missing or does not start, audioread decodes with the decoders of the system
   (``stonecli.audio.other_decoders``), also in a process of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import soundfile

from stonecli.audio.channels import Samples
from stonecli.audio.convert import Decimator, StreamResampler
from stonecli.audio.declared_durations import has_zero_length, is_chained_ogg, is_mp3_without_length
from stonecli.audio.ffmpeg import ProcessSource
from stonecli.audio.libsndfile import LibsndfileSource, open_sound
from stonecli.audio.source import Source, readable
from stonecli.errors import AudioError

_UNKNOWN_FRAMES = 1 << 62  # libsndfile declares the largest number if it does not know the length


def read_audio(path: str | os.PathLike[str], sample_rate: int) -> Iterator[Samples]:
    """The recording as mono blocks at ``sample_rate``, each float32 [n], n > 0, full scale 1.0.

    Channels are averaged, or subtracted if they are out of phase. NaN and infinity are replaced by zero.

    Raises:
        AudioError: the file contains no audio that can be decoded, or is truncated.
        DecoderError: no decoder for this format can be started on this machine.
        OSError: the file cannot be read.
    """
    source = _open(Path(path), sample_rate)
    yield from source.read(StreamResampler(source.rate, sample_rate))


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
    return Audio(source.rate / factor, source.read(Decimator(source.channels, factor)), source.notes)


def _open(path: Path, target: int, file: BinaryIO | None = None) -> Source:
    with readable(path, file) as content:
        has_no_length = _check_content(content)
        sound = None if has_no_length else open_sound(path)
        if sound is None:
            return ProcessSource(path, check_length=not has_no_length)
        if sound.subtype == "OPUS":
            sound.close()
            return ProcessSource(path, rate=target)
        if _is_cut_short(content, sound):
            sound.close()
            return ProcessSource(path, check_length=False)
        return LibsndfileSource(path, sound, file)


def _is_cut_short(file: BinaryIO, sound: soundfile.SoundFile) -> bool:
    """Whether libsndfile would stop before the end of the file, or does not know its length."""
    if sound.frames > _UNKNOWN_FRAMES:
        return True
    if sound.format == "OGG":
        return is_chained_ogg(file)
    return sound.format == "MP3" and is_mp3_without_length(file)


def _check_content(file: BinaryIO) -> bool:
    """Whether the file declares a length of zero.

    Raises:
        AudioError: the file is empty or truncated.
        OSError: the file cannot be read.
    """
    file.seek(0)
    if not file.read(1):
        raise AudioError("the file is empty; re-rip or re-download it")
    return has_zero_length(file)
