"""The undo journal: every change can be undone, and nothing is changed without a record."""

import contextlib
import hashlib
import io
import os
import pickle
import random
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mutagen.flac import FLAC, Picture

from stonecli.errors import JournalError, TagError
from stonecli.key import Key
from stonecli.tags import FieldRule, read_tags, remove_key, undo_change, write_key
from stonecli.tags.edit.splice import Splice
from stonecli.tags.undo import journal
from stonecli.tags.undo.journal import FILE_NAME, UndoJournal
from stonecli.tags.undo.record import Undo
from stonecli.tags.undo.runs import undo_files
from tests.fixture_types import CopySample, ListLeftovers, MakePicture

A_MINOR, D_FLAT = Key.parse("8A"), Key.parse("3B")
RULES = (FieldRule(), FieldRule("comment", "musical", "prepend"), FieldRule("grouping", "openkey", "append"))
NOTHING = Undo((0, b""), (0, b""), ())


@pytest.fixture
def undo_journal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UndoJournal]:
    opened = UndoJournal(tmp_path_factory.mktemp("journal") / FILE_NAME)
    yield opened
    opened.close()


def undo_all(undo_journal: UndoJournal, run: int) -> None:
    for change in undo_journal.changes(run):
        undo_change(change.path, change.undo)
        undo_journal.mark_undone(change)


@pytest.fixture
def long_song(make: CopySample) -> Callable[..., Any]:
    """A FLAC file with three megabytes that pass for audio."""

    def made() -> Path:
        path = make("flac")
        with path.open("ab") as file:
            file.write(random.Random(1).randbytes(3_000_000))
        return path

    return made


