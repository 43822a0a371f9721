"""WAV, AIFF, FLAC, Ogg Vorbis, MP3 and similar formats, read by libsndfile (``soundfile``)."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from stonecli.audio.channels import ChannelMixer, Samples
from stonecli.audio.declared_durations import ends_with_whole_frame
from stonecli.audio.native_stderr import libmpg123_silenced
from stonecli.audio.source import Converter, block_frames, check_format, check_length, is_truncated, readable
from stonecli.errors import AudioError


class _SoundFile(soundfile.SoundFile):  # type: ignore[misc]
    """A file that is read once from start to end.

    In seekable files ``soundfile`` seeks to the current position after each read, which decodes MP3 frames again.
    """

    def seekable(self) -> bool:
        return False


def open_sound(path: Path) -> soundfile.SoundFile | None:
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


class LibsndfileSource:
    """A file that libsndfile has opened."""

    def __init__(self, path: Path, sound: soundfile.SoundFile, file: BinaryIO | None) -> None:
        self.rate: int = sound.samplerate
        self.channels: int = sound.channels
        self.notes: list[str] = []
        self._path = path
        self._file = file
        self._sound = sound
        try:
            check_format(self.channels, self.rate)
        except AudioError:
            sound.close()
            raise

    def read(self, converter: Converter) -> Iterator[Samples]:
        """As :meth:`Source.read`. Stops at the declared end, because libFLAC fails at a tag after the audio."""
        buffer = np.empty((block_frames(self, converter), self.channels), dtype=np.float32)
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
        if is_mp3 and is_truncated(seconds, declared) and self._ends_with_whole_frame():
            self.notes.append(
                f"shorter than its header declares ({seconds:.0f} of {declared:.0f} s); analyzed to the end of the file"
            )
        else:
            check_length(seconds, declared)

    def _ends_with_whole_frame(self) -> bool:
        with readable(self._path, self._file) as file:
            return ends_with_whole_frame(file)
