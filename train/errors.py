"""Errors of training, with the file that they are about, and the one-line message that a command prints."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stonecli.errors import StoneError, describe


class ArgumentsError(StoneError):
    """The arguments of a call contradict each other."""


class DataError(StoneError):
    """The training data is missing or invalid."""


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Set ``filename`` of errors raised inside to the file that they are about, as for an OSError."""
    try:
        yield
    except StoneError as error:
        vars(error).setdefault("filename", str(path))
        raise


def message(error: Exception) -> str:
    """One printable line for the user: the file that the error is about, where it says so, and what is wrong."""
    return describe(error, with_path=True)
