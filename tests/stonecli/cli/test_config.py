import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from stonecli.config import MAX_BYTES, config_path, read_config

Invoke = Callable[..., Result]
Song = Callable[..., Path]


def test_defaults_are_set_used_shown_and_taken_out(invoke: Invoke, song: Song) -> None:
    assert invoke("config", "path").stdout == f"{config_path()}\n"
    assert invoke("config").stdout == ""
    assert invoke("config", "set", "tag.notation", "musical").exit_code == 0
    assert invoke("config", "set", "tag.field", "key", "comment=camelot").exit_code == 0
    assert invoke("config", "set", "tag.min-confidence", "0.1").exit_code == 0
    assert invoke("config", "set", "analyze.json", "true").exit_code == 0
    assert invoke("config", "show").stdout.splitlines() == [
        'tag.notation = "musical"',
        'tag.field = ["key", "comment=camelot"]',
        "tag.min-confidence = 0.1",
        "analyze.json = true",
    ]
    path = song("flac")
    assert invoke("tag", path).stdout.splitlines()[1].split("\t")[2] == "Dm"
    assert invoke("tag", path, "--notation", "openkey").stdout.splitlines()[1].split("\t")[2] == "12m"
    assert invoke("analyze", path).stdout.startswith('{"path"')
    assert invoke("config", "unset", "tag.notation").exit_code == 0
    assert invoke("tag", path).stdout.splitlines()[1].split("\t")[2] == "7A"
    again = invoke("config", "unset", "tag.notation")
    assert (again.exit_code, again.stderr) == (1, "stone: tag.notation is not set\n")


@pytest.mark.parametrize("text", ["007", "1e5", "1_0", "7", "0.50", "nan"])
def test_a_text_stays_as_it_was_written(invoke: Invoke, text: str) -> None:
    """Though it looks like a number: the value of --model is the name of a file."""
    assert invoke("config", "set", "tag.model", text).exit_code == 0
    value = read_config(config_path())["tag"]["model"]
    assert str(value) == text
    assert invoke("tag", config_path().parent / "none.mp3").stderr.startswith(f"stone: {text}: ")


def test_comments_and_a_link_stay(invoke: Invoke, tmp_path: Path) -> None:
    kept = tmp_path / "dotfiles.toml"
    kept.write_text('# mine\n[tag]\nnotation = "openkey" # so\n')
    config_path().symlink_to(kept)
    assert invoke("config", "set", "tag.jobs", "3").exit_code == 0
    assert kept.read_text() == '# mine\n[tag]\nnotation = "openkey" # so\njobs = 3\n'
    assert config_path().is_symlink()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[tag", "not TOML"),
        (b"\xff\xfe", "not UTF-8"),
        (b"notation = 1", "'notation' stands in no table"),
        (b"[tag]\nnotation = 'x\\u001b[31m'", "notation"),
        (b"[tag]\nnotation = 'x'", "[tag] notation: Value error, 'x' is not one of 'camelot'"),
        (b"[tag]\nnotation = ['musical']", "wants one value"),
        (b"[tag]\nnotation = {a = 1}", "wants one value"),
        (b"[tag]\nfield = 'key'", "wants a list"),
        (b"[tag]\nwrite-tags = 1", "wants true or false"),
        (b"[tag]\nmin-confidence = 2", "[tag] min-confidence"),
        (b"[tag]\njobs = true", "wants one value"),
        (b"[tag]\nhelp = true", "no such option"),
        (b"[tag]\npaths = ['/']", "no such option"),
        (b"[mix]\nnothing = 1", "[mix] nothing: stone mix has no such option"),
        (b"[sing]\na = 1", "[sing] is no command"),
        (b"[config]\na = 1", "[config] is no command"),
        (b"a = " + b"[" * 100_000, "not TOML"),
        (b"#" * (MAX_BYTES + 1), "too large"),
    ],
)
def test_a_broken_file_is_one_line(invoke: Invoke, song: Song, content: bytes, reason: str) -> None:
    config_path().write_bytes(content)
    for arguments in (["tag", song("flac")], ["config", "show"]):
        result = invoke(*arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith(f"stone: {config_path()}: ")
        assert result.stderr.count("\n") == 1
        assert "\x1b" not in result.stderr
        assert reason in result.stderr
    assert invoke("config", "path").exit_code == 0
    assert config_path().read_bytes() == content


def test_help_without_it(stone: Callable[..., "subprocess.CompletedProcess[str]"]) -> None:
    config_path().write_text("[tag")
    assert stone("tag", "--help").returncode == 0


def test_what_is_no_file(invoke: Invoke, song: Song) -> None:
    os.mkfifo(config_path())  # would wait for ever
    result = invoke("tag", song("flac"))
    assert (result.exit_code, result.stderr) == (2, f"stone: {config_path()}: not a file\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["set", "tag.notation", "x"],
        ["set", "tag.nothing", "1"],
        ["set", "notation", "musical"],
        ["set", "tag.jobs", "many"],
        ["set", "tag.notation"],
        ["unset"],
        ["show", "tag.notation"],
        ["unset", "tag.notation", "1"],
    ],
)
def test_wrong_usage(invoke: Invoke, arguments: list[str]) -> None:
    result = invoke("config", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert not config_path().exists()


def test_a_switch_that_is_set_is_taken_back_on_the_command_line(invoke: Invoke, song: Song) -> None:
    assert invoke("config", "set", "tag.write-tags", "true").exit_code == 0
    assert invoke("config", "set", "tag.quiet", "true").exit_code == 0
    path = song("flac")
    before = path.read_bytes()
    result = invoke("tag", path, "--no-write-tags", "--no-quiet", "--json")
    assert (result.exit_code, json.loads(result.stdout)["status"]) == (0, "detected")
    assert path.read_bytes() == before
    assert invoke("tag", path).exit_code == 0
    assert path.read_bytes() != before
