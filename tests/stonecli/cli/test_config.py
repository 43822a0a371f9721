import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from stonecli.key import NOTATIONS
from stonecli.output import TABLE_SUFFIXES
from stonecli.util.config_file import MAX_BYTES, config_path, read_config
from tests.fixture_types import RunStone

Invoke = Callable[..., Result]
Song = Callable[..., Path]


def test_defaults_are_set_used_shown_and_unset(invoke: Invoke, song: Song) -> None:
    assert invoke("config", "path").stdout == f"{config_path()}\n"
    nothing = invoke("config")
    assert (nothing.exit_code, nothing.stdout) == (0, "")  # a pipe gets settings and nothing else
    assert str(config_path()) in nothing.stderr
    assert "stone config set tag.notation musical" in nothing.stderr
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
    assert (again.exit_code, again.stderr) == (1, "stone: tag.notation is not set; stone config shows the settings\n")


def test_the_notation_of_tag_is_that_of_all_commands(invoke: Invoke, song: Song) -> None:
    path = song("flac")
    assert invoke("config", "set", "tag.notation", "openkey").exit_code == 0
    assert "\t12m\t" in invoke("compare", path).stdout
    assert "\t12m\t" in invoke("mix", path).stdout
    assert invoke("tag", path, "--write-tags").exit_code == 0
    assert "\tunchanged" in invoke("convert", path).stdout
    assert "\t7A\t" in invoke("convert", path, "--notation", "camelot").stdout
    assert invoke("config", "set", "mix.notation", "musical").exit_code == 0  # its own comes first
    assert "\tDm\t" in invoke("mix", path).stdout
    config_path().write_text('[tag]\nnotation = "runes"\n')
    for command in ("mix", "watch"):
        result = invoke(command, path)
        assert (result.exit_code, "run: stone config unset tag.notation" in result.stderr) == (2, True)
    assert invoke("analyze", path).exit_code == 0  # has no notation


@pytest.mark.parametrize("text", ["007", "1e5", "1_0", "7", "0.50", "nan"])
def test_a_text_stays_as_it_was_written(invoke: Invoke, text: str) -> None:
    """Though it looks like a number: a cluster's address is a text."""
    assert invoke("config", "set", "tag.cluster", text).exit_code == 0
    value = read_config(config_path())["tag"]["cluster"]
    assert str(value) == text


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
        (b"[tag", "not valid TOML"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"notation = 1", "'notation' is outside a table; "),
        (
            b"[tag]\nnotation = 'x\\u001b[31m'",
            f"tag.notation must be one of {', '.join(NOTATIONS)}, not 'x",
        ),
        (b"[tag]\nnotation = 'x'", f"tag.notation must be one of {', '.join(NOTATIONS)}, not 'x'; "),
        (b"[tag]\nnotation = ['musical']", "tag.notation must be one value; "),
        (b"[tag]\nnotation = {a = 1}", "tag.notation must be one value; "),
        (b"[tag]\nfield = 'key'", "tag.field must be a list; "),
        (b"[tag]\nfield = ['artist']", "tag.field must be one of key, comment, grouping, title, not 'artist'; "),
        (
            b"[tag]\nfield = ['key,comment']",
            "tag.field must be one of key, comment, grouping, title, not 'key,comment'",
        ),
        (b"[tag]\nwrite-tags = 1", "tag.write-tags must be true or false; "),
        (b"[tag]\nmin-confidence = 2", "tag.min-confidence must be a number from 0 to 1, not '2'; "),
        (b"[tag]\nmin-confidence = nan", "tag.min-confidence must be a number from 0 to 1, not 'nan'; "),
        (b"[tag]\noutput = 'song.mp3'", f"tag.output must end in {', '.join(TABLE_SUFFIXES)} or .parquet, not 'song"),
        (b"[tag]\nmodel = 'nobody'", "tag.model nobody: there is no model 'nobody'; "),
        (b"[tag]\njobs = true", "tag.jobs must be one value; "),
        (b"[tag]\nhelp = true", "stone tag has no option --help; run: stone config unset tag.help"),
        (b"[tag]\npaths = ['/']", "stone tag has no option --paths; run: stone config unset tag.paths"),
        (b"a = " + b"[" * 100_000, "not valid TOML"),
        (b"#" * (MAX_BYTES + 1), "is larger than 1 MiB; delete it"),
    ],
)
def test_a_wrong_file_is_named_with_the_setting_and_the_fix(
    invoke: Invoke, song: Song, content: bytes, reason: str
) -> None:
    config_path().write_bytes(content)
    for arguments in (["tag", song("flac")], ["config", "show"]):
        result = invoke(*arguments)
        assert result.exit_code == 2
        assert "--field" not in result.stderr
        assert result.stderr.startswith(f"stone: {config_path()}: ")
        assert result.stderr.count("\n") == 1
        assert "\x1b" not in result.stderr
        assert reason in result.stderr
    assert invoke("config", "path").exit_code == 0
    assert config_path().read_bytes() == content


