"""Outputs on a disk on which nothing can be written: no empty file appears, and no file of the user is emptied."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.fixture_types import CopySong
from tests.tag_samples import tagged

pytest.importorskip("resource", reason="needs ulimit")
FULL = ["sh", "-c", 'ulimit -f 0 && exec "$@"', "sh"]  # every write fails
OUTPUTS = {"--playlist": "set.m3u8", "--rekordbox": "keys.xml", "--html": "keys.html"}


@pytest.mark.parametrize(("table", "has_files"), [("keys.csv", False), ("keys.csv", True), ("keys.parquet", False)])
def test_a_full_disk_leaves_no_empty_file(
    stone_command: list[str], song: CopySong, tmp_path: Path, table: str, has_files: bool
) -> None:
    if table.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    out = tmp_path / "out"
    out.mkdir()
    options: dict[str, str] = {**OUTPUTS, "--output": table}
    old = '<DJ_PLAYLISTS><PRODUCT Name="stone"/></DJ_PLAYLISTS>'
    if has_files:
        for name in options.values():
            (out / name).write_text(old)
    before = {path: path.read_bytes() for path in out.iterdir()}
    file = tagged(song("flac"), initialkey="Am")
    arguments = [text for option, name in options.items() for text in (option, str(out / name))]
    command = [*FULL, *stone_command, "tag", str(file), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1, result.stderr
    assert "file too large" in result.stderr
    assert {path: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize("table", ["keys.csv", "keys.json", "keys.ndjson"])
def test_a_disk_that_fills_up_leaves_no_cut_table(
    stone_command: list[str], song: CopySong, tmp_path: Path, table: str
) -> None:
    missing = "".join(f"{number}.mp3\n" for number in range(500))  # more rows than a buffer
    (tmp_path / "set.m3u8").write_text(f"{tagged(song('flac'), initialkey='Am')}\n{missing}")
    out = tmp_path / "out"
    out.mkdir()
    command = [*FULL, *stone_command, "tag", str(tmp_path / "set.m3u8"), "--output", str(out / table)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1, result.stderr
    assert f"{table}: file too large\n" in result.stderr
    assert not [*out.iterdir()]
