"""The undo journals of a run on a cluster: each thread that writes has a journal of its own; they are merged later.

They are in the folder ``cluster/RUN/`` below the state folder of the machine that started the run, on storage that all
machines share. No two processes write to the same file, so nothing depends on locks over the network. At the end of the
run, or later by ``stone undo``, they are merged into the journal of that machine, under the number of the run.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from stonecli.errors import JournalError, TagError, reason
from stonecli.tags.undo.journal import JournalRun, UndoJournal
from stonecli.tags.undo.record import Undo

_FOLDER = "cluster"
MARKER = "run"  # file with the run id; a machine that can read it sees the same folder
_COLLECT_AFTER_SECONDS = 86400.0  # until then, a worker that lost its connection may still write
_thread = threading.local()


def make_folder(journal: UndoJournal, run: int, run_id: str) -> Path:
    """Create and return the folder for the worker journals of a run.

    Raises:
        JournalError: it cannot be created.
    """
    folder = (journal.path.parent / _FOLDER / str(run)).absolute()
    try:
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        folder.mkdir(mode=0o700)
        (folder / MARKER).write_text(run_id)
    except OSError as error:
        raise JournalError(f"the folder {folder} cannot be created: {reason(error)}") from error
    return folder


def is_running_here(folder: Path, run_id: str) -> bool:
    """Whether this machine can see the folder of the run, and the run has not ended."""
    try:
        return (folder / MARKER).read_text() == run_id
    except OSError:
        return False


@contextmanager
def thread_journal(folder: Path, what: str) -> Iterator[JournalRun]:
    """The calling thread's own journal of the run in ``folder``; it is closed at the end of the block.

    Raises:
        JournalError: it cannot be opened.
    """
    if not hasattr(_thread, "name"):
        _thread.name = uuid.uuid4().hex
    file = folder / f"{_thread.name}.sqlite3"
    journal = UndoJournal(file, on_network=True)
    try:
        with suppress(OSError):
            os.utime(file)  # shows that the run is active even if it changes nothing for days
        runs = journal.started()
        number = runs[0] if runs else journal.start(what).number
        yield _WorkerRun(journal, number, what, folder)
    finally:
        journal.close()


class _WorkerRun(JournalRun):
    """A run of a worker. It refuses records after the end of the run, since they would never be merged."""

    def __init__(self, journal: UndoJournal, number: int, what: str, folder: Path) -> None:
        super().__init__(journal, number, what)
        self._marker = folder / MARKER

    def add(self, path: Path, undo: Undo) -> int:
        """As :meth:`JournalRun.add`; the record is written before the run ends and its records are collected.

        Raises:
            TagError: the run has ended, or the record could not be written.
        """
        number = super().add(path, undo)
        try:
            self._marker.read_bytes()
        except OSError as error:
            raise TagError("the run on the cluster has ended, so the file was not changed") from error
        return number


def has_changed(folder: Path, path: Path) -> bool:
    """Whether a worker of the run has changed the file; slow, since it opens every journal."""
    for file in folder.glob("*.sqlite3"):
        with suppress(JournalError):
            journal = UndoJournal(file, on_network=True)
            try:
                if journal.has(path):
                    return True
            finally:
                journal.close()
    return False


def collect(journal: UndoJournal, *, ended: int | None = None) -> None:
    """Merge the worker journals of all runs into ``journal``; doing it twice does no harm.

    Args:
        journal: the journal of this machine.
        ended: number of a run without active workers; its folder is deleted. The folders of other runs are deleted one
            day after a worker last started a batch of files.

    Raises:
        JournalError: a journal cannot be read or written; journals that were not merged stay.
    """
    folders = [folder for folder in (journal.path.parent / _FOLDER).glob("*") if folder.name.isdecimal()]
    for folder in sorted(folders, key=lambda folder: int(folder.name)):
        number = int(folder.name)
        last = max(_changed(file) for file in (folder, *folder.glob("*.sqlite3")))
        is_over = number == ended or time.time() - last > _COLLECT_AFTER_SECONDS
        if is_over:
            with suppress(OSError):
                (folder / MARKER).unlink()  # first, so that workers add no more records
        for file in sorted(folder.glob("*.sqlite3")):
            _merge(journal, number, file)
        if is_over:
            shutil.rmtree(folder, ignore_errors=True)


def _merge(journal: UndoJournal, run: int, file: Path) -> None:
    try:
        journal.merge(run, file)
    except JournalError as error:
        if damage := _damage(file):  # otherwise the journal of this machine is the cause, and the error names it
            raise JournalError(f"the journal of a worker {file} is damaged ({damage}); move it away") from error
        raise


def _damage(file: Path) -> str | None:
    """A description of the damage of a worker's journal, or None."""
    try:
        with closing(sqlite3.connect(file)) as database:
            (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError:  # it cannot be opened, or is locked
        return None
    except sqlite3.Error as error:
        return reason(error)
    return None if verdict == "ok" else " ".join(str(verdict).split())


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()
