"""An open recording, whichever decoder reads it: its interface, its limits, and the check of its length."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from stonecli.audio.channels import Samples, Signs
from stonecli.audio.declared_durations import TRUNCATION_TOLERANCE
from stonecli.errors import AudioError

BLOCK_SECONDS = 4.0
MAX_CHANNELS = 64
MIN_RATE, MAX_RATE = 1_000, 1_000_000
TRUNCATION_SECONDS = 0.5  # missing audio that is tolerated: encoder delay, rounded durations
_BLOCK_VALUES = 1 << 21  # max. samples decoded at a time, all channels counted: 8 MB


class Converter(Protocol):
    """Converts blocks of samples to mono at another rate; all blocks but the last are multiples of ``step`` long."""

    step: int

    def process(self, block: Samples, signs: Signs, *, last: bool) -> Samples:
        """The samples that ``block`` [n, channels] completes, float32 [n]; all remaining ones if ``last``."""


class Source(Protocol):
    """An open file: the sample rate and the number of channels that :meth:`read` passes to its converter."""

    rate: int
    channels: int
    notes: list[str]

    def read(self, converter: Converter) -> Iterator[Samples]:
        """The whole recording, converted. Call it once. Errors as :func:`read_audio`."""


@contextmanager
def readable(path: Path, file: BinaryIO | None) -> Iterator[BinaryIO]:
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


def check_format(channels: int, rate: int) -> None:
    """Raise AudioError if there are too many channels, or the rate is out of range."""
    if not (0 < channels <= MAX_CHANNELS and MIN_RATE <= rate <= MAX_RATE):
        raise AudioError(f"unsupported format: {channels} channels at {rate} Hz")


def block_frames(source: Source, converter: Converter) -> int:
    """Number of frames that are decoded at a time."""
    size = min(int(BLOCK_SECONDS * source.rate), _BLOCK_VALUES // source.channels)
    return max(1, size // converter.step) * converter.step


def is_truncated(seconds: float, declared: float) -> bool:
    """Whether a recording is shorter than its declared duration by more than encoder delay and rounding."""
    missing = declared - seconds
    return missing > TRUNCATION_SECONDS and missing > TRUNCATION_TOLERANCE * declared


def check_length(seconds: float, declared: float) -> None:
    """Raise AudioError if the recording is truncated."""
    if is_truncated(seconds, declared):
        raise AudioError(f"truncated ({seconds:.1f} of {declared:.1f} s); re-rip or re-download it")
