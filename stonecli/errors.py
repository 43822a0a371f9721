"""The errors that a user can cause, each with one line that says what and why.

Library functions raise them where the cause is known; ``engine`` and ``cli`` turn them into one line and an exit code.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class StoneError(Exception):
    """Base of every expected error; ``str(error)`` is one line for the user, without the file's name."""


class AudioError(StoneError):
    """The file cannot be decoded as audio."""


class DecoderError(AudioError):
    """No decoder for this kind of file can be started on this machine: not the file's fault."""

    START = "ffmpeg cannot be started"


def concerns_the_run(error: str) -> bool:
    """Whether an error line would be the same for every file of its kind, so that showing it once is enough."""
    return error.startswith(DecoderError.START)


class Cancelled(StoneError):
    """The caller asked for an early end; nothing was changed."""


class ModelError(StoneError):
    """The model file cannot be used."""


class DeviceError(StoneError):
    """The requested device is not there."""


class TagError(StoneError):
    """The file's tags cannot be read or written; the file is as it was."""


class JournalError(StoneError):
    """The undo journal cannot be used; without it nothing is written."""


class StorageError(StoneError):
    """The file cannot be fetched from where it is."""


class ClusterError(StoneError):
    """The cluster cannot be used, or is there no more."""


class OutputError(StoneError):
    """What is there already cannot be gone on with."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """While open, an OSError names ``path``, which the user knows, and no other: a full disk names none."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise
