"""For commands that process many files: error lines, a progress bar, and output errors that do not stop the run."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Literal, TextIO, cast

from stonecli.cli.common import error_console, fail
from stonecli.cli.streams import UnbrokenStream
from stonecli.library.crates import NAMED_IN

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console
    from rich.progress import Progress

    from stonecli.key import Key, Notation
    from stonecli.library.locations import Location


MAX_ENTRIES = 20  # of playlists and collections that are shown if they fail, and of files with two different keys


class Errors:
    """Shows the files that failed on standard error, one line each, and counts them.

    Of the entries of playlists and collections that cannot be read, only the first ``MAX_ENTRIES`` are shown: if the
    drive with the music is missing, there may be thousands. So are files with two different keys. :meth:`finish` shows
    the number of the others.

    Args:
        console: None for standard error; its console is created with the first line, because importing Rich is slow.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console
        self.count = 0
        self._shown: set[str] = set()
        self._entries = self._two_keys = 0

    @property
    def console(self) -> Console:
        """The console for the lines; that of the progress bar while there is one."""
        if self._console is None:
            self._console = error_console()
        return self._console

    @console.setter
    def console(self, console: Console) -> None:
        self._console = console

    def show(self, path: Location, error: str) -> None:
        """Show and count a file that failed; an error that concerns the whole run is shown once."""
        from stonecli.terminal.table import new_error_text

        self.count += 1
        self._entries += NAMED_IN in error
        if NAMED_IN in error and self._entries > MAX_ENTRIES:
            return
        text = new_error_text(path, error, self._shown)
        if text is not None:
            self.console.print(text, soft_wrap=True)

    def finish(self) -> None:
        """Show how many entries of playlists and collections, and files with two keys, were not shown."""
        hidden, self._entries = self._entries - MAX_ENTRIES, 0
        if hidden > 0:
            what = "entry" if hidden == 1 else "entries"
            self.info(f"{hidden:,} more {what} of playlists or collections cannot be read; is the drive connected?")
        hidden, self._two_keys = self._two_keys - MAX_ENTRIES, 0
        if hidden > 0:
            self.info(f"{hidden:,} more {'file has' if hidden == 1 else 'files have'} two different keys")

    def info(self, text: str) -> None:
        """Show a message about the run."""
        from rich.text import Text

        from stonecli.util.text import printable

        self.console.print(Text(f"stone: {printable(text)}"), soft_wrap=True)

    def note(self, path: Location, text: str) -> None:
        """Show a message about a file that did not fail."""
        from rich.text import Text

        from stonecli.util.text import printable

        self.console.print(Text(f"{printable(str(path))}: {text}"), soft_wrap=True)

    def two_keys(self, path: Location, key: Key, other: Key, notation: Notation) -> None:
        """Show a file that has two different keys, of which the first one counts."""
        self._two_keys += 1
        if self._two_keys <= MAX_ENTRIES:
            self.note(path, f"{different_keys(key, other, notation)}; the first one counts")


def different_keys(key: Key, other: Key, notation: Notation) -> str:
    """The problem of a file that has both keys."""
    return f"two different keys ({key.spelled(notation)} and {other.spelled(notation)})"


def listed_were(paths: Iterable[Path]) -> str:
    """The paths and ``was`` or ``were``, as the start of a sentence."""
    names = [str(path) for path in paths]
    return f"{', '.join(names)} {'was' if len(names) == 1 else 'were'}"


def progress_bar(
    out: Console, err: Console, *, unit: Literal["files", "bytes", "steps"] = "files", hidden: bool = False
) -> Progress:
    """A progress bar below the output, with rate and remaining time; a task may have a description and a ``note``.

    It is hidden if standard error is not a terminal, or if standard output is a pipe, whose rows may appear on the same
    terminal (``| head``).
    """
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.text import Text

    from stonecli.util.text import printable

    class TitleColumn(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(printable(task.description))

    class RateColumn(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.1f} {unit}/s" if task.speed else "")

    class NoteColumn(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(printable(task.fields.get("note", "")))

    return Progress(
        TitleColumn(),
        BarColumn(),
        DownloadColumn() if unit == "bytes" else MofNCompleteColumn(),
        TransferSpeedColumn() if unit == "bytes" else RateColumn(),
        TimeRemainingColumn(compact=True),
        NoteColumn(),
        console=out if out.is_terminal else err,
        transient=True,
        disable=hidden or not (out.is_terminal or (err.is_terminal and (out is err or _is_file(out.file)))),
        redirect_stdout=False,
        redirect_stderr=False,
    )


def _is_file(stream: IO[str]) -> bool:
    """Whether it is a file, or the null device."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(status.st_mode) or os.path.samestat(status, os.stat(os.devnull))  # noqa: PTH116


@contextmanager
def unbroken_output(*, wanted: bool = True) -> Iterator[None]:
    """While open, and if ``wanted``, errors of standard output do not stop the run, so all tags are written.

    A reader that stops early (``| head``) is not an error. After any other error, such as a full disk, the program ends
    with one line when the run is complete.
    """
    if not wanted:
        yield
        return
    before = sys.stdout
    output = UnbrokenStream(before)
    sys.stdout = cast("TextIO", output)
    try:
        yield
        output.flush()
    finally:
        sys.stdout = before
    if output.error is not None and not isinstance(output.error, BrokenPipeError):
        from stonecli.errors import reason

        fail(f"standard output: {reason(output.error)}; all files were processed, but not all results were printed")
