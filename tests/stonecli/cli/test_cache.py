import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import Result

Invoke = Callable[..., Result]
Song = Callable[..., Path]


def cache_file() -> Path:
    return Path(os.environ["STONE_CACHE_DIR"]) / "results.sqlite3"


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From when it is called, nothing may be listened to."""
    return lambda: monkeypatch.setattr("stonecli.tagger.detect_key", lambda *_: pytest.fail("it was listened to"))


def test_records_from_the_cache_are_the_same(
    invoke: Invoke, songs: Mapping[str, Path], tmp_path: Path, deaf: Callable[[], None]
) -> None:
    folder = tmp_path / "album"
    folder.mkdir()
    for path in songs.values():
        shutil.copy(path, folder)
    (folder / "bad.mp3").write_text("text")
    first = invoke("tag", folder, "--json", "--output", tmp_path / "1.csv")
    (folder / "bad.mp3").unlink()  # an error is not remembered
    deaf()
    second = invoke("tag", folder, "--json", "--output", tmp_path / "2.csv")
    assert second.exit_code == 0
    assert [json.loads(line) for line in second.stdout.splitlines()] == [
        record for record in map(json.loads, first.stdout.splitlines()) if not record["error"]
    ]
    lines = (tmp_path / "1.csv").read_text().splitlines()
    assert (tmp_path / "2.csv").read_text().splitlines() == [line for line in lines if "bad.mp3" not in line]
    written = invoke("tag", folder, "--write-tags", "--json")
    assert {json.loads(line)["status"] for line in written.stdout.splitlines()} == {"written"}


def test_no_cache(invoke: Invoke, song: Song, deaf: Callable[[], None]) -> None:
    path = song("mp3")
    assert invoke("tag", path, "--no-cache").exit_code == 0
    assert not cache_file().exists()
    assert invoke("tag", path).exit_code == 0
    deaf()
    assert invoke("tag", path).exit_code == 0
    assert "it was listened to" in invoke("tag", path, "--no-cache").stderr


def test_another_model_hears_for_itself(invoke: Invoke, song: Song, tiny_model: Callable[..., Path]) -> None:
    path = song("flac")
    first = invoke("tag", path, "--json")
    tiny = tiny_model(path.with_suffix(".onnx"))
    assert json.loads(invoke("tag", path, "--json", "--model", tiny).stdout)["model"].startswith("flac.onnx")
    assert invoke("tag", path, "--json").stdout == first.stdout


def test_the_cache_is_shown_and_cleared(invoke: Invoke, song: Song) -> None:
    invoke("tag", song("mp3"), song("flac"))
    result = invoke("cache")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"{cache_file()}: 2 results, ")
    assert invoke("cache", "clear").stdout.startswith(f"{cache_file()}: 0 results, ")
    assert invoke("cache").stdout.startswith(f"{cache_file()}: 0 results, ")
    assert invoke("cache", "burn").exit_code == 2


def test_a_cache_that_cannot_be_used_is_one_line(
    invoke: Invoke, song: Song, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    invoke("tag", song("mp3"))
    monkeypatch.setattr("stonecli.cache._BUSY_SECONDS", 0.1)
    with closing(sqlite3.connect(cache_file(), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for arguments in ([], ["clear"]):
            result = invoke("cache", *arguments)
            assert (result.exit_code, result.stderr) == (1, f"stone: {cache_file()}: database is locked\n")
    monkeypatch.setenv("STONE_CACHE_DIR", str(tmp_path / "other"))
    cache_file().mkdir(parents=True)
    result = invoke("cache")
    assert (result.exit_code, result.stderr) == (1, f"stone: {cache_file()}: unable to open database file\n")


def test_a_damaged_cache_is_no_error(invoke: Invoke, song: Song) -> None:
    path = song("mp3")
    first = invoke("tag", path)
    cache_file().write_bytes(b"damaged" * 1000)
    again = invoke("tag", path)
    assert (again.exit_code, again.stdout, again.stderr) == (0, first.stdout, "")
    shutil.rmtree(cache_file().parent)
    cache_file().parent.touch()
    again = invoke("tag", path)
    assert (again.exit_code, again.stdout, again.stderr) == (0, first.stdout, "")
