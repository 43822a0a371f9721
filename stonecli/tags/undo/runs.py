"""Runs: all changes of one command are recorded as one run, which can be undone later."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from stonecli.errors import TagError
from stonecli.tags.write import undo_change

if TYPE_CHECKING:  # SQLite is only loaded where the journal is used
    from stonecli.tags.undo.journal import JournalRun, UndoJournal


@dataclass(frozen=True)
class Undone:
    """The result for one file of a run that was undone.

    Attributes:
        path: the file.
        error: None if it is, byte for byte, what it was before the run; otherwise one line with the reason.
    """

    path: Path
    error: str | None


@contextmanager
def recorded(what: str = "write key") -> Iterator[JournalRun]:
    """A new run of the undo journal, for the argument ``journal`` of ``write_key`` and ``remove_key``.

    ``stone undo`` and :func:`undo_run` take its ``number``. A run without changes is deleted at the end. Many threads
    may use it.

    Args:
        what: description of the run for ``stone undo --list``.

    Raises:
        JournalError: the journal is damaged or cannot be written; do not change any file then.
    """
    from stonecli.tags.undo.journal import UndoJournal

    with closing(UndoJournal()) as journal:
        run = journal.start(what)
        try:
            yield run
        finally:
            run.end()


def undo_run(number: int | None = None, *, preserve_mtime: bool = False) -> list[Undone]:
    """Undo a run, and return the result for each file that it changed; empty if nothing is left to undo.

    Args:
        number: number of the run; None for the last one. If the last run was undone already, nothing happens: older
            runs are only undone by number.
        preserve_mtime: whether the files keep their modification time.

    Raises:
        JournalError: the journal cannot be used.
    """
    from stonecli.tags.undo.journal import UndoJournal

    with closing(UndoJournal()) as journal:
        if number is None:
            number = journal.last_run()
        return [] if number is None else list(undo_files(journal, number, preserve_mtime=preserve_mtime))


def undo_files(
    journal: UndoJournal, number: int, *, preserve_mtime: bool = False, write: bool = True
) -> Iterator[Undone]:
    """Undo a run and yield the result for each file as soon as it is restored.

    A file that fails keeps its records, and so do the remaining files after an interrupt: the next call continues with
    them. It also includes what a run that is still active has changed in the meantime.

    With ``write=False`` no file is changed, and the results are those that undoing would have.

    Raises:
        JournalError: the journal cannot be used.
    """
    for path, changes in groupby(journal.changes(number), key=lambda change: change.path):
        error = None
        for change in changes:
            try:
                undo_change(path, change.undo, preserve_mtime=preserve_mtime, write=write)
            except TagError as caught:
                later = journal.later_run(change, number)
                error = (
                    f"run {later} has changed it again; undo that run first: stone undo {later}"
                    if later
                    else str(caught)
                )
                break
            if not write:
                break  # the earlier changes of the file can only be tried after this one is undone
            journal.mark_undone(change)
        yield Undone(path, error)
