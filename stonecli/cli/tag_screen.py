"""What ``stone tag`` shows while it goes through the files: table or JSON, errors, progress."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import typer

from stonecli.cli.common import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    error_console,
    fail,
    output_console,
    print_json,
)
from stonecli.cli.running import Errors, progress_bar
from stonecli.key import Notation

if TYPE_CHECKING:
    from pathlib import Path

    from stonecli.output.resumable import Results
    from stonecli.output.sinks import Outputs
    from stonecli.remote.locations import Place
    from stonecli.tagging import TagResult


_HEARS = {"detected", "incomplete", "written", "kept", "unreadable key", "no key", "unsure"}
_REMOVES = {"removable", "removed"}


@dataclass(frozen=True)
class Manner:
    """How much is printed, and for whom."""

    as_json: bool
    quiet: bool
    verbose: bool


class TagScreen:
    """Shows each file, in the manner that was asked for, and writes it to the outputs.

    Args:
        manner: how much.
        roots: what the files are found below; the table shows their names from there.
        notation: of keys.
        write: whether tags are written, for the last line.
    """

    def __init__(self, manner: Manner, roots: Sequence[Place], notation: Notation, write: bool) -> None:
        from stonecli.terminal.table import TagTable

        self._manner = manner
        self._write = write
        self._console = output_console()
        self._table = TagTable(self._console, roots, notation)
        self._shows_table = not manner.as_json and not manner.quiet
        self._started = time.monotonic()
        self.errors = Errors(error_console())

    @contextmanager
    def opened(self, outputs: Outputs, places: Sequence[Place] | None) -> Iterator[None]:
        """While open, files can be shown: those at ``places``, or None where they are not known yet."""
        self._outputs = outputs
        total = None if places is None else len(places)
        if self._shows_table and total != 0:
            self._table.header(places or ())
        with progress_bar(self._console, self.errors.console, hidden=self._manner.quiet) as progress:
            if self._console.is_terminal and self.errors.console.is_terminal:
                self.errors.console = progress.console  # one screen: an error line goes above the bar, not through it
            bar = progress.add_task("", total=total)
            self._advance = partial(progress.advance, bar)
            yield

    def advance(self) -> None:
        """Count one file that is done."""
        self._advance()

    def show(self, place: Place, result: TagResult | None, error: str | None) -> None:
        """Show one file."""
        record = self._outputs.note(place, result, error)
        if self._manner.as_json:
            print_json(record)
        if result is not None and self._shows_table:
            self._table.row(result)
        if result is not None and result.estimate is not None and not self._manner.quiet:
            for note in result.estimate.notes:
                self.errors.note(place, note)
        if error is not None:
            self.errors.show(place, error)

    def going_on(self, results: Results, output: Path, *, remove: bool) -> None:
        """Say what is in ``output`` already, and is passed over; wrong usage if that is of a run of another kind."""
        if self._write and results.statuses & {"detected", "incomplete", "removable"}:
            fail(f"{output} contains a preview, whose files would be skipped; choose another --output", EXIT_USAGE)
        if results.statuses & (_HEARS if remove else _REMOVES):
            kind = "without" if remove else "with"
            fail(
                f"{output} is from a run {kind} --remove, whose files would be skipped; choose another --output",
                EXIT_USAGE,
            )
        if len(results.seen):
            self.tell(f"skipping {len(results.seen)} files that are already in {output}")

    def tell(self, text: str) -> None:
        """Say on standard error what is worth knowing, unless nothing but errors was asked for."""
        if not self._manner.quiet:
            self.errors.remark(text)

    def remark(self, text: str) -> None:
        """Say on standard error what goes on, if that was asked for."""
        if self._manner.verbose:
            self.errors.remark(text)

    def end(self, *, interrupted: bool) -> None:
        """Sum up, and leave with the exit code that says how it went."""
        if self._shows_table:
            self._table.summary(self.errors.count, self._write)
        self.remark(f"{time.monotonic() - self._started:.1f} s, {self.errors.count} failed")
        if interrupted:
            fail("interrupted; the files shown above are done", EXIT_INTERRUPTED)
        if self.errors.count:
            raise typer.Exit(EXIT_FAILED)
