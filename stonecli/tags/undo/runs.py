"""A run of changes as a whole: recorded while it is made, and undone later."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from stonecli.errors import TagError
from stonecli.tags.write import take_back

if TYPE_CHECKING:  # its database is loaded by those who use it
    from stonecli.tags.undo.journal import JournalRun, UndoJournal


@dataclass(frozen=True)
class Undone:
    """What became of one file that was to be restored.

    Attributes:
        path: the file.
        error: None if it is, byte for byte, what it was before the run; else one line that says why not.
    """

    path: Path
    error: str | None


@contextmanager
def recorded(what: str = "write key") -> Iterator[JournalRun]:
    """A run of the undo journal, for the argument ``journal`` of ``write_key`` and ``remove_key``.

    ``stone undo`` and :func:`undo_run` know it by its ``number``; one that changes nothing is forgotten. It may be used
    by many threads.

    Args:
        what: what is done, in words, for ``stone undo --list``.

    Raises:
        JournalError: the journal is damaged or cannot be written; then nothing should be.
    """
    from stonecli.tags.undo.journal import UndoJournal

    with closing(UndoJournal()) as journal:
        run = journal.start(what)
        try:
            yield run
        finally:
            run.end()


def undo_run(number: int | None = None, *, preserve_mtime: bool = False) -> list[Undone]:
    """What became of each file that a run had changed; empty where nothing of it is left to undo.

    Args:
        number: of the run; None for the last one. If that is undone already, nothing happens: an older run is only
            undone by its number.
        preserve_mtime: whether the files keep their modification time.

    Raises:
        JournalError: the journal cannot be used.
    """
    from stonecli.tags.undo.journal import UndoJournal

    with closing(UndoJournal()) as journal:
        if number is None:
            number = journal.last_run()
        return [] if number is None else list(take_back_run(journal, number, preserve_mtime=preserve_mtime))


def take_back_run(
    journal: UndoJournal, number: int, *, preserve_mtime: bool = False, write: bool = True
) -> Iterator[Undone]:
    """The same one by one, as the files are restored. A file that fails, or an interrupt, leaves its records for the
    next call, which also finds what a run that still goes on has changed meanwhile.

    With ``write=False`` no file changes, and what is yielded is what would become of each.

    Raises:
        JournalError: the journal cannot be used.
    """
    for path, changes in groupby(journal.changes(number), key=lambda change: change.path):
        error = None
        for change in changes:
            try:
                take_back(path, change.undo, preserve_mtime=preserve_mtime, write=write)
            except TagError as caught:
                error = str(caught)
                break
            if not write:
                break  # the earlier changes of the file lead on from where this one does
            journal.mark_undone(change)
        yield Undone(path, error)
