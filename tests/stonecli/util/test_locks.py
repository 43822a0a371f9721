"""Locks between processes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from stonecli.util.app_dirs import make_private_folder
from stonecli.util.locks import LOCK_NAME, folder_lock, try_lock

HOLD = """
import sys
from pathlib import Path
from stonecli.util.locks import folder_lock
with folder_lock(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


class TestFolderLock:
    @pytest.mark.parametrize("end", ["close", "kill"])
    def test_waits_for_another_process(self, end: str, tmp_path: Path) -> None:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        entered = threading.Event()

        def enter() -> None:
            with folder_lock(tmp_path):
                entered.set()

        waiting = threading.Thread(target=enter, daemon=True)
        try:
            assert process.stdout is not None
            assert process.stdin is not None
            assert process.stdout.readline() == "locked\n"
            waiting.start()
            assert not entered.wait(0.5)
            if end == "kill":
                process.kill()
            else:
                process.stdin.close()
            assert entered.wait(60)
        finally:
            process.kill()
            process.wait()
        waiting.join(60)

    def test_a_released_lock_can_be_acquired_again(self, tmp_path: Path) -> None:
        for _ in range(2):
            with folder_lock(tmp_path):
                pass

    def test_needs_the_folder(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError), folder_lock(tmp_path / "missing"):
            pass

    def test_does_not_wait_if_no_lock_file_can_be_created(self, tmp_path: Path) -> None:
        (tmp_path / LOCK_NAME).mkdir()
        with folder_lock(tmp_path):
            pass

    @pytest.mark.skipif(os.name != "posix", reason="needs POSIX modes")
    def test_a_lock_file_does_not_make_the_folder_foreign(self, tmp_path: Path) -> None:
        with folder_lock(tmp_path):
            pass
        tmp_path.chmod(0o755)
        make_private_folder(tmp_path)
        assert tmp_path.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such locks")
def test_a_file_is_locked_by_one_descriptor_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"content")
    with path.open("rb") as first, path.open("rb") as second:
        assert try_lock(first)
        assert not try_lock(second)
    with path.open("rb") as third:
        assert try_lock(third)
    assert path.read_bytes() == b"content"
