import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from stonecli.tags import read_tags

Invoke = Callable[..., Result]
Song = Callable[..., Path]

WITHOUT = """
import sys
for name in ("distributed", "dask", "fsspec", "s3fs", "pyarrow"):
    sys.modules[name] = None
from stonecli.cli.main import run
run()
"""


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (
            ["--cluster", "tcp://127.0.0.1:9"],
            1,
            "stone: a cluster needs another package; install it: pip install 'stonecli[cluster]'",
        ),
        (["--output", "x.parquet"], 1, "stone: Parquet needs pyarrow; install it: pip install 'stonecli[parquet]'"),
        (
            ["s3://b/x.mp3"],
            1,
            "s3://b/x.mp3: this URL needs a package; install it: pip install 'stonecli[cluster]'",
        ),
        ([], 0, ""),
    ],
)
def test_without_the_extra(song: Song, tmp_path: Path, arguments: list[str], code: int, said: str) -> None:
    command = [sys.executable, "-c", WITHOUT, "tag", str(song("flac")), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr.strip()) == (code, said)


def test_a_parquet_folder_is_resumed_on_one_machine(invoke: Invoke, song: Song, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs stonecli[cluster]")
    output = tmp_path / "keys.parquet"
    first, second = song("flac", "a"), song("mp3", "b")
    assert invoke("tag", first, "--output", output).exit_code == 0
    result = invoke("tag", first, second, "--output", output)
    assert (result.exit_code, result.stderr) == (0, f"stone: skipping 1 files that are already in {output}\n")
    assert len(result.stdout.splitlines()) == 2
    table = parquet.read_table(output)
    assert table["path"].to_pylist() == [str(first), str(second)]
    assert invoke("tag", first, "--output", output, "--write-tags").exit_code == 2  # it holds a preview


def test_parquet_has_absolute_paths(
    invoke: Invoke, song: Song, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs stonecli[cluster]")
    output = tmp_path / "keys.parquet"
    albums = [tmp_path / "first", tmp_path / "second"]
    for album in albums:
        album.mkdir()
        shutil.copy(song("flac"), album / "01.flac")
        monkeypatch.chdir(album)
        assert invoke("tag", ".", "--output", output, "--write-tags").exit_code == 0
    assert parquet.read_table(output)["path"].to_pylist() == [str(album / "01.flac") for album in albums]
    assert {read_tags(album / "01.flac").text for album in albums} == {"7A"}


def test_remove_does_not_skip_files_that_a_run_wrote(invoke: Invoke, song: Song, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow.parquet", reason="needs stonecli[cluster]")
    output, other, path = tmp_path / "keys.parquet", tmp_path / "other.parquet", song("flac")
    said = "{} is from a run {} --remove, whose files would be skipped; choose another --output"
    assert invoke("tag", path, "--output", output, "--write-tags").exit_code == 0
    result = invoke("tag", path, "--output", output, "--write-tags", "--remove")
    assert (result.exit_code, result.stderr) == (2, f"stone: {said.format(output, 'without')}\n")
    assert invoke("tag", path, "--output", other, "--write-tags", "--remove").exit_code == 0
    assert invoke("tag", path, "--output", other, "--write-tags", "--remove").exit_code == 0  # it goes on
    result = invoke("tag", path, "--output", other, "--write-tags")
    assert (result.exit_code, result.stderr) == (2, f"stone: {said.format(other, 'with')}\n")


def test_a_folder_of_other_files_is_refused(invoke: Invoke, song: Song, tmp_path: Path) -> None:
    output = tmp_path / "keys.parquet"
    output.write_bytes(b"mine")
    result = invoke("tag", song("flac"), "--output", output)
    assert (result.exit_code, result.stderr) == (2, f"stone: --output {output} is not a folder; choose another name\n")
    assert output.read_bytes() == b"mine"
