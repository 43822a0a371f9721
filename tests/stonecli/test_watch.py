import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stonecli.watch import FolderWatcher

PATIENCE = 20.0  # seconds


@pytest.fixture(params=[False, True], ids=["events", "polling"])
def watch(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[int], list[Path]]]:
    """Waits for so many files to arrive in ``tmp_path / "in"``, no longer than ``PATIENCE``."""
    folder = tmp_path / "in"
    folder.mkdir()
    with FolderWatcher(folder, 1.0, polling=request.param) as watcher:
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


def test_what_arrives(watch: Callable[[int], list[Path]], tmp_path: Path) -> None:
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


def test_a_slow_copy_comes_once_and_whole(watch: Callable[[int], list[Path]], tmp_path: Path) -> None:
    path = tmp_path / "in" / "slow.mp3"
    with path.open("wb") as file:
        for _ in range(8):
            file.write(b"x" * 1000)
            file.flush()  # not to the disk: a busy one would take longer than a file has to be quiet
            time.sleep(0.3)
            assert watch(0) == []
    assert watch(1) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="needs pipes and links")
def test_what_is_no_file_never_arrives(watch: Callable[[int], list[Path]], tmp_path: Path) -> None:
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


def test_what_was_there_and_what_goes(tmp_path: Path) -> None:
    (tmp_path / "old.mp3").write_bytes(b"x")
    gone = tmp_path / "gone.mp3"
    gone.write_bytes(b"x")
    with FolderWatcher(tmp_path, 0.5, existing=True) as watcher:
        gone.unlink()
        for path in watcher:
            assert path == tmp_path / "old.mp3"
            watcher.stop()
