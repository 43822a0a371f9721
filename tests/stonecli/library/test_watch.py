import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stonecli.jobs import NOT_YET, NotYet
from stonecli.library import watch as watch_module
from stonecli.library.watch import FolderWatcher

PATIENCE = 20.0  # seconds


def collect(arrivals: Iterator[Path | NotYet], count: int, seconds: float = PATIENCE) -> list[Path]:
    """The next ``count`` files, or fewer where they do not arrive in time."""
    found: list[Path] = []
    end = time.monotonic() + seconds
    while len(found) < count and time.monotonic() < end:
        path = next(arrivals)
        if isinstance(path, Path):
            found.append(path)
    return found


@pytest.fixture(params=["events", "watchdog", "polling"])
def watch(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[int], list[Path]]]:
    """Waits for N files to arrive in ``tmp_path / "in"``, no longer than ``PATIENCE``."""
    folder = tmp_path / "in"
    folder.mkdir()
    if request.param == "watchdog":  # as on macOS and Windows
        monkeypatch.setattr(watch_module, "_has_inotify", lambda: False)
    with FolderWatcher(folder, 1.0, polling=request.param == "polling") as watcher:
        arrived: list[Path] = []

        def collect() -> None:
            for path in watcher:
                arrived.append(path)
                watcher.done(path)

        thread = threading.Thread(target=collect)
        thread.start()

        def wait(count: int) -> list[Path]:
            end = time.monotonic() + PATIENCE
            while len(arrived) < count and time.monotonic() < end:
                time.sleep(0.05)
            time.sleep(0.3)
            return list(arrived)

        yield wait
        watcher.stop()
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_new_files_are_reported(watch: Callable[[int], list[Path]], tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "a.mp3").write_bytes(b"whole")
    (folder / "notes.txt").write_bytes(b"no music")
    (folder / ".hidden.mp3").write_bytes(b"in the making")
    for name in ("#recycle", "@eaDir"):
        (folder / name).mkdir()
        (folder / name / "old.mp3").write_bytes(b"thrown away")
    (folder / "empty.mp3").touch()
    (folder / "b.flac.part").write_bytes(b"download")
    (folder / "b.flac.part").rename(folder / "b.flac")  # an atomic rename
    album = tmp_path / "album"
    album.mkdir()
    (album / "c.ogg").write_bytes(b"moved in with its folder")
    album.rename(folder / "album")
    assert sorted(path.relative_to(folder).as_posix() for path in watch(3)) == ["a.mp3", "album/c.ogg", "b.flac"]


def test_a_slow_copy_is_processed_once_when_complete(watch: Callable[[int], list[Path]], tmp_path: Path) -> None:
    path = tmp_path / "in" / "slow.mp3"
    with path.open("wb") as file:
        for _ in range(4):
            file.write(b"x" * 1000)
            file.flush()  # not to the disk: a busy one would take longer than a file has to be quiet
            time.sleep(0.3)
            assert watch(0) == []
    assert watch(1) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="needs pipes and links")
def test_pipes_and_folders_are_never_reported(watch: Callable[[int], list[Path]], tmp_path: Path) -> None:
    folder = tmp_path / "in"
    os.mkfifo(folder / "pipe.mp3")
    (folder / "endless.mp3").symlink_to("/dev/zero")
    (folder / "nowhere.mp3").symlink_to(tmp_path / "none")
    (folder / "circle.mp3").symlink_to(folder / "circle.mp3")
    (folder / "folder.mp3").mkdir()
    (folder / "turned.mp3").write_bytes(b"x")
    time.sleep(0.5)  # it is seen, and has not arrived
    (folder / "turned.mp3").unlink()
    (folder / "turned.mp3").mkdir()
    (folder / "a.mp3").write_bytes(b"x")
    assert watch(1) == [folder / "a.mp3"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs links")
def test_a_folder_that_links_to_itself_reports_a_file_once(watch: Callable[[int], list[Path]], tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "album").mkdir()
    for name in ("loop", "album/up"):
        (folder / name).symlink_to(folder)
    (folder / "a second name").symlink_to(folder / "album")
    time.sleep(0.5)  # the links are found first
    (folder / "a.mp3").write_bytes(b"x")
    (folder / "album" / "b.mp3").write_bytes(b"x")
    assert sorted(watch(2)) == [folder / "a.mp3", folder / "album" / "b.mp3"]
    (folder / "loop" / "a.mp3").write_bytes(b"a change by another path")
    assert sorted(watch(3))[:2] == [folder / "a.mp3"] * 2
    time.sleep(2.5)  # several listings
    assert len(watch(3)) == 3


def test_a_changed_file_returns_unless_stone_changed_it(watch: Callable[[int], list[Path]], tmp_path: Path) -> None:
    path = tmp_path / "in" / "a.mp3"
    path.write_bytes(b"first")
    assert watch(1) == [path]
    path.write_bytes(b"second version")
    assert watch(2) == [path, path]


@pytest.mark.parametrize("has_inotify", [True, False])
def test_the_current_folder_can_be_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_inotify: bool) -> None:
    monkeypatch.chdir(tmp_path)
    if not has_inotify:
        monkeypatch.setattr(watch_module, "_has_inotify", lambda: False)
    Path("old.mp3").write_bytes(b"there at the start")
    with FolderWatcher(Path(), 0.5) as watcher:
        arrivals = watcher.arrivals()
        assert next(arrivals) is NOT_YET
        Path("old.mp3").write_bytes(b"changed")
        Path(".hidden.mp3").write_bytes(b"x")
        Path("a.mp3").write_bytes(b"x")
        found = collect(arrivals, 2)
    assert sorted(found) == [Path("a.mp3"), Path("old.mp3")]


@pytest.mark.skipif(sys.platform != "linux", reason="needs inotify")
def test_lost_events_are_found_by_listing(tmp_path: Path) -> None:
    queue = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if queue > 20_000:
        pytest.skip("the queue of this system is long")
    (tmp_path / "old.mp3").write_bytes(b"there at the start")
    with FolderWatcher(tmp_path, 0.5) as watcher:
        arrivals = watcher.arrivals()
        assert next(arrivals) is NOT_YET  # from now on the folder is watched
        names = {f"{number}.mp3" for number in range(queue // 2 + 500)}  # two events per file
        for name in names:
            (tmp_path / name).write_bytes(b"x")
        found = [path.name for path in collect(arrivals, len(names), 3 * PATIENCE)]
    assert len(found) == len(names)
    assert set(found) == names


@pytest.mark.skipif(sys.platform == "win32", reason="needs a folder that can be replaced while it is watched")
def test_a_folder_that_was_replaced_is_watched_again(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "album").mkdir(parents=True)
    with FolderWatcher(folder, 0.5) as watcher:
        arrivals = watcher.arrivals()
        assert next(arrivals) is NOT_YET
        (folder / "album").rmdir()
        (folder / "album").mkdir()
        (folder / "album" / "deep").mkdir()
        assert collect(arrivals, 1, 2.0) == []
        (folder / "album" / "deep" / "a.mp3").write_bytes(b"x")
        assert collect(arrivals, 1) == [folder / "album" / "deep" / "a.mp3"]


def test_existing_and_deleted_files(tmp_path: Path) -> None:
    (tmp_path / "old.mp3").write_bytes(b"x")
    gone = tmp_path / "gone.mp3"
    gone.write_bytes(b"x")
    with FolderWatcher(tmp_path, 0.5, existing=True) as watcher:
        gone.unlink()
        for path in watcher:
            assert path == tmp_path / "old.mp3"
            watcher.stop()
