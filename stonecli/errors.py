"""The errors that a user can cause, and :func:`describe`, which turns any exception into one line for the user.

* StoneError
  x AudioError: the file cannot be decoded.
    - DecoderError: no decoder for its format can be started here.
  x TagError: the tags cannot be read or written.
  x JournalError: the undo journal cannot be used.
  x ModelError: the model cannot be used.
  x DeviceError: the device is not available.
  x WebError: a server cannot be used safely.
  x DownloadError: a model could not be downloaded.
  x StorageError: a recording could not be downloaded.
  x ClusterError: the cluster cannot be used.
    - RefusalError: a worker cannot do the run.
  x CrateError: a playlist or a collection cannot be read.
  x LabelsError: a CSV of labels or predictions is invalid.
  x DatasetError: a dataset is unknown or has no audio with a key.
  x ConfigError: the config file is invalid.
  x OutputError: a file that exists cannot be continued.
  x PlotError: plots need a package that is not installed.
  x Cancelled: the caller asked for an early end.

Library functions raise them where the cause is known, without the name of the file. ``train`` and ``export`` add errors
of their own.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_LINE = 400  # characters; some libraries put whole arrays into their messages
_WINDOWS_MISSING = (2, 3)  # error codes: no such file, no such path


class StoneError(Exception):
    """Base class of all expected errors; ``str(error)`` is one line for the user, without the name of the file."""


class AudioError(StoneError):
    """The file cannot be decoded as audio."""


class DecoderError(AudioError):
    """No decoder for this format can be started on this machine: the file may be valid."""

    START = "ffmpeg cannot be started"


class TagError(StoneError):
    """The tags of the file cannot be read or written; the file is unchanged."""


class JournalError(StoneError):
    """The undo journal cannot be used; without it nothing is written."""


class ModelError(StoneError):
    """The model file cannot be used."""


class DeviceError(StoneError):
    """The requested device is not available."""


class WebError(StoneError):
    """The URL cannot be opened, or the server does something that is not allowed."""


class DownloadError(StoneError):
    """The file could not be downloaded; no part of it was used."""


class StorageError(StoneError):
    """The recording cannot be downloaded from its URL."""


class ClusterError(StoneError):
    """The cluster cannot be used, or does not answer any more."""


class RefusalError(ClusterError):
    """This worker, or the cluster with its configuration, cannot do the run."""


class CrateError(StoneError):
    """A playlist or a collection that cannot be read."""


class LabelsError(StoneError):
    """A CSV of labels or predictions that cannot be used; the message names the line."""


class DatasetError(StoneError):
    """A dataset is unknown, or contains no audio with a key."""


class ConfigError(StoneError):
    """The config file cannot be used; it was not changed."""


class OutputError(StoneError):
    """An output file that exists cannot be continued."""


class PlotError(StoneError):
    """matplotlib is not installed."""


class Cancelled(StoneError):
    """The caller asked for an early end; nothing was changed."""


def describe(error: BaseException, *, with_path: bool = False) -> str:
    """One printable line of at most 400 characters that says what is wrong.

    Expected errors (StoneError, OSError) are described by their message; any other is called unexpected and named by
    its class. With ``with_path``, the line starts with the path that the error is about, if it has one (``filename``).
    """
    from concurrent.futures import BrokenExecutor

    name = type(error).__name__
    if isinstance(error, KeyboardInterrupt):
        line = "interrupted"
    elif isinstance(error, BrokenExecutor) or name == "KilledWorker":  # the second is an error of distributed
        line = "a worker died"
    elif isinstance(error, StoneError | OSError):
        line = reason(error)
    else:
        text = reason(error)
        line = f"unexpected {name}" + (f": {text}" if text != name else "")
    path = getattr(error, "filename", None) if with_path else None
    return f"{_printable(os.fsdecode(path))}: {line}" if path else line


def reason(error: BaseException) -> str:
    """The message of an exception as one printable line of at most 400 characters; its class if it has no message.

    An OSError is described without its path.
    """
    try:
        text = str(error.strerror if isinstance(error, OSError) and error.strerror else error)
    except Exception:  # a bug in the exception's own __str__
        text = ""
    if isinstance(error, OSError) and text == error.strerror:
        if text == os.strerror(errno.ENOENT) or getattr(error, "winerror", None) in _WINDOWS_MISSING:
            return "no such file or folder"
        if text[1:2].islower():  # the system's messages start with a capital letter
            text = text[0].lower() + text[1:]
    if not isinstance(error, StoneError):  # whose messages are one line, apart from untrusted names in them
        text = " ".join(text.split())
    return _printable(text.strip()) or type(error).__name__


def concerns_the_run(error: str) -> bool:
    """Whether an error line would be the same for every file of its kind, so that showing it once is enough."""
    return error.startswith(DecoderError.START)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Inside the block, an OSError names ``path``, which the user knows, and no other path: a full disk names none."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise


def _printable(text: str) -> str:
    """``text``, short, with everything that a terminal could interpret or hide shown as an escape."""
    text = text[: MAX_LINE + 1]
    text = "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)
    return text if len(text) <= MAX_LINE else text[: MAX_LINE - 1] + "…"
