"""No change is lost: each call of a write fails, fails after it was done, or is interrupted after it was done.

Whichever it is, the file is the old one, or the journal has a record that leads back to it. This holds for everything
that writes tags: ``stone tag``, ``--remove``, ``undo``, ``watch``, beets, a worker of a cluster, and the Python API.
"""

from __future__ import annotations

import errno
import io
import itertools
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stonecli.cluster.worker import Job, ModelSource
from stonecli.errors import StoneError
from stonecli.key import Key
from stonecli.model.session import KeyModel
from stonecli.tagging import TagOptions
from stonecli.tags import recorded, write, write_key
from stonecli.tags.edit.atomic_replace import replace_file
from stonecli.tags.undo.journal import UndoJournal
from stonecli.tags.undo.runs import undo_files
from stonecli.tags.undo.worker_journals import collect, make_folder
from tests.fixture_types import CopySong, MakeModel

Act = Callable[[Path], object]
CALLS = ["open", "close", "fstat", "stat", "lstat", "fsync", "replace", "chown", "chmod", "utime", "unlink"]
CALLS += ["posix_fadvise", "listxattr", "getxattr", "setxattr"]
ENTRANCES = ("python", "tag", "remove", "undo", "watch", "beets", "worker")
WAYS = ("fails", "fails after it was done", "is interrupted after it was done")


