import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import Result

from stonecli.util.app_dirs import ADVICE
from tests.fixture_types import MakeModel, RunStone
from tests.tag_samples import tagged

Invoke = Callable[..., Result]
Song = Callable[..., Path]


def cache_file() -> Path:
    return Path(os.environ["STONE_CACHE_DIR"]) / "results.sqlite3"


def replaced() -> str:
    """The line about a damaged cache."""
    return f"stone: the result cache {cache_file()} was damaged or from another version, so stone started a new one\n"


@pytest.fixture
def forbid_analysis(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """After this call, any analysis fails the test."""
    return lambda: monkeypatch.setattr(
        "stonecli.tagging.tagger.detect_key", lambda *_, **__: pytest.fail("it was analyzed")
    )


def test_records_from_the_cache_are_the_same(
    invoke: Invoke, songs: Mapping[str, Path], tmp_path: Path, forbid_analysis: Callable[[], None]
) -> None:
    folder = tmp_path / "album"
    folder.mkdir()
    for path in songs.values():
        shutil.copy(path, folder)
    (folder / "bad.mp3").write_text("text")
    first = invoke("tag", folder, "--json", "--output", tmp_path / "1.csv")
    (folder / "bad.mp3").unlink()  # an error is not remembered
    forbid_analysis()
    second = invoke("tag", folder, "--json", "--output", tmp_path / "2.csv")
    assert second.exit_code == 0
    assert [json.loads(line) for line in second.stdout.splitlines()] == [
        record for record in map(json.loads, first.stdout.splitlines()) if not record["error"]
    ]
    lines = (tmp_path / "1.csv").read_text().splitlines()
    assert (tmp_path / "2.csv").read_text().splitlines() == [line for line in lines if "bad.mp3" not in line]
    written = invoke("tag", folder, "--write-tags", "--json")
    assert {json.loads(line)["status"] for line in written.stdout.splitlines()} == {"written"}


def test_no_cache(invoke: Invoke, song: Song, forbid_analysis: Callable[[], None]) -> None:
    path = song("mp3")
    assert invoke("tag", path, "--no-cache").exit_code == 0
    assert not cache_file().exists()
    assert invoke("tag", path).exit_code == 0
    forbid_analysis()
    assert invoke("tag", path).exit_code == 0
    assert "it was analyzed" in invoke("tag", path, "--no-cache").stderr


def test_another_model_does_not_use_the_cached_result(invoke: Invoke, song: Song, tiny_model: MakeModel) -> None:
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
    monkeypatch.setattr("stonecli.cache.database._BUSY_SECONDS", 0.1)
    with closing(sqlite3.connect(cache_file(), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        result = invoke("cache")
        assert (result.exit_code, result.stderr) == (1, f"stone: {cache_file()}: database is locked; {ADVICE}\n")
        result = invoke("cache", "clear")  # works all the same
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout.startswith(f"{cache_file()}: 0 results, ")
    monkeypatch.setenv("STONE_CACHE_DIR", str(tmp_path / "other"))
    cache_file().mkdir(parents=True)
    for arguments in ([], ["clear"]):
        result = invoke("cache", *arguments)
        assert result.exit_code == 1
        assert result.stderr.startswith(f"stone: {cache_file()}: ")
        assert len(result.stderr.splitlines()) == 1


def test_a_damaged_cache_is_not_an_error(invoke: Invoke, song: Song) -> None:
    path = song("mp3")
    first = invoke("tag", path)
    cache_file().write_bytes(b"damaged" * 1000)
    again = invoke("tag", path)
    assert (again.exit_code, again.stdout, again.stderr) == (0, first.stdout, replaced())
    assert invoke("tag", path).stderr == ""


@pytest.mark.parametrize("arguments", [["tag"], ["tag", "--json"], ["compare"], ["convert", "--write-tags"], ["mix"]])
def test_an_unusable_cache_is_told_once(
    invoke: Invoke, song: Song, tmp_path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tagged(song("flac"), initialkey="A minor").parent
    tagged(song("flac", "other"), initialkey="Am")
    monkeypatch.setenv("STONE_CACHE_DIR", str(tmp_path / "cache"))
    cache_file().parent.touch()
    result = invoke(*arguments, folder)
    assert result.exit_code == 0
    (line,) = result.stderr.splitlines()
    assert line == (
        f"stone: the result cache {cache_file()} cannot be used (not a directory), so the next run may analyze the "
        f"same files again; {ADVICE}"
    )
    quiet = [argument for argument in arguments if argument != "--json"]
    assert invoke(*quiet, "--quiet", folder).stderr == ""


@pytest.mark.skipif(os.name != "posix", reason="permissions as on Unix")
def test_a_cache_that_may_not_be_written_is_told_once(stone: RunStone, song: Song, tmp_path: Path) -> None:
    paths = [song("flac"), song("mp3")]
    assert stone("tag", paths[0]).returncode == 0
    for path, mode in ((cache_file(), 0o400), (cache_file().parent, 0o500)):
        path.chmod(mode)
    try:
        result = stone("tag", *paths, weak=True)
    finally:
        cache_file().parent.chmod(0o700)
    assert (result.returncode, result.stderr.count("\n")) == (0, 1)
    assert result.stderr.startswith(f"stone: the result cache {cache_file()} cannot be used (")


@pytest.mark.parametrize("arguments", [["cache"], ["cache", "clear"], ["tag"]], ids=" ".join)
@pytest.mark.parametrize("pages", ["tables", "all but the first", "schema"])
def test_a_cache_with_damaged_pages_is_replaced(
    invoke: Invoke, song: Song, arguments: list[str], pages: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The header is intact, so that SQLite opens the file."""
    path = song("mp3")
    first = invoke("tag", path)
    with closing(sqlite3.connect(cache_file())) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(cache_file().read_bytes())
    if pages == "schema":
        content[110:4096] = os.urandom(4096 - 110)
    else:
        end = 5 * 4096 if pages == "tables" else len(content)
        content[4096:end] = os.urandom(end - 4096)
    cache_file().write_bytes(content)
    result = invoke(*arguments, *([path] if arguments == ["tag"] else []))
    assert result.exit_code == 0
    if arguments == ["tag"]:
        assert (result.stdout, result.stderr) == (first.stdout, replaced())
    else:
        assert result.stdout.startswith(f"{cache_file()}: 0 results, ")
        assert result.stderr == ("" if "clear" in arguments else replaced())
    again = invoke("tag", path)
    assert (again.stdout, again.stderr) == (first.stdout, "")
    result = invoke("cache")
    assert result.stdout.startswith(f"{cache_file()}: 1 results, ")
    assert result.stderr == ""
    with closing(sqlite3.connect(cache_file())) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_damaged_cache_is_replaced_by_the_next_process(stone: RunStone, invoke: Invoke, song: Song) -> None:
    """Pages 2 to 5, as a bad disk leaves them: each command works, and then the cache works again."""
    path = song("mp3")
    first = stone("tag", path)
    content = bytearray(cache_file().read_bytes())
    content[4096 : 5 * 4096] = os.urandom(4 * 4096)
    for command, count in ((["tag", path], 1), (["cache"], 0), (["cache", "clear"], 0)):
        cache_file().write_bytes(content)
        result = stone(*command)
        assert result.returncode == 0, result.stderr
        if command[0] == "tag":
            assert (result.stdout, result.stderr) == (first.stdout, replaced())
        assert invoke("cache").stdout.startswith(f"{cache_file()}: {count} results, ")


@pytest.mark.skipif(os.name != "posix", reason="permissions as on Unix")
@pytest.mark.parametrize("mode", [0o1777, 0o777, 0o2775, 0o775])
def test_a_folder_of_another_program_is_unchanged(
    invoke: Invoke, song: Song, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    """As /tmp in a container, where nothing but stone's files may be in it, or the folder of a group."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(mode)
    monkeypatch.setenv("STONE_CACHE_DIR", str(folder))
    monkeypatch.setenv("STONE_STATE_DIR", str(folder))
    path = song("mp3")
    for _ in range(2):  # the second run finds only stone's files there
        assert invoke("tag", path, "--write-tags", "--overwrite").exit_code == 0
        assert folder.stat().st_mode & 0o7777 == mode
    assert {entry.stat().st_mode & 0o777 for entry in folder.iterdir()} == {0o600}


@pytest.mark.skipif(os.name != "posix", reason="permissions as on Unix")
@pytest.mark.parametrize("is_old", [False, True])
def test_other_users_cannot_read_the_cache(
    invoke: Invoke, song: Song, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_old: bool
) -> None:
    """It lists the paths of the user's library."""
    folder = tmp_path / "caches" / "stone"
    monkeypatch.setenv("STONE_CACHE_DIR", str(folder))
    path = song("mp3")
    if is_old:  # as stone 0.1 made it
        assert invoke("tag", path).exit_code == 0
        folder.chmod(0o755)
        for entry in folder.iterdir():
            entry.chmod(0o644)
    assert invoke("tag", path).exit_code == 0
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {entry.stat().st_mode & 0o777 for entry in folder.iterdir()} == {0o600}
