import json
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from typer.testing import Result

from stonecli.tags import read_tags


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_what_arrives_is_tagged_once_and_ctrl_c_ends_it(
    stone_command: list[str], songs: Mapping[str, Path], tmp_path: Path, end: signal.Signals
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    command = [*stone_command, "watch", str(folder), "--write-tags", "--json", "--settle", "0.5"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    assert "watching" in process.stderr.readline()
    shutil.copy(songs["mp3"], folder / "a.mp3")
    first = json.loads(process.stdout.readline())
    assert (first["path"], first["status"]) == (str(folder / "a.mp3"), "written")
    (folder / "bad.mp3").write_text("text")
    assert json.loads(process.stdout.readline())["status"] == "error"
    shutil.copy(songs["flac"], folder / "b.flac")
    assert json.loads(process.stdout.readline())["path"] == str(folder / "b.flac")  # and not a.mp3, which we changed
    process.send_signal(end)
    rest, errors = process.communicate(timeout=30)
    assert (process.returncode, rest) == (0, "")
    assert errors.count("\n") == 1  # that of bad.mp3
    assert {read_tags(path).text for path in (folder / "a.mp3", folder / "b.flac")} == {"7A"}


def test_wrong_usage(invoke: Callable[..., Result], tmp_path: Path) -> None:
    assert invoke("watch", tmp_path / "none").exit_code == 2
    assert invoke("watch", tmp_path, "--field", "colour").exit_code == 2


def test_a_folder_that_is_gone_ends_it(stone_command: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    process = subprocess.Popen([*stone_command, "watch", str(folder)], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert "watching" in process.stderr.readline()
    folder.rmdir()
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (1, f"stone: {folder}: the folder is gone\n")