class Faults:
    """Counts the calls of a write, from when the file is first about to be replaced, and makes one fail."""

    def __init__(self, at: int, way: str) -> None:
        self.at, self.way = at, way
        self.calls: list[str] = []
        self.is_on = False
        self._lock = threading.Lock()

    def __call__(self, name: str, real: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        with self._lock:
            is_chosen = self.is_on and len(self.calls) == self.at
            if self.is_on:
                self.calls.append(name)
        if not is_chosen:
            return real(*arguments, **options)
        if self.way == "fails":
            raise self._error(name)
        real(*arguments, **options)
        raise KeyboardInterrupt if self.way.startswith("is interrupted") else self._error(name)

    def _error(self, name: str) -> Exception:
        if name.startswith("sqlite "):
            return sqlite3.OperationalError("disk I/O error")
        return OSError(errno.EIO, os.strerror(errno.EIO))


@contextmanager
def broken(at: int, way: str) -> Iterator[Faults]:
    """While open, one call fails: of ``os``, of the file and its copy, or of SQLite."""
    faults = Faults(at, way)

    class Raw(io.FileIO):
        def readinto(self, buffer: Any) -> Any:
            return faults("read", super().readinto, buffer)

        def readall(self) -> Any:
            return faults("read", super().readall)

        def write(self, data: Any) -> Any:
            return faults("write", super().write, data)

    class Database(sqlite3.Connection):
        def execute(self, *arguments: Any) -> Any:
            return faults(f"sqlite {arguments[0][:20]}", super().execute, *arguments)

    fdopen, path_open, connect = os.fdopen, Path.open, sqlite3.connect

    def open_path(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if mode != "rb":
            return path_open(path, mode, *arguments, **options)
        return faults("open", lambda: io.BufferedReader(Raw(str(path), "rb")))

    def open_descriptor(handle: int, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if mode != "w+b":
            return fdopen(handle, mode, *arguments, **options)
        return io.BufferedRandom(Raw(handle, "r+b"))

    def replace_watched(*arguments: Any, **options: Any) -> None:
        faults.is_on = True
        replace_file(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            if hasattr(os, name):
                real = getattr(os, name)
                patch.setattr(os, name, lambda *a, _n=name, _r=real, **o: faults(_n, _r, *a, **o))
        patch.setattr(os, "fdopen", open_descriptor)
        patch.setattr(Path, "open", open_path)
        patch.setattr(sqlite3, "connect", lambda *a, **o: connect(*a, **o, factory=Database))
        patch.setattr(write, "replace_file", replace_watched)
        yield faults


@pytest.fixture
def quick_model(tiny_model: MakeModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny.onnx")


def by_api(path: Path) -> None:
    with recorded() as run:
        write_key(path, Key.parse("8A"), journal=run)


@pytest.fixture
def act(request: pytest.FixtureRequest) -> Act:
    """Write to the file through the function named ``entrance``; may raise anything."""
    entrance: str = request.param
    if entrance == "python":
        return by_api
    if entrance == "beets":
        return request.getfixturevalue("beets_act")
    if entrance == "worker":
        return request.getfixturevalue("worker_act")
    invoke, model = request.getfixturevalue("invoke"), request.getfixturevalue("quick_model")
    if entrance == "undo":
        return lambda path: invoke("undo")
    if entrance == "remove":
        return lambda path: invoke("tag", path, "--remove", "--write-tags", "--field", "key")
    if entrance == "tag":
        return lambda path: invoke("tag", path, "--write-tags", "--model", model, "--jobs", "1")
    assert entrance == "watch"

    class Arrived:
        """A folder in which one file has arrived, before the user stops the watch."""

        def __init__(self, folder: Path, *_: Any, **options: Any) -> None:
            self.folder = folder
            self.done = self.stop = lambda *_: None

        def __enter__(self) -> Arrived:
            return self

        def __exit__(self, *_: object) -> None:
            return

        def arrivals(self) -> Iterator[Path]:
            return iter([self.folder / "song.flac"])

    request.getfixturevalue("monkeypatch").setattr("stonecli.library.watch.FolderWatcher", Arrived)
    return lambda path: invoke("watch", path.parent, "--write-tags", "--model", model, "--jobs", "1")


@pytest.fixture
def worker_act(quick_model: Path) -> Act:
    sha256 = KeyModel(quick_model, "cpu").sha256
    job = Job("word", ModelSource(sha256, "cpu", str(quick_model)), TagOptions(write=True), what="write on a cluster")

    def act(path: Path) -> None:
        with closing(UndoJournal()) as journal:
            folder = make_folder(journal, journal.start("write on a cluster").number, "word")
            with suppress(KeyboardInterrupt):
                replace(job, journals=folder)([path])

    return act


@pytest.fixture
def beets_act(quick_model: Path) -> Act:
    pytest.importorskip("beets")
    from beets.library import Item, Library

    from stonecli.integrations.beets import StonePlugin

    plugin = StonePlugin()
    plugin.config["model"] = str(quick_model)
    (command,) = plugin.commands()
    options, _ = command.parser.parse_args(["-w", "-q", "-f"])

    def act(path: Path) -> None:
        library = Library(str(quick_model.with_name("library.db")))
        if not list(library.items()):
            library.add(Item(path=os.fsencode(path), title="song"))
        command.func(library, options, [])

    return act


def undo_everything(path: Path, before: bytes) -> None:
    """Without faults: undo every run, and check that the file is the original."""
    with closing(UndoJournal()) as journal:
        collect(journal)
        for run in journal.runs():
            assert [undone.error for undone in undo_files(journal, run.number)] == [None] * run.left
        assert path.read_bytes() == before
        assert all(run.left == 0 and run.undone == run.changes == 1 for run in journal.runs())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("entrance", "act"), [(name, name) for name in ENTRANCES], ids=ENTRANCES, indirect=["act"])
def test_no_change_is_lost_when_a_system_call_fails(
    entrance: str,
    act: Act,
    way: str,
    song: CopySong,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    path = song("flac", "song")
    if entrance == "remove":
        write_key(path, Key.parse("8A"))
    before = path.read_bytes()
    outcomes = {"old": 0, "new": 0}
    for at in itertools.count():
        state = tmp_path / f"state-{at}"
        state.mkdir(mode=0o700)
        monkeypatch.setenv("STONE_STATE_DIR", str(state))
        if entrance == "undo":
            by_api(path)
        start = path.read_bytes()
        with broken(at, way) as faults, suppress(KeyboardInterrupt, OSError, sqlite3.Error, StoneError):
            act(path)
        outcomes["old" if path.read_bytes() == start else "new"] += 1
        undo_everything(path, before)
        for entry in path.parent.glob(".stone-*"):
            entry.unlink()
        if len(faults.calls) <= at:
            break
    assert len(faults.calls) > 25, faults.calls
    assert min(outcomes.values()) > 1, outcomes
