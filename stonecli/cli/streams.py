"""Standard output and standard error that cannot be written: a closed pipe, a full disk."""

from __future__ import annotations

import os
from typing import Any, TextIO


class UnbrokenStream:
    """A standard stream whose errors do not stop the run; after the first error, output goes to the null device.

    Attributes:
        error: the first error; None if there was none.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._discard(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._discard(error)

    def _discard(self, error: OSError) -> None:
        self.error = self.error or error
        discard_output(self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def discard_output(descriptor: int) -> None:
    """Redirect a file descriptor, including buffered output, to the null device."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)
