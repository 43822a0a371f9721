"""``stone undo``: take back what a run has written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stonecli.cli.common import (
    EXIT_FAILED,
    EXIT_USAGE,
    error_console,
    fail,
    one_line_errors,
    output_console,
    print_json,
)

if TYPE_CHECKING:
    from pathlib import Path

    from stonecli.tags.journal import Run, UndoJournal


@one_line_errors
def undo(
    run: Annotated[int | None, typer.Argument(metavar="[RUN]", help="By its number; else the last one.")] = None,
    list_runs: Annotated[bool, typer.Option("--list", "-l", help="Show the runs that can be taken back.")] = False,
    preserve_mtime: Annotated[
        bool, typer.Option("--preserve-mtime/--no-preserve-mtime", help="Keep the modification time of the files.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a file, or a run.")] = False,
) -> None:
    """Take back what a run of stone tag --write-tags has changed: each file is again, byte for byte, what it was.

    A file that was changed since is left as it is and named.
    """
    if list_runs and run is not None:
        raise typer.BadParameter("shows all runs", param_hint="--list")

    from stonecli.tags.gathered import gather
    from stonecli.tags.journal import UndoJournal

    journal = UndoJournal()
    try:
        gather(journal)  # what workers of a cluster have written since
        if list_runs:
            _show(journal.runs(), as_json)
        elif _take_back(journal, run, preserve_mtime, as_json):
            raise typer.Exit(EXIT_FAILED)
    finally:
        journal.close()


def _take_back(journal: UndoJournal, number: int | None, preserve_mtime: bool, as_json: bool) -> int:
    """Take the run back and show each file; how many could not be."""
    from stonecli.tags.runs import take_back_run

    if number is None:
        number = journal.last_run()
        if number is None:
            fail("nothing to take back")
    elif number not in {run.number for run in journal.runs()}:
        fail(f"no run {number}; stone undo --list shows the runs", EXIT_USAGE)
    out, err = output_console(), error_console()
    restored = failed = 0
    for undone in take_back_run(journal, number, preserve_mtime=preserve_mtime):
        if as_json:
            status = "restored" if undone.error is None else "error"
            print_json({"path": str(undone.path), "status": status, "error": undone.error})
        if undone.error is None:
            restored += 1
            if not as_json:
                _line(undone.path, "restored", out.is_terminal)
        else:
            from stonecli.report.table import error_text

            failed += 1
            err.print(error_text(undone.path, undone.error), soft_wrap=True)
    if out.is_terminal and not as_json:
        failures = f", {failed} left as they are" if failed else ""
        out.print(f"run {number}: {restored} restored{failures}")
    return failed


def _line(path: Path, status: str, is_terminal: bool) -> None:
    from stonecli.report.text import printable

    name = printable(str(path))
    print(f"{name}: {status}" if is_terminal else f"{name}\t{status}", flush=True)


def _show(runs: list[Run], as_json: bool) -> None:
    """The runs as a table; tab-separated in a pipe."""
    from datetime import datetime

    from rich.table import Table
    from rich.text import Text

    from stonecli.report.text import printable

    records = [
        {
            "run": run.number,
            "date": datetime.fromtimestamp(run.started).astimezone().isoformat(" ", "seconds"),
            "what": run.what,
            "files": run.changes,
            "taken_back": run.undone,
        }
        for run in runs
    ]
    if as_json:
        for record in records:
            print_json(record)
        return
    names = ("run", "date", "what", "files", "taken back")
    rows = [[printable(str(value)) for value in record.values()] for record in records]
    out = output_console()
    if not out.is_terminal:
        for row in (names, *rows):
            print("\t".join(row))
        return
    table = Table(box=None, header_style="bold dim", pad_edge=False)
    for name in names:
        table.add_column(name, justify="right" if name in ("run", "files", "taken back") else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    out.print(table)
