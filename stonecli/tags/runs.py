"""A run of changes as a whole: recorded while it is made, and taken back later."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stonecli.errors import TagError
from stonecli.tags.write import take_back

if TYPE_CHECKING:  # its database is loaded by those who use it
    from stonecli.tags.journal import JournalRun, UndoJournal


@dataclass(frozen=True)
class Undone:
    """What became of one file that was to be taken back.

    Attributes:
        path: the file.
        error: None if it is, byte for byte, what it was; else one line that says why it was left as it is.
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
    from stonecli.tags.journal import UndoJournal

    with closing(UndoJournal()) as journal:
        run = journal.start(what)
        try:
            yield run
        finally:
            run.end()


def undo_run(number: int | None = None, *, preserve_mtime: bool = False) -> list[Undone]:
    """What became of each file that a run had changed, the last change first; empty where nothing is to be taken back.

    Args:
        number: of the run; None for the last one with changes that nobody has tried to take back.
        preserve_mtime: whether the files keep their modification time.

    Raises:
        JournalError: the journal cannot be used.
    """
    from stonecli.tags.journal import UndoJournal

    with closing(UndoJournal()) as journal:
        if number is None:
            number = journal.last_run()
        return [] if number is None else list(take_back_run(journal, number, preserve_mtime=preserve_mtime))


def take_back_run(journal: UndoJournal, number: int, *, preserve_mtime: bool = False) -> Iterator[Undone]:
    """The same one by one, as the files are done; the run counts as taken back when all are.

    What a run that still goes on changes meanwhile is not among them.

    Raises:
        JournalError: the journal cannot be used.
    """
    last = 0
    for change in journal.changes(number):
        last = max(last, change.number)
        try:
            take_back(change.path, change.undo, preserve_mtime=preserve_mtime)
        except TagError as error:
            yield Undone(change.path, str(error))
        else:
            journal.mark_undone(change)
            yield Undone(change.path, None)
    journal.mark_run_undone(number, last)