WRONG = '[sing]\na = 1\n[config]\na = 1\n[undo]\nno-such-option = 1\n[tag]\nfield = ["artist"]\n'


def test_a_wrong_setting_of_one_command_does_not_stop_the_others(invoke: Invoke, song: Song) -> None:
    config_path().write_text(WRONG)
    assert invoke("analyze", song("flac")).exit_code == 0
    assert invoke("cache").exit_code == 0
    shown = invoke("config")
    assert shown.exit_code == 2
    assert shown.stdout.splitlines() == [
        "sing.a = 1",
        "config.a = 1",
        "undo.no-such-option = 1",
        'tag.field = ["artist"]',
    ]
    assert len(shown.stderr.splitlines()) == 4  # each is wrong, and each is named


def test_everything_can_be_unset(invoke: Invoke, song: Song) -> None:
    config_path().write_text("notation = 1\n" + WRONG)
    assert invoke("tag", song("flac")).exit_code == 2
    for name in ("notation", "sing.a", "config.a", "undo.no-such-option", "tag.field"):
        assert invoke("config", "unset", name).exit_code == 0
    assert invoke("config").exit_code == 0
    assert invoke("tag", song("flac")).exit_code == 0


def test_settings_that_exclude_each_other_name_the_file(invoke: Invoke, song: Song) -> None:
    assert invoke("config", "set", "tag.quiet", "true").exit_code == 0
    assert invoke("config", "set", "tag.json", "true").exit_code == 0
    result = invoke("tag", song("flac"))
    assert result.exit_code == 2
    assert result.stderr == (
        f"stone: {config_path()}: --quiet cannot be combined with --json; fix it: stone config unset tag.quiet\n"
    )
    assert invoke("tag", "--json", "--no-quiet", song("flac")).exit_code == 0


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({"tag.quiet": "true"}, ["--json"]),
        ({"tag.bpm": "true", "tag.overwrite": "true"}, ["--remove"]),
        ({"tag.remove": "true"}, ["--bpm"]),
        ({"undo.dry-run": "true"}, ["--list"]),
        ({"undo.quiet": "true"}, ["--list"]),
        ({"mix.quiet": "true"}, ["--json"]),
        ({"analyze.quiet": "true"}, ["--json"]),
        ({"mix.start": "a.flac", "mix.playlist": "set.m3u8"}, ["--compatible", "8A.flac"]),
    ],
)
def test_an_option_turns_off_the_settings_it_excludes(
    invoke: Invoke, song: Song, settings: dict[str, str], options: list[str], tmp_path: Path
) -> None:
    for name, value in settings.items():
        assert invoke("config", "set", name, value).exit_code == 0
    command = next(iter(settings)).partition(".")[0]
    path = song("flac")
    options = [str(path) if option == "8A.flac" else option for option in options]
    result = invoke(command, *options, *([] if command == "undo" else [path]))
    assert "cannot be combined" not in result.stderr
    assert result.exit_code == 0
    both = [f"--{name.partition('.')[2]}" for name, value in settings.items() if value == "true"]
    if both:  # on the command line they still contradict each other
        assert invoke(command, *options, *both, *([] if command == "undo" else [path])).exit_code == 2


def test_an_output_that_cannot_be_made_names_the_file(invoke: Invoke, song: Song, tmp_path: Path) -> None:
    assert invoke("config", "set", "tag.output", str(tmp_path / "none" / "keys.csv")).exit_code == 0
    result = invoke("tag", song("flac"))
    assert result.exit_code == 2
    assert result.stderr == (
        f"stone: {config_path()}: --output {tmp_path / 'none'}: no such folder; create it first;"
        " fix it: stone config unset tag.output\n"
    )


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["tag.field", "artist"], "tag.field must be one of key, comment, grouping, title, not 'artist'"),
        (["tag.field", "key,comment"], "tag.field must be one of key, comment, grouping, title, not 'key,comment'"),
        (["tag.field", "key", "key"], "tag.field must not name 'key' twice"),
        (
            ["watch.field", "comment=german"],
            f"watch.field must have one of the notations {', '.join(NOTATIONS)}, not 'german'",
        ),
        (["tag.notation", "x"], f"tag.notation must be one of {', '.join(NOTATIONS)}, not 'x'"),
        (["tag.jobs", "0"], "tag.jobs must be a whole number of at least 1, not '0'"),
        (["tag.min-confidence", "nan"], "tag.min-confidence must be a number from 0 to 1, not 'nan'"),
        (["watch.settle", "0.1"], "watch.settle must be a number of at least 0.5, not '0.1'"),
        (["tag.html", "keys.csv"], "tag.html must end in .html or .htm, not 'keys.csv'"),
        (["mix.playlist", "a.mp3"], "mix.playlist must end in .m3u8 or .m3u, not 'a.mp3'"),
        (["analyze.plot", "a.flac"], "analyze.plot must end in .png, .svg or .pdf, not 'a.flac'"),
        (["analyze.overlap", "1"], "analyze.overlap must be a number from 0 to 0.95, not '1'"),
        (["tag.model", "nobody"], "tag.model nobody: there is no model 'nobody'"),
        (["tag.device", "tpu"], "tag.device must be one of auto, cpu, cuda, not 'tpu'"),
        (["tag.nothing", "1"], "stone tag has no option --nothing"),
        (["sing.loud", "1"], "'sing' is not a command with settings"),
        (["notation", "musical"], "'' is not a command with settings"),
    ],
    ids=str,
)
def test_every_setting_is_checked_when_it_is_set(invoke: Invoke, arguments: list[str], reason: str) -> None:
    result = invoke("config", "set", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"stone: {reason}")
    assert result.stderr.count("\n") == 1
    assert not config_path().exists()


