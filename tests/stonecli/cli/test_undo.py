import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import Result

from stonecli.key import Key
from stonecli.tags import read_tags, recorded, write_key

Invoke = Callable[..., Result]
Song = Callable[..., Path]
A_MINOR = Key.parse("Am")


@pytest.fixture
def quick_model(tiny_model: Callable[..., Path], tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "tiny.onnx")


@pytest.fixture
def tag(invoke: Invoke, quick_model: Path) -> Callable[..., Result]:
    return lambda *arguments: invoke("tag", "--model", quick_model, "--write-tags", *arguments)


@pytest.fixture
def content_of() -> Callable[[Path], dict[str, bytes]]:
    return lambda folder: {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(autouse=True)
def _no_colour(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TERM", "dumb")
    return


def journal_file() -> Path:
    return Path(os.environ["STONE_STATE_DIR"]) / "undo.sqlite3"


def test_the_last_run_is_taken_back_and_then_the_one_before(
    invoke: Invoke, tag: Invoke, song: Song, content_of: Callable[[Path], dict[str, bytes]]
) -> None:
    folder = song("flac").parent
    song("mp3")
    first = content_of(folder)
    assert tag(folder).exit_code == 0
    second = content_of(folder)
    assert tag(folder, "--overwrite", "--notation", "musical", "--field", "key", "--field", "comment").exit_code == 0
    assert second != content_of(folder) != first

    result = invoke("undo")
    assert (result.exit_code, result.stderr) == (0, "")
    assert sorted(result.stdout.splitlines()) == [f"{folder / name}\trestored" for name in ("flac.flac", "mp3.mp3")]
    assert content_of(folder) == second
    assert invoke("undo").exit_code == 0
    assert content_of(folder) == first
    result = invoke("undo")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "stone: nothing to take back\n")


def test_a_run_that_goes_on(invoke: Invoke, tag: Invoke, song: Song) -> None:
    older, first, second = song("flac"), song("mp3"), song("aiff")
    tag(older)
    with recorded("write key") as run:
        write_key(first, A_MINOR, journal=run)
        assert invoke("undo").stdout == f"{first}\trestored\n"
        write_key(second, A_MINOR, journal=run)
        lines = invoke("undo", "--list").stdout.splitlines()
        assert [line.split("\t")[3:] for line in lines] == [["files", "taken back"], ["2", "1"], ["1", "0"]]
        assert invoke("undo").stdout == f"{second}\trestored\n"
        assert invoke("undo").stdout == f"{older}\trestored\n"


def test_a_run_by_its_number(invoke: Invoke, tag: Invoke, song: Song) -> None:
    first, second = song("flac"), song("mp3")
    tag(first)
    tag(second)
    lines = [line.split("\t") for line in invoke("undo", "--list").stdout.splitlines()]
    assert lines[0] == ["run", "date", "what", "files", "taken back"]
    numbers = [line[0] for line in lines[1:]]
    assert [line[2:] for line in lines[1:]] == [["write key", "1", "0"]] * 2
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d", line[1]) for line in lines[1:])
    assert invoke("undo", numbers[1]).exit_code == 0
    assert (read_tags(first).text, read_tags(second).text is not None) == (None, True)
    assert invoke("undo", "--list").stdout.splitlines()[2].endswith("\twrite key\t1\t1")


def test_as_json(invoke: Invoke, tag: Invoke, song: Song) -> None:
    paths = [song("flac"), song("mp3")]
    tag(*paths)
    (run,) = [json.loads(line) for line in invoke("undo", "--list", "--json").stdout.splitlines()]
    assert (run["what"], run["files"], run["taken_back"]) == ("write key", 2, 0)
    paths[0].write_bytes(paths[0].read_bytes() + b"!")
    result = invoke("undo", "--json", run["run"])
    assert sorted(result.stdout.splitlines()) == [
        json.dumps({"path": str(paths[0]), "status": "error", "error": "the file has changed since"}),
        json.dumps({"path": str(paths[1]), "status": "restored", "error": None}),
    ]
    assert (result.exit_code, result.stderr) == (1, f"{paths[0]}: the file has changed since\n")


def test_a_file_that_changed_since_is_named_and_left(invoke: Invoke, tag: Invoke, song: Song) -> None:
    paths = [song("flac"), song("mp3"), song("aiff")]
    tag(*paths)
    write_key(paths[0], A_MINOR)
    paths[2].unlink()
    result = invoke("undo")
    assert result.exit_code == 1
    assert sorted(result.stderr.splitlines()) == sorted(
        [f"{paths[0]}: the file has changed since", f"{paths[2]}: no such file"]
    )
    assert result.stdout == f"{paths[1]}\trestored\n"
    assert read_tags(paths[0]).key == A_MINOR
    assert read_tags(paths[1]).text is None
    assert invoke("undo").stderr == "stone: nothing to take back\n"  # it was tried: the run before is the last one


def test_a_removal_can_be_taken_back(invoke: Invoke, tag: Invoke, song: Song) -> None:
    path = song("m4a aac")
    tag(path)
    written = path.read_bytes()
    assert invoke("tag", path, "--remove", "--write-tags").exit_code == 0
    assert read_tags(path).text is None
    assert invoke("undo").exit_code == 0
    assert path.read_bytes() == written


@pytest.mark.parametrize("keep", [True, False])
def test_the_modification_time(invoke: Invoke, tag: Invoke, song: Song, keep: bool) -> None:
    path = song("mp3")
    tag(path)
    os.utime(path, ns=(10**18, 10**18))
    assert invoke("undo", *(["--preserve-mtime"] if keep else [])).exit_code == 0
    assert (path.stat().st_mtime_ns == 10**18) == keep


@pytest.mark.parametrize("arguments", [["7"], ["one"], ["--list", "1"]], ids=" ".join)
def test_wrong_usage(invoke: Invoke, arguments: list[str]) -> None:
    result = invoke("undo", *arguments)
    assert result.exit_code == 2
    assert result.stderr
    assert not result.stdout


def test_previews_and_runs_without_a_change_are_no_runs(invoke: Invoke, tag: Invoke, song: Song) -> None:
    path = song("mp3")
    assert invoke("tag", path).exit_code == 0
    assert not journal_file().exists()
    tag(path)
    tag(path)
    assert len(invoke("undo", "--list").stdout.splitlines()) == 2


def test_nothing_is_written_without_a_journal(invoke: Invoke, tag: Invoke, song: Song) -> None:
    path = song("mp3")
    content = path.read_bytes()
    journal_file().write_bytes(b"damaged" * 1000)
    for result in (tag(path), tag(path, "--remove"), invoke("undo"), invoke("undo", "--list")):
        assert result.exit_code == 1
        assert result.stdout == ""
        (line,) = result.stderr.splitlines()
        assert line.startswith(f"stone: the undo journal {journal_file()} is damaged")
    assert path.read_bytes() == content
    assert invoke("tag", path).exit_code == 0  # a preview needs none


def test_names_are_not_obeyed(invoke: Invoke, tag: Invoke, song: Song) -> None:
    path = song("mp3", "\x1b[31m[red]\x07")
    tag(path)
    result = invoke("undo")
    assert result.exit_code == 0
    assert "\\x1b[31m[red]\\x07.mp3\trestored" in result.stdout
    assert "\x1b" not in result.stdout


def test_the_list_in_a_process_of_its_own(stone: Callable[..., object], song: Song, quick_model: Path) -> None:
    path = song("mp3")
    tagged = stone("tag", "--model", quick_model, "--write-tags", "--json", path)
    assert json.loads(tagged.stdout)["status"] == "written"  # type: ignore[attr-defined]
    assert "write key" in stone("undo", "--list").stdout  # type: ignore[attr-defined]