class TestRefusedFiles:
    """A file that was changed by somebody else is never overwritten."""

    @pytest.mark.parametrize("how", ["tagged", "one bit", "cut", "longer", "gone", "folder", "link"])
    def test_a_file_that_changed_since_is_not_undone(
        self, how: str, make: CopySample, undo_journal: UndoJournal, tmp_path: Path
    ) -> None:
        path = make("mp3")
        run = undo_journal.start("")
        write_key(path, A_MINOR, journal=run)
        content = bytearray(path.read_bytes())
        status = path.stat()
        if how == "tagged":
            write_key(path, D_FLAT)
        elif how == "one bit":
            content[len(content) // 2] ^= 1
            path.write_bytes(content)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        elif how == "cut":
            path.write_bytes(content[:-1])
        elif how == "longer":
            path.write_bytes(content + b"\0")
        else:
            path.unlink()
            if how == "folder":
                path.mkdir()
            elif how == "link":
                (tmp_path / "elsewhere").write_bytes(content)
                path.symlink_to(tmp_path / "elsewhere")
        now = path.read_bytes() if path.is_file() else None
        (change,) = undo_journal.changes(run.number)
        with pytest.raises(TagError, match=r"changed since|no such file|not a file"):
            undo_change(change.path, change.undo)
        assert (path.read_bytes() if path.is_file() else None) == now

    def test_a_record_of_an_older_stone_is_refused(
        self, long_song: Callable[..., Any], undo_journal: UndoJournal
    ) -> None:
        """They had SHA-256 of all: first what the splices leave, then what is at them."""
        path = long_song()
        run = undo_journal.start("")
        write_key(path, A_MINOR, journal=run)
        content = path.read_bytes()
        (change,) = undo_journal.changes(run.number)
        rest, taken = bytearray(content), b""
        for splice in reversed(change.undo.splices):
            taken = content[splice.offset : splice.offset + splice.length] + taken
            del rest[splice.offset : splice.offset + splice.length]
        old = len(content), hashlib.sha256(rest + taken).digest()
        with pytest.raises(TagError, match="changed since"):
            undo_change(path, Undo(change.undo.before, old, change.undo.splices))
        assert path.read_bytes() == content

    @pytest.mark.parametrize("why", ["read-only", "hard links"])
    def test_undo_refuses_files_that_a_write_refuses(
        self, why: str, make: CopySample, undo_journal: UndoJournal, tmp_path: Path
    ) -> None:
        path = make("mp3")
        run = undo_journal.start("")
        write_key(path, A_MINOR, journal=run)
        if why == "read-only":
            path.chmod(0o444)
        else:
            os.link(path, tmp_path / "other")
        (change,) = undo_journal.changes(run.number)
        with pytest.raises(TagError, match=why):
            undo_change(change.path, change.undo)
        assert read_tags(path).key == A_MINOR

    def test_a_wrong_record_changes_nothing(self, make: CopySample, undo_journal: UndoJournal) -> None:
        path = make("mp3")
        run = undo_journal.start("")
        write_key(path, A_MINOR, journal=run)
        content = path.read_bytes()
        (change,) = undo_journal.changes(run.number)
        *others, last = change.undo.splices
        for splice, reason in (
            (Splice(last.offset, last.length, last.data[:-1] + b"?"), "differs from the original"),
            (
                Splice(last.offset + 1, last.length, last.data),
                "changed since",
            ),  # which is not where the file was hashed
        ):
            with pytest.raises(TagError, match=reason):
                undo_change(change.path, Undo(change.undo.before, change.undo.after, (*others, splice)))
        assert path.read_bytes() == content


class TestRecords:
    """The record is on the disk before the file changes."""

    def test_without_a_record_nothing_is_written(
        self, sample: str, make: CopySample, undo_journal: UndoJournal, left_over: ListLeftovers
    ) -> None:
        """A full disk, as SQLite sees it."""
        path = make(sample)
        content, inode = path.read_bytes(), path.stat().st_ino
        run = undo_journal.start("")
        (pages,) = undo_journal._database.execute("PRAGMA page_count").fetchone()
        undo_journal._database.execute(f"PRAGMA max_page_count = {pages}")
        big = Undo((1, b"x" * 32), (1, b"x" * 32), (Splice(0, 0, os.urandom(100_000)),))
        with pytest.raises(TagError, match="full"):
            run.add(path, big)
        undo_journal._database.execute("PRAGMA query_only = ON")
        with pytest.raises(TagError, match="the undo journal cannot be written"):
            write_key(path, A_MINOR, journal=run)
        assert (path.read_bytes(), path.stat().st_ino) == (content, inode)
        assert left_over() == []
        assert list(undo_journal.changes(run.number)) == []

    def test_the_record_is_written_before_the_file_changes(
        self, make: CopySample, undo_journal: UndoJournal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = make("flac")
        run = undo_journal.start("")
        seen = []
        replace = os.replace

        def look(old: Path, new: Path) -> None:
            with contextlib.closing(sqlite3.connect(undo_journal.path)) as other:  # another process would see it, too
                seen.extend(other.execute("SELECT path FROM changes").fetchall())
            replace(old, new)

        monkeypatch.setattr(os, "replace", look)
        write_key(path, A_MINOR, journal=run)
        assert seen == [(os.fsencode(path),)]

    def test_a_change_that_fails_leaves_no_record(
        self, make: CopySample, undo_journal: UndoJournal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = make("flac")
        run = undo_journal.start("")

        def fail(old: Path, new: Path) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "replace", fail)
        with pytest.raises(TagError, match="not permitted"):
            write_key(path, A_MINOR, journal=run)
        assert undo_journal.runs() == []
        assert undo_journal.last_run() is None

    def test_the_disk_is_waited_for(self, undo_journal: UndoJournal) -> None:
        assert undo_journal._database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert undo_journal._database.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


class TestRestoredFiles:
    def test_every_change_is_undone_byte_for_byte(
        self, sample: str, make: CopySample, undo_journal: UndoJournal, left_over: ListLeftovers
    ) -> None:
        path = make(sample)
        contents = [path.read_bytes()]
        steps = [
            lambda run: write_key(path, A_MINOR, journal=run),
            lambda run: write_key(path, D_FLAT, RULES, journal=run),
            lambda run: write_key(path, A_MINOR, [FieldRule("comment", "musical", "replace")], journal=run),
            lambda run: write_key(path, A_MINOR, [FieldRule("key", "musical")], journal=run),
            lambda run: remove_key(path, RULES, journal=run),
        ]
        runs = []
        for step in steps:
            run = undo_journal.start("step")
            assert step(run)
            runs.append(run.number)
            contents.append(path.read_bytes())
        for number, content in zip(reversed(runs), reversed(contents[:-1]), strict=True):
            assert undo_journal.last_run() == number
            undo_all(undo_journal, number)
            assert path.read_bytes() == content
            undo_journal._database.execute("DELETE FROM changes WHERE run = ?", (number,))
        assert undo_journal.last_run() is None
        assert left_over() == []

    def test_changes_of_one_run_are_undone_last_first(self, make: CopySample, undo_journal: UndoJournal) -> None:
        path = make("flac")
        content = path.read_bytes()
        run = undo_journal.start("")
        for key in (A_MINOR, D_FLAT, A_MINOR):
            write_key(path, key, journal=run)
        undo_all(undo_journal, run.number)
        assert path.read_bytes() == content

    def test_pictures_are_not_stored_in_the_journal(
        self, make: CopySample, png: MakePicture, undo_journal: UndoJournal
    ) -> None:
        path = make("flac")
        tags = FLAC(path)
        picture = Picture()
        picture.data, picture.mime = png(0) + os.urandom(2_000_000), "image/png"
        tags.add_picture(picture)
        tags.save()
        content = path.read_bytes()
        run = undo_journal.start("")
        for key in (A_MINOR, Key.parse("Am"), D_FLAT):
            write_key(path, key, [FieldRule(), FieldRule("comment", "musical", "prepend")], journal=run)
        assert (
            sum(len(splice.data) for change in undo_journal.changes(run.number) for splice in change.undo.splices)
            < 9000
        )
        undo_all(undo_journal, run.number)
        assert path.read_bytes() == content

    def test_every_byte_of_the_tags_counts(self, sample: str, make: CopySample, undo_journal: UndoJournal) -> None:
        path = make(sample)
        run = undo_journal.start("")
        write_key(path, A_MINOR, RULES, journal=run)
        (change,) = undo_journal.changes(run.number)
        content = bytearray(path.read_bytes())
        indices = {index for start in (0, len(content) - 300) for index in range(max(0, start), start + 300)}
        for splice in change.undo.splices:
            indices |= set(range(max(0, splice.offset - 100), splice.offset + splice.length + 100))
        assert change.undo.is_after(io.BytesIO(content))
        for index in sorted(indices & set(range(len(content)))):
            content[index] ^= 0x20
            assert not change.undo.is_after(io.BytesIO(content)), index
            content[index] ^= 0x20

    @pytest.mark.parametrize("padded", [True, False], ids=["into the padding", "all moves"])
    def test_a_long_recording(
        self, padded: bool, long_song: Callable[..., Any], undo_journal: UndoJournal, tmp_path: Path
    ) -> None:
        path = long_song()
        if padded:
            write_key(path, D_FLAT)
        content = path.read_bytes()
        run = undo_journal.start("")
        write_key(path, A_MINOR, RULES, journal=run)
        now = bytearray(path.read_bytes())
        assert (len(now) == len(content)) == padded
        (change,) = undo_journal.changes(run.number)
        undo = change.undo
        for index in [*range(0, len(now), 100_003), len(now) - 1]:
            now[index] ^= 0x80
            assert not undo.is_after(io.BytesIO(now)), index
            now[index] ^= 0x80
        again = bytes(now[:100_000]) + random.Random(2).randbytes(
            len(now) - 100_000
        )  # encoded again, to the same length
        for other in (again, now[:-1], now + b"\0", content):
            assert not undo.is_after(io.BytesIO(other))
        os.utime(path, (1, 1))
        path = path.rename(tmp_path / "elsewhere")
        assert undo_change(path, undo)
        assert path.read_bytes() == content
        assert not undo_change(path, undo)

    def test_a_restored_file_is_not_written_again(self, make: CopySample, undo_journal: UndoJournal) -> None:
        path = make("mp3")
        run = undo_journal.start("")
        write_key(path, A_MINOR, journal=run)
        (change,) = undo_journal.changes(run.number)
        assert undo_change(change.path, change.undo)
        inode = path.stat().st_ino
        assert not undo_change(change.path, change.undo)
        assert path.stat().st_ino == inode

    def test_the_modification_time(self, make: CopySample, undo_journal: UndoJournal) -> None:
        path = make("mp3")
        run = undo_journal.start("")
        os.utime(path, ns=(10**18, 10**18))
        write_key(path, A_MINOR, journal=run, preserve_mtime=True)
        (change,) = undo_journal.changes(run.number)
        undo_change(change.path, change.undo, preserve_mtime=True)
        assert path.stat().st_mtime_ns == 10**18

    def test_names_that_are_not_utf8(self, make: CopySample, undo_journal: UndoJournal) -> None:
        path = make("mp3", os.fsdecode(b"not \xff\xfe UTF-8"))
        content = path.read_bytes()
        run = undo_journal.start("")
        write_key(path, A_MINOR, journal=run)
        undo_all(undo_journal, run.number)
        assert path.read_bytes() == content


class TestRuns:
    def test_runs_are_listed_with_their_counts(self, make: CopySample, undo_journal: UndoJournal) -> None:
        first = undo_journal.start("write key")
        write_key(make("flac", "a"), A_MINOR, journal=first)
        write_key(make("flac", "b"), A_MINOR, journal=first)
        first.end()
        empty = undo_journal.start("write key")
        empty.end()
        second = undo_journal.start("remove key")
        write_key(make("flac", "c"), A_MINOR, journal=second)
        undo_journal.mark_undone(next(undo_journal.changes(first.number)))
        listed = [(run.number, run.what, run.changes, run.undone) for run in undo_journal.runs()]
        assert listed == [(second.number, "remove key", 1, 0), (first.number, "write key", 2, 1)]
        assert abs(undo_journal.runs()[0].started - time.time()) < 3600
        assert undo_journal._database.execute("SELECT count(*) FROM runs").fetchone() == (2,)

    def test_a_run_that_continues_after_its_undo_is_undone_again(
        self, make: CopySample, undo_journal: UndoJournal
    ) -> None:
        older, going_on = undo_journal.start("older"), undo_journal.start("going on")
        paths = [make("flac", name) for name in "abcd"]
        contents = [path.read_bytes() for path in paths]
        write_key(paths[0], A_MINOR, journal=older)
        write_key(paths[1], A_MINOR, journal=going_on)
        number = undo_journal.last_run()
        assert number is not None
        for undone in undo_files(undo_journal, number):
            assert undone.error is None
            write_key(paths[2], A_MINOR, journal=going_on)  # while it is undone
        assert undo_journal.last_run() == going_on.number
        assert [undone.path for undone in undo_files(undo_journal, going_on.number)] == [paths[2]]
        assert [(run.changes, run.left) for run in undo_journal.runs()] == [(2, 0), (1, 1)]
        write_key(paths[3], A_MINOR, journal=going_on)
        assert [(run.changes, run.undone) for run in undo_journal.runs()] == [(3, 2), (1, 0)]
        for number in (going_on.number, older.number):
            assert [undone.error for undone in undo_files(undo_journal, number)] == [None]
        assert [run.left for run in undo_journal.runs()] == [0, 0]
        assert [path.read_bytes() for path in paths] == contents

    def test_a_failed_undo_can_be_repeated(self, make: CopySample, undo_journal: UndoJournal) -> None:
        run = undo_journal.start("")
        first, second = make("flac", "a"), make("flac", "b")
        for path in (first, second):
            write_key(path, A_MINOR, journal=run)
        tagged = first.read_bytes()
        write_key(first, D_FLAT)
        wrong = ["the file has changed since that run, so it stays as it is"]
        assert [undone.error for undone in undo_files(undo_journal, run.number)] == [None, *wrong]
        assert [undone.error for undone in undo_files(undo_journal, run.number)] == wrong
        assert [(found.changes, found.undone) for found in undo_journal.runs()] == [(2, 1)]
        first.write_bytes(tagged)
        assert [undone.error for undone in undo_files(undo_journal, run.number)] == [None]
        assert list(undo_files(undo_journal, run.number)) == []

    def test_files_are_counted_and_not_changes(self, make: CopySample, undo_journal: UndoJournal) -> None:
        run = undo_journal.start("")
        paths = [make("flac", "a"), make("flac", "b")]
        contents = [path.read_bytes() for path in paths]
        for key in (A_MINOR, D_FLAT, A_MINOR):
            for path in paths:
                write_key(path, key, journal=run)
        assert [(found.changes, found.undone) for found in undo_journal.runs()] == [(2, 0)]
        planned = list(undo_files(undo_journal, run.number, write=False))
        assert [(found.changes, found.undone) for found in undo_journal.runs()] == [(2, 0)]
        assert [path.read_bytes() for path in paths] != contents
        assert list(undo_files(undo_journal, run.number)) == planned
        assert [path.read_bytes() for path in paths] == contents
        assert [(found.changes, found.undone) for found in undo_journal.runs()] == [(2, 2)]

    @pytest.mark.parametrize(
        ("names", "folder"),
        [(["a/b/1", "a/b/2"], "a/b"), (["a/b/1", "a/b-c/2"], "a"), (["a/b/1"], "a/b"), (["1", "a/b/c/2", "a/1"], "")],
    )
    def test_the_folder_of_a_run(
        self, names: list[str], folder: str, undo_journal: UndoJournal, tmp_path: Path
    ) -> None:
        run = undo_journal.start("")
        for name in names:
            run.add(tmp_path / name, NOTHING)
        assert undo_journal.runs()[0].folder == tmp_path / folder

    def test_a_run_that_was_deleted_while_active_is_restored(self, make: CopySample, undo_journal: UndoJournal) -> None:
        """A watch that changes nothing for a week, while another run cleans up."""
        run = undo_journal.start("write key")
        undo_journal._database.execute("UPDATE runs SET started = started - 1e6")
        undo_journal.start("another").end()
        assert undo_journal.started() == []
        path = make("flac")
        content = path.read_bytes()
        write_key(path, A_MINOR, journal=run)
        assert [(found.number, found.what, found.changes) for found in undo_journal.runs()] == [
            (run.number, "write key", 1)
        ]
        undo_all(undo_journal, run.number)
        assert path.read_bytes() == content

    def test_old_and_large_runs_are_deleted(self, undo_journal: UndoJournal, monkeypatch: pytest.MonkeyPatch) -> None:
        def run_of(size: int, age: float | int) -> int:
            run = undo_journal.start("")
            run.add(Path("a"), Undo((0, b""), (0, b""), (Splice(0, 0, os.urandom(size)),)))
            undo_journal._database.execute("UPDATE runs SET started = started - ? WHERE id = ?", (age, run.number))
            return run.number

        monkeypatch.setattr(journal, "MAX_RECORD_BYTES", 10_000_000)
        run_of(10, journal.MAX_AGE_SECONDS + 10)
        year, large, new = run_of(10, journal.MAX_AGE_SECONDS - 1000), run_of(500_000, 10), run_of(500_000, 5)
        undo_journal.start("")
        assert [run.number for run in undo_journal.runs()] == [new, large, year]
        monkeypatch.setattr(journal, "MAX_RECORD_BYTES", 600_000)
        undo_journal.start("")
        assert [run.number for run in undo_journal.runs()] == [new]
        assert undo_journal._database.execute("SELECT count(*) FROM changes").fetchone() == (1,)


WRITER = """
import sys
from pathlib import Path
from stonecli.key import Key
from stonecli.tags import write_key
from stonecli.tags.undo.journal import UndoJournal
run = UndoJournal(Path(sys.argv[1])).start("")
print("ready", flush=True)
sys.stdin.readline()
for turn in range(int(sys.argv[2])):
    for path in map(Path, sys.argv[3:]):
        write_key(path, list(Key.all())[turn % 24], journal=run)
"""


def writer(*arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", WRITER, *map(str, arguments)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


class TestDatabase:
    @pytest.mark.skipif(os.name != "posix", reason="permissions as on Unix")
    def test_the_journal_is_private(self, tmp_path: Path) -> None:
        path = tmp_path / "state" / "stone" / FILE_NAME
        with contextlib.closing(UndoJournal(path)) as opened:
            opened.start("")
            found = {entry.name: entry.stat().st_mode & 0o777 for entry in path.parent.iterdir()}
            assert found == dict.fromkeys((FILE_NAME, f"{FILE_NAME}-wal", f"{FILE_NAME}-shm"), 0o600)
            assert path.parent.stat().st_mode & 0o777 == 0o700
            for entry in path.parent.iterdir():
                entry.chmod(0o644)
            path.parent.chmod(0o755)
            UndoJournal(path).close()
            assert {entry.stat().st_mode & 0o777 for entry in path.parent.iterdir()} == {0o600}
            assert path.parent.stat().st_mode & 0o777 == 0o700
        (path.parent / "of somebody else").touch()
        path.parent.chmod(0o755)
        UndoJournal(path).close()
        assert path.parent.stat().st_mode & 0o777 == 0o755

    @pytest.mark.parametrize("damage", ["no database", "middle", "another program's", "newer", "a folder", "records"])
    def test_a_damaged_journal_is_named_and_not_used(self, damage: str, tmp_path: Path) -> None:
        path = tmp_path / FILE_NAME
        opened = UndoJournal(path)
        run = opened.start("")
        for number in range(60):
            run.add(Path(f"a{number}"), Undo((0, b""), (0, b""), (Splice(0, 0, os.urandom(1500)),)))
        number = run.number
        opened.close()
        if damage == "no database":
            path.write_bytes(b"something else" * 1000)
        elif damage == "middle":
            content = bytearray(path.read_bytes())
            content[20_000:60_000] = os.urandom(40_000)
            path.write_bytes(content)
        elif damage == "a folder":
            path.unlink()
            path.mkdir()
        elif damage == "records":
            with contextlib.closing(sqlite3.connect(path)) as database, database:
                database.execute("UPDATE changes SET splices = x'1234'")
        else:
            with contextlib.closing(sqlite3.connect(path)) as database:
                database.execute(f"PRAGMA user_version = {0 if damage == 'another program' + chr(39) + 's' else 99}")
        before = path.read_bytes() if path.is_file() else None
        reason = {
            "newer": "written by a newer version",
            "another program's": "belongs to another program",
            "a folder": "cannot be used .*; check its permissions and the free disk space, or move it away",
        }

        def use() -> None:
            with contextlib.closing(UndoJournal(path)) as opened:
                list(opened.changes(number)) if damage == "records" else opened.start("")

        with pytest.raises(JournalError, match=reason.get(damage, "is damaged .*; move it away")) as error:
            use()
        assert str(path) in str(error.value)
        assert (path.read_bytes() if path.is_file() else None) == before

    def test_a_folder_that_cannot_be_created(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(JournalError, match="cannot be created: not a directory"):
            UndoJournal(tmp_path / "file" / "below" / FILE_NAME)

    def test_it_can_be_sent_to_another_process(self, make: CopySample, undo_journal: UndoJournal) -> None:
        run = undo_journal.start("")
        sent = pickle.loads(pickle.dumps(run))
        assert write_key(make("mp3"), A_MINOR, journal=sent)
        assert [item.changes for item in undo_journal.runs()] == [1]

    def test_two_runs_at_once(self, make: CopySample, undo_journal: UndoJournal) -> None:
        files = [[make("mp3", f"{run} {number}") for number in range(10)] for run in range(2)]
        contents = {path: path.read_bytes() for paths in files for path in paths}
        processes = [writer(undo_journal.path, 3, *paths) for paths in files]
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        for process in processes:
            process.communicate(timeout=60)
            assert process.returncode == 0
        assert [run.changes for run in undo_journal.runs()] == [10, 10]
        assert [len(list(undo_journal.changes(run.number))) for run in undo_journal.runs()] == [30, 30]
        for run in undo_journal.runs():
            undo_all(undo_journal, run.number)
        assert {path: path.read_bytes() for path in contents} == contents

    def test_the_changes_of_a_killed_run_can_be_undone(self, make: CopySample, undo_journal: UndoJournal) -> None:
        files = [make("flac", f"{number}") for number in range(40)]
        contents = {path: path.read_bytes() for path in files}
        process = writer(undo_journal.path, 1000, *files)
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        while not undo_journal.runs() or undo_journal.runs()[0].changes < len(files):
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert any(path.read_bytes() != content for path, content in contents.items())
        number = undo_journal.last_run()
        assert number is not None
        undo_all(undo_journal, number)
        assert {path: path.read_bytes() for path in files} == contents


OLD_SCHEMA = """
CREATE TABLE runs (id INTEGER PRIMARY KEY AUTOINCREMENT, started REAL NOT NULL, what TEXT NOT NULL, undone REAL);
CREATE TABLE changes (
    id INTEGER PRIMARY KEY, run INTEGER NOT NULL REFERENCES runs (id), time REAL NOT NULL, path BLOB NOT NULL,
    before_size INTEGER NOT NULL, before_hash BLOB NOT NULL, after_size INTEGER NOT NULL, after_hash BLOB NOT NULL,
    splices BLOB NOT NULL, undone REAL
);
CREATE INDEX changes_by_run ON changes (run);
PRAGMA user_version = 1;
"""
OLD_BEFORE = 1_536_044, "0d4dd80eea403d5fe1fc2efd77bd6f0752b47ab63b4a5261ee3af7cb82e2cbb5"
OLD_AFTER = 1_537_100, "ea9e65b7b93b0f5138ece2aa287a63e24786d3161e48a0bac3ef37a5ff799aa9"
OLD_SPLICES = "789c6361800026345aa540a7401ccc52606140010022900174"


class TestJournalOfAnEarlierVersion:
    """All bytes here were written by commit 6885745, whose digest hashes chunks over 1 MiB by columns."""

    @staticmethod
    def wav() -> bytes:
        samples = bytes(range(256)) * 6000
        form = struct.pack("<4sIHHIIHH", b"WAVEfmt "[4:], 16, 1, 1, 44100, 88200, 2, 16)
        content = b"WAVE" + form + b"data" + struct.pack("<I", len(samples)) + samples
        return b"RIFF" + struct.pack("<I", len(content)) + content

    @pytest.fixture
    def tagged(self, tmp_path: Path) -> Path:
        """The WAV after the key 8A was written to it, and the journal of that run."""
        content = self.wav()
        tag = bytes.fromhex("69643320170400004944330300000000080d544b4559000000030000003841") + bytes(1025)
        path = tmp_path / "song.wav"
        path.write_bytes(b"RIFF" + bytes.fromhex("44741700") + content[8:] + tag)
        database = sqlite3.connect(tmp_path / FILE_NAME)
        database.executescript(OLD_SCHEMA)
        database.execute("INSERT INTO runs VALUES (1, 1.0, 'write key', NULL)")
        hashes = [(size, bytes.fromhex(digest)) for size, digest in (OLD_BEFORE, OLD_AFTER)]
        row = (1, 1, 2.0, os.fsencode(path), *hashes[0], *hashes[1], bytes.fromhex(OLD_SPLICES))
        database.execute("INSERT INTO changes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)", row)
        database.commit()
        database.close()
        assert read_tags(path).text == "8A"
        return path

    def test_its_run_is_undone(self, tagged: Path) -> None:
        with contextlib.closing(UndoJournal(tagged.parent / FILE_NAME)) as undo_journal:
            assert [undone.error for undone in undo_files(undo_journal, 1)] == [None]
        assert tagged.read_bytes() == self.wav()

    def test_a_file_that_was_changed_since_is_refused(self, tagged: Path) -> None:
        content = bytearray(tagged.read_bytes())
        content[700_000] ^= 1
        tagged.write_bytes(content)
        with contextlib.closing(UndoJournal(tagged.parent / FILE_NAME)) as undo_journal:
            assert [undone.error for undone in undo_files(undo_journal, 1)] == [
                "the file has changed since that run, so it stays as it is"
            ]
        assert tagged.read_bytes() == content
