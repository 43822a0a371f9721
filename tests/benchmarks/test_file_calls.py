"""``stone tag --write-tags`` opens a music file at most three times, and reads its status at most six times."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from file_calls import calls_on, counts, make_song

pytestmark = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")


@pytest.fixture(scope="module", autouse=True)
def can_trace() -> None:
    """Skip where the system forbids tracing, as some containers do."""
    if subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False).returncode:
        pytest.skip("strace may not trace processes here")


@pytest.mark.parametrize("suffix", ["mp3", "flac", "m4a"])
def test_a_file_is_opened_once_and_passed_on(tmp_path: Path, suffix: str) -> None:
    """A decoder opens the file itself, and libsndfile gives up on M4A before ffmpeg opens it: three at most."""
    path = make_song(tmp_path, suffix)
    inode = path.stat().st_ino
    opened, status_read = counts(calls_on(path, tmp_path, []))
    assert path.stat().st_ino != inode  # it was analyzed and written
    assert opened <= 3
    assert status_read <= 6
    opened, status_read = counts(calls_on(path, tmp_path, []))  # now it has a key
    assert opened <= 1
    assert status_read <= 3
