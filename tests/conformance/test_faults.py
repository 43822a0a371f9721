"""If any system call fails, the file is the old one, or the complete new one."""

import errno
import io
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stonecli.errors import TagError
from stonecli.key import Key
from stonecli.tags import FieldRule, remove_key, undo_change, write_key
from stonecli.tags.edit import verified_copy as verified_copy
from stonecli.tags.undo.journal import UndoJournal
from tests.fixture_types import CopySample, ListLeftovers

A_MINOR = Key.parse("8A")
RULES = (FieldRule(), FieldRule("comment", "musical", "prepend"))
ERRORS = [errno.ENOSPC, errno.EIO, errno.EPERM]
CALLS = ["open", "close", "fstat", "stat", "lstat", "fsync", "replace", "chown", "chmod", "utime", "unlink", "readlink"]
CALLS += ["posix_fadvise", "listxattr", "getxattr", "setxattr"]


class Faults:
    """Counts the calls to the operating system, and lets the n-th one fail."""

    def __init__(self, at: int, number: int) -> None:
        self.at, self.number = at, number
        self.calls: list[str] = []

    def __call__(self, name: str) -> None:
        self.calls.append(name)
        if len(self.calls) - 1 == self.at:
            raise OSError(self.number, os.strerror(self.number))

    @property
    def failed(self) -> str | None:
        return self.calls[self.at] if self.at < len(self.calls) else None


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Any:
    """From now on the n-th call fails: in ``os``, and in reading and writing of the file and of its copy."""

    def begin(at: Any, number: Any) -> Any:
        faults = Faults(at, number)

        class Raw(io.FileIO):
            def readinto(self, buffer: Any) -> Any:
                faults("read")
                return super().readinto(buffer)

            def readall(self) -> Any:
                faults("read")
                return super().readall()

            def write(self, data: Any) -> Any:
                faults("write")
                return super().write(data)

            def seek(self, *arguments: Any) -> Any:
                faults("seek")
                return super().seek(*arguments)

        for name in CALLS:
            if hasattr(os, name):
                real = getattr(os, name)

                def call(*arguments: int, _name: str = name, _real: Callable[..., Any] = real, **options: Any) -> None:
                    faults(_name)
                    return _real(*arguments, **options)

                monkeypatch.setattr(os, name, call)
        monkeypatch.setattr(os, "fdopen", lambda handle, mode: io.BufferedRandom(Raw(handle, "r+b")))

        def open_file(path: Any, mode: Any = "r", *arguments: Any, **options: Any) -> Any:
            faults("open")
            return io.BufferedReader(Raw(str(path), "rb"))

        monkeypatch.setattr(Path, "open", open_file)
        return faults

    return begin


def outcome(act: Any) -> Any:
    """The message of the TagError, or None; other exceptions are raised."""
    try:
        act()
    except TagError as error:
        return str(error)
    return None


def every_fault(path: Any, act: Any, failing: Any, monkeypatch: pytest.MonkeyPatch, after: Any) -> Any:
    """Runs ``act`` with each call failing in each way; counts the outcomes."""
    before = path.read_bytes()
    counts = {"old": 0, "new": 0}
    for number in ERRORS:
        at = 0
        while True:
            faults = failing(at, number)
            reason = outcome(act)
            monkeypatch.undo()
            content = path.read_bytes()
            where = (os.strerror(number), at, faults.calls[-3:], reason)
            assert content in (before, after), where
            assert (reason is None) <= (content == after), where
            left = [entry for entry in path.parent.iterdir() if entry.name.startswith(".stone-")]
            # If even the removal of the copy fails, or that of its handle, the next run cleans up.
            if faults.failed is not None and "unlink" not in faults.calls[faults.at : faults.at + 1]:
                assert left == [], where
            for entry in left:
                entry.unlink()
            counts["new" if content == after else "old"] += 1
            path.write_bytes(before)
            if faults.failed is None:
                break
            at += 1
    return counts