def test_help_without_it(stone: RunStone) -> None:
    config_path().write_text("[tag")
    assert stone("tag", "--help").returncode == 0


def test_the_byte_order_mark_of_a_windows_editor(invoke: Invoke, song: Song) -> None:
    config_path().parent.mkdir(parents=True, exist_ok=True)
    config_path().write_bytes(b'\xef\xbb\xbf[tag]\r\nnotation = "musical"\r\n')
    assert invoke("tag", song("flac")).stdout.splitlines()[1].split("\t")[2] == "Dm"
    assert invoke("config", "set", "mix.notation", "openkey").exit_code == 0
    assert read_config(config_path()) == {"tag": {"notation": "musical"}, "mix": {"notation": "openkey"}}


def test_a_window_that_the_model_refuses_names_the_file(invoke: Invoke, song: Song) -> None:
    """It can only be checked when the model is loaded."""
    assert invoke("config", "set", "analyze.window", "0").exit_code == 0
    result = invoke("analyze", song("flac"))
    assert result.exit_code == 2
    assert result.stderr.startswith(f"stone: {config_path()}: --window must be ")
    assert result.stderr.endswith(" s long with this model, not 0; fix it: stone config unset analyze.window\n")
    result = invoke("analyze", song("flac"), "--window", "1e9")
    assert result.exit_code == 2
    assert result.stderr.endswith(" s long with this model, not 1e+09; see stone analyze --help\n")


def test_a_folder_or_pipe_instead_of_the_file(invoke: Invoke, song: Song) -> None:
    os.mkfifo(config_path())  # would wait for ever
    result = invoke("tag", song("flac"))
    assert (result.exit_code, result.stderr) == (2, f"stone: {config_path()}: is not a regular file; delete it\n")


@pytest.mark.parametrize(
    "arguments",
    [
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


def test_the_command_line_overrides_a_configured_switch(invoke: Invoke, song: Song) -> None:
    assert invoke("config", "set", "tag.write-tags", "true").exit_code == 0
    assert invoke("config", "set", "tag.quiet", "true").exit_code == 0
    path = song("flac")
    before = path.read_bytes()
    result = invoke("tag", path, "--no-write-tags", "--no-quiet", "--json")
    assert (result.exit_code, json.loads(result.stdout)["status"]) == (0, "detected")
    assert path.read_bytes() == before
    assert invoke("tag", path).exit_code == 0
    assert path.read_bytes() != before


def test_a_configured_null_only_applies_to_lists(invoke: Invoke, song: Song, stone_command: list[str]) -> None:
    assert invoke("config", "set", "tag.null", "true").exit_code == 0
    path = song("flac")
    assert invoke("tag", path).exit_code == 0
    listed = subprocess.run(
        [*stone_command, "tag", "-"], input=os.fsencode(path) + b"\0", capture_output=True, timeout=60
    )
    assert (listed.returncode, listed.stderr) == (0, b"")
    assert invoke("tag", "--null", path).exit_code == 2


@pytest.mark.skipif(os.name != "posix", reason="Windows reports a missing file")
def test_a_file_instead_of_the_folder(
    invoke: Invoke, song: Song, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STONE_CONFIG_DIR", str(tmp_path / "config"))
    (tmp_path / "config").touch()
    for line in (["tag", song("flac")], ["config", "set", "tag.bpm", "true"]):
        result = invoke(*line)
        assert (result.exit_code, result.stderr) == (2, f"stone: {config_path()}: not a directory\n")
