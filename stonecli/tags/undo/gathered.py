"""The undo journal of a run on many machines: each thread that writes has a file of its own, which are then gathered.

They lie in one folder on the storage that the machines share, below the state folder of whoever started the run:
``cluster/RUN/``. No two processes write to the same file, so nothing depends on locks over the network. When the run
ends, or later by ``stone undo``, they are taken into the journal there, under the run's number.
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

from stonecli.errors import JournalError, TagError
from stonecli.tags.undo.journal import JournalRun, UndoJournal
from stonecli.tags.undo.record import Undo

_FOLDER = "cluster"
SIGN = "run"  # file with the run's own word, by which a machine knows that it sees the same folder
_LATE_SECONDS = 86400.0  # for which a worker that was cut off may still write
_thread = threading.local()


def make_folder(journal: UndoJournal, run: int, word: str) -> Path:
    """The new folder for the journals of a run.

    Raises:
        JournalError: it cannot be made.
    """
    folder = (journal.path.parent / _FOLDER / str(run)).absolute()
    try:
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        folder.mkdir(mode=0o700)
        (folder / SIGN).write_text(word)
    except OSError as error:
        raise JournalError(f"the folder {folder} cannot be made: {error.strerror}") from error
    return folder


def is_seen(folder: Path, word: str) -> bool:
    """Whether this machine sees the folder of the run, and the run has not ended."""
    try:
        return (folder / SIGN).read_text() == word
    except OSError:
        return False


@contextmanager
def thread_journal(folder: Path, what: str) -> Iterator[JournalRun]:
    """The calling thread's own journal of the run in ``folder``; closed at the end, opened again the next time.

    Raises:
        JournalError: it cannot be opened.
    """
    if not hasattr(_thread, "name"):
        _thread.name = uuid.uuid4().hex
    file = folder / f"{_thread.name}.sqlite3"
    journal = UndoJournal(file, on_network=True)
    try:
        with suppress(OSError):
            os.utime(file)  # a sign of life, for a run may change nothing for days
        runs = journal.started()
        number = runs[0] if runs else journal.start(what).number
        yield _WorkerRun(journal, number, what, folder)
    finally:
        journal.close()


class _WorkerRun(JournalRun):
    """A run of a worker, whose records count while the run has not ended: later ones would never be gathered."""

    def __init__(self, journal: UndoJournal, number: int, what: str, folder: Path) -> None:
        super().__init__(journal, number, what)
        self._sign = folder / SIGN

    def add(self, path: Path, undo: Undo) -> int:
        """As of :class:`JournalRun`; the record is there before whoever ends the run looks for records, or refused."""
        number = super().add(path, undo)
        try:
            self._sign.read_bytes()
        except OSError as error:
            raise TagError("the run on the cluster has ended, so the file was not written") from error
        return number


def was_changed(folder: Path, path: Path) -> bool:
    """Whether a worker of the run has changed the file; asked about few files, for it opens every journal."""
    for file in folder.glob("*.sqlite3"):
        with suppress(JournalError):
            journal = UndoJournal(file, on_network=True)
            try:
                if journal.has(path):
                    return True
            finally:
                journal.close()
    return False


def gather(journal: UndoJournal, *, ended: int | None = None) -> None:
    """Takes what workers have written into ``journal``, of all runs; twice does no harm.

    Args:
        ended: number of a run that nobody works for any more; its folder is deleted. Others are a day after the last
            batch of files that a worker has begun.

    Raises:
        JournalError: a journal cannot be read or written; what is not gathered stays where it is.
    """
    folders = [folder for folder in (journal.path.parent / _FOLDER).glob("*") if folder.name.isdecimal()]
    for folder in sorted(folders, key=lambda folder: int(folder.name)):
        number = int(folder.name)
        last = max(_changed(file) for file in (folder, *folder.glob("*.sqlite3")))
        is_over = number == ended or time.time() - last > _LATE_SECONDS
        if is_over:
            with suppress(OSError):
                (folder / SIGN).unlink()  # first: from now on no worker adds a record
        for file in sorted(folder.glob("*.sqlite3")):
            _take_in(journal, number, file)
        if is_over:
            shutil.rmtree(folder, ignore_errors=True)


def _take_in(journal: UndoJournal, run: int, file: Path) -> None:
    try:
        journal.take_in(run, file)
    except JournalError as error:
        if damage := _damage(file):  # else it is the journal itself, and the error names that
            raise JournalError(f"the journal of a worker {file} is damaged ({damage}); move it away") from error
        raise


def _damage(file: Path) -> str | None:
    """What is wrong with a worker's journal, or None."""
    try:
        with closing(sqlite3.connect(file)) as database:
            (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError:  # it cannot be opened, or is locked
        return None
    except sqlite3.Error as error:
        return str(error)
    return None if verdict == "ok" else " ".join(str(verdict).split())


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()
