"""``stone undo``: restore the files that a run has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from stonecli.cli.common import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    check_quiet,
    error_console,
    fail,
    one_line_errors,
    output_console,
    print_json,
)
from stonecli.cli.options import QuietOption, json_option, whole_number
from stonecli.cli.running import unbroken_output
from stonecli.cli.tag_screen import OutputMode

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console

    from stonecli.tags.undo.journal import Run, UndoJournal


@one_line_errors
def undo(
    run: Annotated[
        int | None,
        typer.Argument(
            metavar="[RUN]", parser=whole_number(0), help="Undo the run with this number (default: the last run)."
        ),
    ] = None,
    list_runs: Annotated[
        bool,
        typer.Option(
            "--list/--no-list",
            "-l",
            help="List the runs, the last one first.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run/--no-dry-run", "-n", help="Show what would be restored and change no file.")
    ] = False,
    preserve_mtime: Annotated[
        bool,
        typer.Option(
            "--preserve-mtime/--no-preserve-mtime",
            help="Keep the modification time of the files (default: update it).",
        ),
    ] = False,
    as_json: Annotated[bool, json_option("Print one JSON object per file or run.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Restore the files that a run of stone has changed.

    Restores each file byte for byte. Without a number, this undoes the last run, or the rest of it. If the last run is
    already undone, stone lists the other runs and asks for a number. Files that have changed since the run are reported
    and stay as they are.
    """
    if list_runs and (run is not None or dry_run or quiet):
        raise typer.BadParameter("cannot be combined with a run number, --dry-run or --quiet", param_hint="--list")
    check_quiet(as_json=as_json, quiet=quiet)
    mode = OutputMode(as_json, quiet)

    from stonecli.jobs import stopped_by_signals
    from stonecli.tags.undo.journal import UndoJournal
    from stonecli.tags.undo.worker_journals import collect

    journal = UndoJournal()
    try:
        collect(journal)  # the journals of cluster workers
        if list_runs:
            _show(journal.runs(), as_json, output_console())
            return
        chosen = _chosen(journal, run)
        again = f"stone undo{' --preserve-mtime' if preserve_mtime else ''} {chosen.number}"
        try:
            with stopped_by_signals() as signals, unbroken_output(wanted=not dry_run):
                failed = _undo(journal, chosen, again, mode, signals, preserve_mtime=preserve_mtime, dry_run=dry_run)
        except KeyboardInterrupt:
            fail(f"interrupted; to undo the rest: {again}", EXIT_INTERRUPTED)
        if failed:
            raise typer.Exit(EXIT_FAILED)
    finally:
        journal.close()


def _chosen(journal: UndoJournal, number: int | None) -> Run:
    """The run to undo; if there is none, the program ends and lists the other runs."""
    wanted = journal.last_run() if number is None else number
    found = journal.runs(wanted) if wanted is not None else []
    if number is not None and not found:
        fail(f"there is no run {number}; stone undo --list shows the runs", EXIT_USAGE)
    if found and found[0].left:
        return found[0]
    err = error_console()
    if number is not None:
        _say(err, f"run {number} is already undone; stone undo --list shows the runs")
        raise typer.Exit
    others = [run for run in journal.runs() if run.left]
    if not others:
        return fail("nothing to undo")
    _say(err, f"the last run ({wanted}) is already undone; these runs can be undone by number:")
    _show(others, False, err)
    return fail(f"choose a run, for example: stone undo {others[0].number}", EXIT_USAGE)


def _undo(
    journal: UndoJournal,
    run: Run,
    again: str,
    mode: OutputMode,
    signals: Sequence[int],
    *,
    preserve_mtime: bool,
    dry_run: bool,
) -> int:
    """Undo the run and show each file. Returns the number of files that could not be restored.

    Raises:
        KeyboardInterrupt: one of ``signals`` arrived; the file that was being restored is done.
    """
    from stonecli.tags.undo.runs import undo_files

    out, err = output_console(), error_console()
    shows_text = not mode.as_json and not mode.quiet
    if shows_text:
        _say(err, f"{'run' if dry_run else 'undoing run'} {run.number}: {_described(run)}")
    done = "restorable" if dry_run else "restored"
    restored = failed = 0
    for undone in undo_files(journal, run.number, preserve_mtime=preserve_mtime, write=not dry_run):
        if mode.as_json:
            status = done if undone.error is None else "error"
            record = {"path": str(undone.path), "status": status, "error": undone.error, "run": run.number}
            print_json(record)
        if undone.error is None:
            restored += 1
            if shows_text:
                _line(undone.path, done, out.is_terminal)
        else:
            from stonecli.terminal.table import error_text

            failed += 1
            err.print(error_text(undone.path, undone.error), soft_wrap=True)
        if signals:
            raise KeyboardInterrupt
    if shows_text:
        _sum_up(journal, run, again, restored, failed, dry_run)
    return failed


def _sum_up(journal: UndoJournal, run: Run, again: str, restored: int, failed: int, dry_run: bool) -> None:
    err = error_console()
    failures = f", {failed} {'cannot' if dry_run else 'failed'}" if failed else ""
    if dry_run:
        _say(err, f"run {run.number}: {_files(restored)} can be restored{failures}; nothing was changed")
        return
    _say(err, f"run {run.number}: {_files(restored)} restored{failures}")
    if failed:
        _say(err, f"to retry: {again}")
    others = sum(1 for other in journal.runs() if other.left and other.number != run.number)
    if others:
        _say(err, f"{others} other {'run' if others == 1 else 'runs'} can be undone: stone undo --list")


def _described(run: Run) -> str:
    where = f" in {run.folder}" if run.folder else ""
    left = f", {run.left} not restored yet" if run.undone else ""
    return f"{run.what}, {_local_time(run)}, {_files(run.changes)}{where}{left}"


def _files(count: int) -> str:
    return f"{count} file{'' if count == 1 else 's'}"


def _say(console: Console, text: str) -> None:
    from rich.text import Text

    from stonecli.util.text import printable

    console.print(Text(f"stone: {printable(text)}"), soft_wrap=True)


def _line(path: Path, status: str, is_terminal: bool) -> None:
    from stonecli.util.text import printable

    name = printable(str(path))
    print(f"{name}: {status}" if is_terminal else f"{name}\t{status}", flush=True)


def _record(run: Run) -> dict[str, Any]:
    """A run for ``--json``; its time has the time zone."""
    from datetime import datetime

    return {
        "run": run.number,
        "date": datetime.fromtimestamp(run.started).astimezone().isoformat(" ", "seconds"),
        "what": run.what,
        "files": run.changes,
        "restored": run.undone,
        "folder": str(run.folder) if run.folder else None,
    }


def _local_time(run: Run) -> str:
    from datetime import datetime

    return datetime.fromtimestamp(run.started).strftime("%Y-%m-%d %H:%M:%S")


def _show(runs: Sequence[Run], as_json: bool, console: Console) -> None:
    """The runs as a table; tab-separated in a pipe; or in JSON."""
    from rich.table import Table
    from rich.text import Text

    from stonecli.util.text import printable

    if as_json:
        for run in runs:
            print_json(_record(run))
        return
    names = ("run", "date", "what", "files", "restored", "folder")
    rows = [
        [str(run.number), _local_time(run), run.what, str(run.changes), str(run.undone), str(run.folder or "")]
        for run in runs
    ]
    rows = [[printable(text) for text in row] for row in rows]
    if not console.is_terminal:
        for row in (names, *rows):
            print("\t".join(row), file=console.file)
        return
    if not rows:
        console.print("no run has changed any file yet")
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in names:
        is_number = name in ("run", "files", "restored")
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)
