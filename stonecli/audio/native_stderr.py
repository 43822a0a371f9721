"""Keep the messages of libmpg123, with which libsndfile decodes MP3, off the user's standard error.

The library writes them to file descriptor 2, and libsndfile offers no way to turn them off. The ``stone`` command
redirects that descriptor for its whole run (``cli.common.silence_native_stderr``). The Python API and the beets plugin
run inside another program. There the descriptor leads to a temporary file only while libsndfile opens or reads
an MP3, and whatever is not libmpg123's, such as a line that another thread logs meanwhile, is copied to the real
standard error at the end of that call. Only a process that another thread starts during the call keeps the temporary
file as its standard error.
"""

from __future__ import annotations

import atexit
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

_MESSAGES = (
    rb"^(?:"
    rb"\[src/libmpg123/"
    rb"|Note: (?:Illegal Audio-MPEG|Trying to resync|Skipp|Hit end of|Junk at|Looks like a RIFF|Could be a BMP)"
    rb"|Note: (?:Xing|Info|ID3|RVA|Input data end|missing \d+ bytes|broken frame|free format frame|Cut frame)"
    rb"|\n?Warning: (?:Xing stream|Encountered more data|Big change|Real sample count)"
    rb").*\n?"
)
_MAX_FILE = 1 << 20  # bytes, after which the file is truncated and reused
_CAN_READ_ANYWHERE = hasattr(os, "pread")  # not on Windows; there, everything is copied when the last call ends


class _Redirection:
    """Redirects descriptor 2 to a temporary file while at least one caller needs it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callers = 0
        self._real = -1
        self._file: IO[bytes] | None = None
        self._copied = 0  # bytes of the file that were copied to standard error or dropped
        self.is_needed = True

    def start(self) -> bool:
        """Redirect for one caller; False if there is no standard error, or no temporary file can be made."""
        with self._lock:
            if not self._callers:
                import tempfile

                try:
                    if self._file is None:
                        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (kept for the next call)
                        atexit.register(self.flush)
                    elif self._copied > _MAX_FILE:
                        self._copy()
                        os.ftruncate(self._file.fileno(), 0)
                        os.lseek(self._file.fileno(), 0, os.SEEK_SET)
                        self._copied = 0
                    self._real = os.dup(2)
                    os.dup2(self._file.fileno(), 2)
                except OSError:
                    return False
            self._callers += 1
            return True

    def end(self) -> None:
        """End the redirection for one caller, and copy the lines that are not from libmpg123."""
        with self._lock:
            self._callers -= 1
            if not self._callers:
                os.dup2(self._real, 2)
            if not self._callers or _CAN_READ_ANYWHERE:
                with suppress(OSError):  # standard error is a closed pipe
                    self._copy()
            if not self._callers:
                os.close(self._real)

    def flush(self) -> None:
        """Copy lines that a thread wrote late: its write started before descriptor 2 was restored."""
        with self._lock:
            if not self._callers and self._file is not None:
                with suppress(OSError):
                    self._copy()

    def after_fork(self) -> None:
        """Restore standard error in a forked child, in which no caller runs."""
        self._lock = threading.Lock()
        if self._callers:
            os.dup2(self._real, 2)
            os.close(self._real)
            self._callers = 0
        self._file, self._copied = None, 0  # the file belongs to the parent

    def _copy(self) -> None:
        assert self._file is not None  # noqa: S101 (for the type checker)
        descriptor = self._file.fileno()
        size = os.fstat(descriptor).st_size
        if size > self._copied:
            if sys.platform != "win32" and _CAN_READ_ANYWHERE:
                text = os.pread(descriptor, size - self._copied, self._copied)
            else:
                os.lseek(descriptor, self._copied, os.SEEK_SET)
                text = os.read(descriptor, size - self._copied)
            self._copied += len(text)
            rest = re.sub(_MESSAGES, b"", text, flags=re.MULTILINE)
            while rest:
                rest = rest[os.write(self._real if self._callers else 2, rest) :]


_redirection = _Redirection()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_redirection.after_fork)


def stop_redirecting() -> None:
    """Turn :func:`libmpg123_silenced` off for good: the program discards the output of C libraries already."""
    _redirection.is_needed = False


@contextmanager
def libmpg123_silenced(is_mp3: bool = True) -> Iterator[None]:
    """Drop the messages of libmpg123 inside the block. Any number of threads may be inside at a time.

    Args:
        is_mp3: if False, do nothing. The environment variable ``STONE_DEBUG`` has the same effect.
    """
    is_needed = is_mp3 and _redirection.is_needed and not os.environ.get("STONE_DEBUG")
    if not is_needed or not _redirection.start():
        yield
        return
    try:
        yield
    finally:
        _redirection.end()
