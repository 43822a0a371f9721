import json
import os
import re
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import Result

from stonecli.key import Key
from stonecli.tags import read_tags, recorded, write_key
from tests.fixture_types import MakeModel, RunStone, StartProcess

Invoke = Callable[..., Result]
Song = Callable[..., Path]
A_MINOR = Key.parse("Am")


@pytest.fixture
def quick_model(tiny_model: MakeModel, tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "tiny.onnx")


@pytest.fixture
def tag(invoke: Invoke, quick_model: Path) -> Callable[..., Result]:
    return lambda *arguments: invoke("tag", "--model", quick_model, "--write-tags", *arguments)


@pytest.fixture
def content_of() -> Callable[[Path], dict[str, bytes]]:
    return lambda folder: {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(autouse=True)
def _no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")


def journal_file() -> Path:
    return Path(os.environ["STONE_STATE_DIR"]) / "undo.sqlite3"


def described(number: int, count: str, folder: Path, what: str = "write key") -> str:
    """The line that says which run is undone, as a pattern."""
    when = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    return f"stone: undoing run {number}: {what}, {when}, {count} in {re.escape(str(folder))}"


def test_a_plain_undo_undoes_only_the_last_run(
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
    assert result.exit_code == 0
    assert sorted(result.stdout.splitlines()) == [f"{folder / name}\trestored" for name in ("flac.flac", "mp3.mp3")]
    head, total, others = result.stderr.splitlines()
    assert re.fullmatch(described(2, "2 files", folder, "write key, comment"), head)
    assert total == "stone: run 2: 2 files restored"
    assert others == "stone: 1 other run can be undone: stone undo --list"
    assert content_of(folder) == second

    result = invoke("undo")
    assert (result.exit_code, result.stdout) == (2, "")
    lines = result.stderr.splitlines()
    assert lines[0] == "stone: the last run (2) is already undone; these runs can be undone by number:"
    assert lines[2].startswith("1\t")
    assert lines[2].endswith(f"\twrite key\t2\t0\t{folder}")
    assert lines[3] == "stone: choose a run, for example: stone undo 1"
    assert content_of(folder) == second

    assert invoke("undo", "1").exit_code == 0
    assert content_of(folder) == first
    result = invoke("undo", "1")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "stone: run 1 is already undone; stone undo --list shows the runs\n"
    result = invoke("undo")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "stone: nothing to undo\n")


def test_undo_of_a_run_that_is_still_writing(invoke: Invoke, tag: Invoke, song: Song) -> None:
    older, first, second = song("flac"), song("mp3"), song("aiff")
    tag(older)
    with recorded("write key") as run:
        write_key(first, A_MINOR, journal=run)
        assert invoke("undo").stdout == f"{first}\trestored\n"
        write_key(second, A_MINOR, journal=run)
        lines = invoke("undo", "--list").stdout.splitlines()
        assert [line.split("\t")[3:5] for line in lines] == [["files", "restored"], ["2", "1"], ["1", "0"]]
        result = invoke("undo")
        assert result.stdout == f"{second}\trestored\n"
        assert "2 files in " in result.stderr
        assert "1 not restored yet" in result.stderr
        assert invoke("undo").exit_code == 2
    assert read_tags(older).text is not None


def test_runs_at_the_same_time_are_all_found_by_plain_undos(invoke: Invoke, song: Song) -> None:
    paths = [song("flac", f"{number}") for number in range(4)]
    contents = [path.read_bytes() for path in paths]
    with recorded() as one, recorded() as two, recorded() as three, recorded() as four:
        for path, run in zip(paths, (three, one, four, two), strict=True):
            write_key(path, A_MINOR, journal=run)
    assert invoke("undo").exit_code == 0
    while (result := invoke("undo")).exit_code == 2:  # it names a run each time
        command = result.stderr.splitlines()[-1].partition("stone undo ")[2]
        assert invoke("undo", command).exit_code == 0
    assert result.stderr == "stone: nothing to undo\n"
    assert [path.read_bytes() for path in paths] == contents


def test_a_dry_run_changes_nothing(
    invoke: Invoke, tag: Invoke, song: Song, content_of: Callable[[Path], dict[str, bytes]]
) -> None:
    paths = [song("flac"), song("mp3"), song("aiff")]
    tag(*paths)
    paths[1].chmod(0o444)
    write_key(paths[2], A_MINOR)
    before = content_of(paths[0].parent)
    result = invoke("undo", "--dry-run")
    assert result.exit_code == 1
    assert result.stdout == f"{paths[0]}\trestorable\n"
    head, *errors, total = result.stderr.splitlines()
    assert head.startswith("stone: run 1: write key, ")
    assert sorted(errors) == [
        f"{paths[2]}: the file has changed since that run, so it stays as it is",
        f"{paths[1]}: the file is read-only; make it writable first",
    ]
    assert total == "stone: run 1: 1 file can be restored, 2 cannot; nothing was changed"
    assert content_of(paths[0].parent) == before
    records = [json.loads(line) for line in invoke("undo", "-n", "1", "--json").stdout.splitlines()]
    assert {(record["path"], record["status"]) for record in records} == {
        (str(paths[0]), "restorable"),
        (str(paths[1]), "error"),
        (str(paths[2]), "error"),
    }
    assert invoke("undo", "--list").stdout.splitlines()[1].split("\t")[3:5] == ["3", "0"]


def test_a_run_by_its_number(invoke: Invoke, tag: Invoke, song: Song) -> None:
    first, second = song("flac"), song("mp3")
    tag(first)
    tag(second)
    lines = [line.split("\t") for line in invoke("undo", "--list").stdout.splitlines()]
    assert lines[0] == ["run", "date", "what", "files", "restored", "folder"]
    numbers = [line[0] for line in lines[1:]]
    assert [line[2:] for line in lines[1:]] == [["write key", "1", "0", str(first.parent)]] * 2
    assert invoke("undo", numbers[1]).exit_code == 0
    assert (read_tags(first).text, read_tags(second).text is not None) == (None, True)
    assert invoke("undo", "--list").stdout.splitlines()[2].endswith(f"\twrite key\t1\t1\t{first.parent}")


def test_an_earlier_run_names_the_later_one_to_undo_first(invoke: Invoke, tag: Invoke, song: Song) -> None:
    path = song("flac")
    before = path.read_bytes()
    tag(path)
    tag(path, "--overwrite", "--notation", "musical")
    for options in ([], ["--dry-run"]):
        result = invoke("undo", "1", *options)
        assert result.exit_code == 1
        assert f"{path}: run 2 has changed it again; undo that run first: stone undo 2\n" in result.stderr
    assert invoke("undo", "2").exit_code == 0
    assert invoke("undo", "1").exit_code == 0
    assert path.read_bytes() == before


def test_as_json(invoke: Invoke, tag: Invoke, song: Song) -> None:
    paths = [song("flac"), song("mp3")]
    tag(*paths)
    (run,) = [json.loads(line) for line in invoke("undo", "--list", "--json").stdout.splitlines()]
    assert (run["what"], run["files"], run["restored"]) == ("write key", 2, 0)
    assert run["folder"] == str(paths[0].parent)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d", run["date"])
    paths[0].write_bytes(paths[0].read_bytes() + b"!")
    result = invoke("undo", "--json", run["run"])
    assert sorted(result.stdout.splitlines()) == [
        json.dumps(
            {
                "path": str(paths[0]),
                "status": "error",
                "error": "the file has changed since that run, so it stays as it is",
                "run": 1,
            }
        ),
        json.dumps({"path": str(paths[1]), "status": "restored", "error": None, "run": 1}),
    ]
    assert (result.exit_code, result.stderr) == (
        1,
        f"{paths[0]}: the file has changed since that run, so it stays as it is\n",
    )


def test_a_file_that_changed_since_is_named_and_tried_again(invoke: Invoke, tag: Invoke, song: Song) -> None:
    paths = [song("flac"), song("mp3"), song("aiff")]
    tag(paths[1])
    tag(paths[1], "--overwrite", "--notation", "musical")
    tag(*paths, "--overwrite", "--notation", "openkey")
    tagged = paths[0].read_bytes()
    write_key(paths[0], A_MINOR)
    paths[2].unlink()
    result = invoke("undo", "--preserve-mtime")
    assert result.exit_code == 1
    head, *errors, total, again, others = result.stderr.splitlines()
    assert re.fullmatch(described(3, "3 files", paths[0].parent), head)
    assert sorted(errors) == sorted(
        [
            f"{paths[0]}: the file has changed since that run, so it stays as it is",
            f"{paths[2]}: no such file or folder",
        ]
    )
    assert total == "stone: run 3: 1 file restored, 2 failed"
    assert again == "stone: to retry: stone undo --preserve-mtime 3"
    assert others == "stone: 2 other runs can be undone: stone undo --list"
    assert result.stdout == f"{paths[1]}\trestored\n"
    assert read_tags(paths[0]).key == A_MINOR
    paths[0].write_bytes(tagged)
    result = invoke("undo")  # tries what is left, and no older run
    assert result.stdout == f"{paths[0]}\trestored\n"
    assert "3 files in" in result.stderr
    assert "2 not restored yet" in result.stderr
    assert read_tags(paths[0]).text is None
    assert read_tags(paths[1]).text is not None


def test_a_removal_can_be_undone(invoke: Invoke, tag: Invoke, song: Song) -> None:
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


@pytest.mark.parametrize("arguments", [["7"], ["one"], ["--list", "1"], ["--list", "--dry-run"]], ids=" ".join)
def test_wrong_usage(invoke: Invoke, arguments: list[str]) -> None:
    result = invoke("undo", *arguments)
    assert result.exit_code == 2
    assert result.stderr
    assert not result.stdout


def test_previews_and_unchanged_runs_are_not_recorded(invoke: Invoke, tag: Invoke, song: Song) -> None:
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


def test_names_are_printed_without_escapes(invoke: Invoke, tag: Invoke, song: Song) -> None:
    path = song("mp3", "\x1b[31m[red]\x07")
    tag(path)
    result = invoke("undo")
    assert result.exit_code == 0
    assert "\\x1b[31m[red]\\x07.mp3\trestored" in result.stdout
    assert "\x1b" not in result.stdout


def test_the_list_in_another_process(stone: RunStone, song: Song, quick_model: Path) -> None:
    path = song("mp3")
    tagged = stone("tag", "--model", quick_model, "--write-tags", "--json", path)
    assert json.loads(tagged.stdout)["status"] == "written"
    assert "write key" in stone("undo", "--list").stdout


def test_times_are_those_of_the_users_clock(stone: RunStone, song: Song) -> None:
    with recorded() as run:
        write_key(song("mp3"), A_MINOR, journal=run)
    with closing(sqlite3.connect(journal_file())) as database, database:
        database.execute("UPDATE runs SET started = 1751371200")  # 12:00 UTC on 1 July 2025
    for zone, clock in (("UTC0", "12:00:00"), ("EST5EDT,M3.2.0,M11.1.0", "08:00:00"), ("JST-9", "21:00:00")):
        listed = stone("undo", "--list", TZ=zone).stdout.splitlines()[1].split("\t")
        assert listed[1] == f"2025-07-01 {clock}"
        said = stone("undo", "--dry-run", TZ=zone)
        assert f"write key, 2025-07-01 {clock}, 1 file in " in said.stderr


def test_an_interrupted_undo_is_finished_by_the_next(
    invoke: Invoke, song: Song, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [song("flac", f"{number}") for number in range(3)]
    contents = [path.read_bytes() for path in paths]
    with recorded() as run:
        for path in paths:
            write_key(path, A_MINOR, journal=run)
    replace, done = os.replace, []

    def interrupted(old: str, new: str) -> None:
        replace(old, new)
        done.append(new)
        if len(done) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    result = invoke("undo")
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == "stone: interrupted; to undo the rest: stone undo 1"
    assert invoke("undo").exit_code == 0
    assert [path.read_bytes() for path in paths] == contents
    assert invoke("undo", "--list").stdout.splitlines()[1].split("\t")[3:5] == ["3", "3"]


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
@pytest.mark.parametrize("end", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_ends_it_without_a_temporary_file(
    start_process: StartProcess,
    stone_command: list[str],
    invoke: Invoke,
    song: Song,
    content_of: Callable[[Path], dict[str, bytes]],
    end: str,
) -> None:
    folder = song("mp3").parent
    before = {f"{number}.mp3": song("mp3").read_bytes() for number in range(80)} | content_of(folder)
    for name, content in before.items():
        (folder / name).write_bytes(content)
    with recorded("write key") as run:
        for name in before:
            write_key(folder / name, A_MINOR, journal=run)
    process = start_process([*stone_command, "undo"])
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().endswith("restored\n")
    process.send_signal(getattr(signal, end))
    process.stdout.read()
    errors = process.stderr.read().splitlines()
    assert process.wait(timeout=60) == 130
    assert errors[1:] == [f"stone: interrupted; to undo the rest: stone undo {run.number}"]
    assert content_of(folder).keys() == before.keys()  # no temporary file
    assert content_of(folder) != before
    assert invoke("undo").exit_code == 0
    assert content_of(folder) == before
