"""The output of ``stone tag`` and ``stone watch``: table or JSON, errors, progress bar, output files."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import typer

from stonecli.cli.common import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    fail,
    fail_without_music,
    output_console,
    print_json,
)
from stonecli.cli.running import Errors, different_keys, listed_were, progress_bar, unbroken_output
from stonecli.key import Notation

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from stonecli.jobs import Outcome
    from stonecli.library.locations import Location, Seen
    from stonecli.model.session import KeyModel
    from stonecli.output.results import Results
    from stonecli.output.sinks import Outputs, Targets
    from stonecli.tagging import TagOptions, TagResult, TagSummary
    from stonecli.terminal.table import TagTable


_DETECTING = {"detected", "incomplete", "tempo missing", "written", "kept", "unreadable key", "no key", "unsure"}
_REMOVING = {"removable", "removed"}


@dataclass(frozen=True)
class OutputMode:
    """How results are printed.

    Attributes:
        as_json: one JSON object per file instead of a table.
        quiet: print only errors.
        verbose: print details to standard error, too.
    """

    as_json: bool = False
    quiet: bool = False
    verbose: bool = False


class TagScreen:
    """A context manager that prints the result of each file and adds it to the output files.

    Args:
        mode: how results are printed.
        options: options of the run.
        notation: notation of the keys.
        targets: the files to write.
        model: the model that detects the keys; None if nothing is analyzed.
        roots: the searched paths; the table shows file names relative to them.
        collection: the rekordbox XML that ``targets.rekordbox`` writes again with the keys.
        playlist_name: the playlist of the collection that is processed; None for all of it.
        table: prints the results; None for the table of ``stone tag``.
        resume: skip files that ``targets.output`` already has, and append the others to it.
    """

    def __init__(
        self,
        mode: OutputMode,
        options: TagOptions,
        notation: Notation,
        targets: Targets,
        model: KeyModel | None,
        roots: Sequence[Location] = (),
        *,
        collection: Path | None = None,
        playlist_name: str | None = None,
        table: type[TagTable] | None = None,
        resume: bool = False,
    ) -> None:
        from stonecli.terminal.table import TagTable

        self._mode = mode
        self._options = options
        self._notation = notation
        self._targets = targets
        self._model = model
        self._collection = collection
        self._playlist_name = playlist_name
        self._resume = resume
        self._console = output_console()
        self._table = (table or TagTable)(self._console, roots, notation, bpm=options.bpm)
        self._shows_table = not mode.as_json and not mode.quiet
        self._started = time.monotonic()
        self._results: Results | None = None
        self.errors = Errors()

    def __enter__(self) -> TagScreen:
        from stonecli.output.results import results_at

        with ExitStack() as stack:
            writes_files = self._options.write or any(vars(self._targets).values())
            stack.enter_context(unbroken_output(wanted=writes_files))
            if self._resume and self._targets.output:
                self._results = stack.enter_context(results_at(self._targets.output, bpm=self._options.bpm))
                self._check_results(self._results)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    @property
    def skipped(self) -> Seen | None:
        """The files that are skipped because the output contains them already."""
        return self._results.seen if self._results else None

    def start(self, locations: Sequence[Location] | None = None, *, with_progress: bool = True) -> None:
        """Print the header and show the progress bar. ``locations`` are the files, None if they are not known yet."""
        from stonecli.output.sinks import Outputs, Targets

        targets = self._targets
        if locations is not None and not locations:  # no empty page in place of the one of another library
            is_respelled = self._options.convert and self._collection is not None  # this needs no music
            targets = Targets(rekordbox=targets.rekordbox) if is_respelled else Targets()
        paths = [path for name, path in vars(self._targets).items() if path != getattr(targets, name)]
        if paths:
            self.errors.info(f"{listed_were(paths)} not saved, because there is no music to process")
        outputs = Outputs(
            targets,
            self._notation,
            self._model,
            self._results,
            bpm=self._options.bpm,
            collection=self._collection,
            playlist_name=self._playlist_name,
            respell=self._options.convert,
            overwrite=self._options.overwrite,
        )
        self._stack.callback(self._show_kept, outputs)  # called after the exit of the outputs
        self._outputs = self._stack.enter_context(outputs)
        if self._mode.verbose and locations is not None:
            self._print_details(len(locations))
        if self._shows_table and (locations is None or locations):
            self._table.header(locations or ())
        hidden = self._mode.quiet or not with_progress
        progress = self._stack.enter_context(progress_bar(self._console, self.errors.console, hidden=hidden))
        if with_progress and self._console.is_terminal and self.errors.console.is_terminal:
            self.errors.console = progress.console  # otherwise error lines and the bar would overlap
        bar = progress.add_task("", total=None if locations is None else len(locations))
        self._advance = partial(progress.advance, bar)

    def start_cluster(self, threads: int) -> None:
        """As :meth:`start`, on a cluster with this many threads."""
        if not threads:
            self.info("the cluster has no workers yet; waiting for them")
        model = f"analyzed by {self._model.name} ({self._model.sha256[:12]}) " if self._model else ""
        self.detail(f"{model}on a cluster of {threads} threads")
        self.start()

    def advance(self) -> None:
        """Move the progress bar by one file."""
        self._advance()

    def show(self, outcome: Outcome[Location, TagResult]) -> None:
        """Print the result or the error of one file."""
        location, result, error = outcome.item, outcome.result, outcome.error
        record = self._outputs.note(location, result, error)
        if self._mode.as_json:
            print_json(record)
        if result is not None and self._shows_table:
            self._table.row(result)
        if result is not None and result.estimate is not None and not self._mode.quiet:
            for note in result.estimate.notes:
                self.errors.note(location, note)
        if result is not None and self._options.convert and result.status == "unreadable key":
            self.errors.note(location, f"not a key: {(result.old_text or '')[:40]!r}; left as it is")
        if result is not None and result.old_key is not None and result.other_key is not None:
            if result.status == "different keys":
                problem = different_keys(result.old_key, result.other_key, self._notation)
                self.errors.note(location, f"{problem}; left as it is")
            elif not self._mode.quiet and not self._options.overwrite:  # otherwise neither of them counts
                self.errors.two_keys(location, result.old_key, result.other_key, self._notation)
        if error is not None:
            self.errors.show(location, error)

    def info(self, text: str) -> None:
        """Print a message to standard error, except with --quiet."""
        if not self._mode.quiet:
            self.errors.info(text)

    def detail(self, text: str) -> None:
        """Print a message to standard error with --verbose."""
        if self._mode.verbose:
            self.errors.info(text)

    def finish(self, summary: TagSummary) -> None:
        """Call this at the end of the block: an interrupted run leaves existing output files as they are."""
        self._outputs.is_unfinished = summary.interrupted

    def summarize(self) -> None:
        """Print the last lines of the notes and of the table."""
        self.errors.finish()
        if self._shows_table:
            self._table.summary(self.errors.count, self._options.write)

    def end(self, summary: TagSummary, names: Sequence[str]) -> None:
        """Print the last lines, and end the program with an exit code if not all is well.

        Args:
            summary: the result of the run.
            names: names of the searched paths.
        """
        if not summary.files and not summary.interrupted and not (self._results and len(self._results.seen)):
            fail_without_music(names)
        self.summarize()
        self.detail(f"{time.monotonic() - self._started:.1f} s, {summary.failed} failed")
        if summary.interrupted:
            fail("interrupted; the files shown above are done", EXIT_INTERRUPTED)
        if summary.failed:
            raise typer.Exit(EXIT_FAILED)

    def _show_kept(self, outputs: Outputs) -> None:
        if outputs.kept:
            self.errors.info(f"{listed_were(outputs.kept)} not replaced, because the run did not finish")

    def _print_details(self, count: int) -> None:
        from stonecli.jobs import default_jobs

        model = self._model
        by = f", model {model.name} ({model.sha256[:12]}), device {model.device}" if model else ""
        jobs = self._options.jobs or default_jobs()
        self.detail(f"{count} {'file' if count == 1 else 'files'}, {jobs} in parallel{by}")

    def _check_results(self, results: Results) -> None:
        """Wrong usage if the output is from another kind of run, because its files would be skipped."""
        output = self._targets.output
        if self._options.write and results.statuses & {"detected", "incomplete", "tempo missing", "removable"}:
            fail(f"{output} contains a preview, whose files would be skipped; choose another --output", EXIT_USAGE)
        if results.statuses & (_DETECTING if self._options.remove else _REMOVING):
            kind = "without" if self._options.remove else "with"
            fail(
                f"{output} is from a run {kind} --remove, whose files would be skipped; choose another --output",
                EXIT_USAGE,
            )
        if len(results.seen):
            self.info(f"skipping {len(results.seen)} files that are already in {output}")