def test_a_fault_at_every_call_of_a_write(
    sample: Any, make: CopySample, failing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(sample)
    content = path.read_bytes()
    write_key(path, A_MINOR, RULES)
    after = path.read_bytes()
    path.write_bytes(content)
    counts = every_fault(path, lambda: write_key(path, A_MINOR, RULES), failing, monkeypatch, after)
    assert counts["old"] > 60
    assert counts["new"] >= len(ERRORS)


@pytest.mark.parametrize("grows", [False, True])
def test_a_fault_at_every_call_of_a_write_of_many_blocks(
    grows: Any, make: CopySample, failing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make("flac")
    rules = (*RULES, FieldRule("grouping", "camelot", "append")) if grows else RULES
    if not grows:
        write_key(path, A_MINOR, RULES)  # makes the padding
        remove_key(path, RULES)
    path.write_bytes(path.read_bytes() + random.Random(1).randbytes(700_000))
    content = path.read_bytes()
    write_key(path, A_MINOR, rules)
    after = path.read_bytes()
    assert (len(after) > len(content)) == grows
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as small:
        small.setattr(verified_copy, "BLOCK", 1 << 16)
        small.setattr(verified_copy, "_WRITEBACK_BYTES", 1 << 17)
        counts = every_fault(path, lambda: write_key(path, A_MINOR, rules), failing, monkeypatch, after)
    assert counts["old"] > 150
    assert counts["new"] >= len(ERRORS)


@pytest.mark.parametrize("kind", ["flac", "mp3"])
def test_a_fault_at_every_call_of_an_undo(
    kind: Any, make: CopySample, failing: Any, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = make(kind)
    content = path.read_bytes()
    journal = UndoJournal(tmp_path_factory.mktemp("journal") / "undo.sqlite3")
    run = journal.start("")
    write_key(path, A_MINOR, RULES, journal=run)
    (change,) = journal.changes(run.number)
    journal.close()
    counts = every_fault(path, lambda: undo_change(path, change.undo), failing, monkeypatch, content)
    assert counts["old"] > 40
    assert counts["new"] >= len(ERRORS)


@pytest.mark.parametrize("kind", ["flac", "mp4"])
def test_a_fault_at_every_call_of_a_journalled_write(
    kind: Any, make: CopySample, failing: Any, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Where the file is the old one there may be a record too many; where it is new there is never one too few."""
    path = make(kind)
    content = path.read_bytes()
    journal = UndoJournal(tmp_path_factory.mktemp("journal") / "undo.sqlite3")
    at = 0
    while True:
        run = journal.start("")
        faults = failing(at, errno.EIO)
        outcome(lambda run=run: write_key(path, A_MINOR, RULES, journal=run))
        monkeypatch.undo()
        changes = list(journal.changes(run.number))
        if path.read_bytes() != content:
            (change,) = changes
            assert undo_change(path, change.undo)
        assert path.read_bytes() == content
        for entry in path.parent.glob(".stone-*"):
            entry.unlink()
        if faults.failed is None:
            break
        at += 1
    assert at > 30
    journal.close()


# Errors that users have reported


@pytest.mark.parametrize(
    ("call", "number", "reason"),
    [
        ("replace", errno.EPERM, "operation not permitted"),  # chattr +i, chflags uchg
        ("replace", errno.EACCES, "permission denied"),  # Windows: a sharing violation, another program has it open
        ("replace", errno.ESTALE, "stale file handle"),  # a network share that dropped
        ("fsync", errno.EIO, "input/output error"),
        ("fsync", errno.EDQUOT, "disk quota exceeded"),
    ],
)
def test_errors_of_the_system_are_one_line(
    call: Any, number: Any, reason: Any, make: CopySample, monkeypatch: pytest.MonkeyPatch, left_over: ListLeftovers
) -> None:
    path = make("flac")
    content, status = path.read_bytes(), path.stat()

    def refuse(*arguments: int, **options: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(TagError, match=reason):
        write_key(path, A_MINOR)
    monkeypatch.undo()
    assert path.read_bytes() == content
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (status.st_ino, status.st_mtime_ns)
    assert left_over() == []


def test_a_read_only_file_system(make: CopySample, monkeypatch: pytest.MonkeyPatch, left_over: ListLeftovers) -> None:
    path = make("flac")
    content = path.read_bytes()
    real = os.open

    def refuse(name: Any, flags: Any, *arguments: Any, **options: Any) -> Any:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), name)
        return real(name, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(TagError, match=r"^the disk is mounted read-only"):
        write_key(path, A_MINOR)
    monkeypatch.undo()
    assert path.read_bytes() == content


def test_windows_cannot_rename_an_open_file(
    make: CopySample, monkeypatch: pytest.MonkeyPatch, left_over: ListLeftovers
) -> None:
    """On Windows, the file is closed before it is replaced, and stone holds no lock."""
    path = make("flac")
    open_files = []
    real_open, real_fdopen, real_replace = Path.open, os.fdopen, os.replace

    def note(opened: Any) -> Any:
        open_files.append(opened)
        return opened

    def replace(old: Any, new: Any) -> Any:
        if not all(file.closed for file in open_files):
            raise PermissionError(13, "The process cannot access the file because it is being used by another process")
        real_replace(old, new)

    from stonecli.tags.edit import atomic_replace as safe_write

    class Windows:
        """``os`` as safe_write sees it."""

        name = "nt"

        def __getattr__(self, name: Any) -> Any:
            if name == "chown":
                raise AttributeError(name)
            return getattr(os, name)

    monkeypatch.delattr(os, "posix_fadvise", raising=False)
    monkeypatch.setattr(safe_write, "os", Windows())
    monkeypatch.setattr(Path, "open", lambda path, *arguments, **options: note(real_open(path, *arguments, **options)))
    monkeypatch.setattr(os, "fdopen", lambda *arguments: note(real_fdopen(*arguments)))
    monkeypatch.setattr(os, "replace", replace)
    assert write_key(path, A_MINOR)
    assert len(open_files) >= 2
    monkeypatch.undo()
    assert left_over() == []
    held = path.open("rb")
    monkeypatch.setattr(safe_write, "os", Windows())
    monkeypatch.setattr(os, "replace", replace)
    open_files.append(held)
    with pytest.raises(TagError, match="used by another process"):
        write_key(path, Key.parse("3B"))
    held.close()
