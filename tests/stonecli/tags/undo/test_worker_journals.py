import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stonecli.errors import JournalError, TagError
from stonecli.key import Key
from stonecli.tags import undo_change, write_key
from stonecli.tags.undo.journal import UndoJournal
from stonecli.tags.undo.worker_journals import collect, has_changed, is_running_here, make_folder, thread_journal

Song = Callable[..., Path]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[UndoJournal]:
    made = UndoJournal(tmp_path / "state" / "undo.sqlite3")
    yield made
    made.close()


def write(folder: Path, *paths: Path) -> None:
    with thread_journal(folder, "write on a cluster") as run:
        for path in paths:
            write_key(path, Key.parse("Dm"), journal=run)


def test_writes_of_many_threads_are_one_run(journal: UndoJournal, song: Song) -> None:
    number = journal.start("write on a cluster").number
    folder = make_folder(journal, number, "word")
    paths = [song("flac", str(index)) for index in range(6)]
    before = [path.read_bytes() for path in paths]
    threads = [threading.Thread(target=write, args=(folder, *paths[index::3])) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(folder.glob("*.sqlite3"))) == 3
    collect(journal)
    collect(journal)  # twice does no harm
    (run,) = journal.runs()
    assert (run.number, run.what, run.changes) == (number, "write on a cluster", 6)
    for change in journal.changes(number):
        assert undo_change(change.path, change.undo)
    assert [path.read_bytes() for path in paths] == before


def test_a_thread_continues_its_own_database(journal: UndoJournal, song: Song) -> None:
    number = journal.start("write").number
    folder = make_folder(journal, number, "word")
    first, second = song("flac", "a"), song("flac", "b")
    write(folder, first)
    collect(journal)
    assert has_changed(folder, first)
    assert not has_changed(folder, second)
    write(folder, second)
    assert len(list(folder.glob("*.sqlite3"))) == 1
    collect(journal, ended=number)
    assert not folder.exists()
    assert journal.runs()[0].changes == 2


def test_a_run_that_was_deleted_as_empty_is_restored(journal: UndoJournal, song: Song) -> None:
    run = journal.start("write")
    folder = make_folder(journal, run.number, "word")
    run.end()  # the client was interrupted, and a worker finishes its file
    assert journal.started() == []
    write(folder, song("flac"))
    collect(journal)
    assert [run.changes for run in journal.runs()] == [1]


@pytest.mark.parametrize("statements", [(), ("BEGIN IMMEDIATE", "CREATE TABLE runs (id INTEGER)")])
def test_a_worker_that_was_killed_before_it_created_its_journal(
    journal: UndoJournal, song: Song, statements: tuple[str, ...]
) -> None:
    number = journal.start("write").number
    folder = make_folder(journal, number, "word")
    write(folder, song("flac"))
    code = (
        "import os, signal, sqlite3, sys\n"
        "database = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "database.execute('PRAGMA journal_mode = DELETE')\n"
        "for statement in sys.argv[2:]: database.execute(statement)\n"
        "os.kill(os.getpid(), getattr(signal, 'SIGKILL', signal.SIGTERM))\n"
    )
    half = folder / "0.sqlite3"  # the first to be taken in
    assert subprocess.run([sys.executable, "-c", code, half, *statements], check=False).returncode != 0
    assert half.exists()
    collect(journal)
    assert [run.changes for run in journal.runs()] == [1]


def test_folders_go_a_day_after_the_last_change(journal: UndoJournal, song: Song) -> None:
    folders = [make_folder(journal, journal.start("write").number, "word") for _ in range(2)]
    for folder, name in zip(folders, "ab", strict=True):
        write(folder, song("flac", name))
    old = time.time() - 2 * 86400
    for path in (*folders[0].iterdir(), folders[0]):
        os.utime(path, (old, old))
    collect(journal)
    assert [folder.exists() for folder in folders] == [False, True]
    assert sum(run.changes for run in journal.runs()) == 2


def test_a_run_without_changes_for_days_can_continue(journal: UndoJournal, song: Song) -> None:
    folder = make_folder(journal, journal.start("write").number, "word")
    write(folder, song("flac"))
    old = time.time() - 2 * 86400
    for path in (*folder.iterdir(), folder):
        os.utime(path, (old, old))
    write(folder)  # a batch of files that have a key
    collect(journal)  # by stone undo, or another run
    assert is_running_here(folder, "word")


@pytest.mark.parametrize("damage", ["no database", "half of it", "a page"])
def test_a_damaged_journal_of_a_worker_is_named(journal: UndoJournal, song: Song, damage: str) -> None:
    number = journal.start("write").number
    folder = make_folder(journal, number, "word")
    write(folder, song("flac"))
    (file,) = folder.glob("*.sqlite3")
    content = file.read_bytes()
    size = 4096  # of a page
    file.write_bytes(
        {
            "no database": b"text" * 1000,
            "half of it": content[: len(content) // 2 // size * size],
            "a page": content[:size] + b"\xff" * size + content[2 * size :],
        }[damage]
    )
    with pytest.raises(JournalError) as caught:
        collect(journal, ended=number)
    assert str(caught.value).startswith(f"the journal of a worker {file} is damaged (")
    assert str(caught.value).endswith("); move it away")
    file.rename(journal.path.parent / "away")
    collect(journal, ended=number)
    assert not folder.exists()


def test_a_worker_that_reconnects_after_the_end_writes_nothing(journal: UndoJournal, song: Song) -> None:
    number = journal.start("write").number
    folder = make_folder(journal, number, "word")
    path = song("flac")
    before = path.read_bytes()
    with thread_journal(folder, "write") as run:
        collect(journal, ended=number)
        assert not is_running_here(folder, "word")
        with pytest.raises(TagError, match="journal"):
            write_key(path, Key.parse("Dm"), journal=run)
    assert path.read_bytes() == before


def test_a_record_after_the_end_of_the_run_is_refused(
    journal: UndoJournal, song: Song, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends after its journals were read and before the folder is deleted."""
    number = journal.start("write").number
    folder = make_folder(journal, number, "word")
    path = song("flac")
    before = path.read_bytes()
    refused = []

    def late(*_: object, **options: object) -> None:
        with thread_journal(folder, "write") as run, pytest.raises(TagError, match="has ended") as caught:
            write_key(path, Key.parse("Dm"), journal=run)
        refused.append(caught)

    monkeypatch.setattr("stonecli.tags.undo.worker_journals.shutil.rmtree", late)
    collect(journal, ended=number)
    assert len(refused) == 1
    assert path.read_bytes() == before


def test_a_folder_knows_its_run(journal: UndoJournal, tmp_path: Path) -> None:
    folder = make_folder(journal, journal.start("write").number, "word")
    assert is_running_here(folder, "word")
    assert not is_running_here(folder, "other")
    assert not is_running_here(tmp_path / "gone", "word")
