import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

import stonecli
from stonecli.key import NOTATIONS
from tests.fixture_types import Invoke

Stone = Callable[..., "subprocess.CompletedProcess[str]"]
HEAVY = {"torch", "onnxruntime", "numpy", "soundfile", "soxr", "mutagen", "train", "export", "sqlite3", "platformdirs"}

LIST_MODULES = """
import sys
from stonecli.cli.main import run
sys.argv = ["stone", *{arguments!r}]
try:
    run()
except SystemExit as end:
    assert not end.code, end.code
import json
print(json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}})), file=sys.stderr)
"""


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["tag", "--help"],
        ["analyze", "-h"],
        ["export", "--help"],
        ["undo", "-h"],
        ["cache", "-h"],
    ],
    ids=" ".join,
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = LIST_MODULES.format(arguments=arguments)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(json.loads(result.stderr.splitlines()[-1]))
    assert "typer" in loaded
    assert not loaded & HEAVY
    assert result.stdout


@pytest.mark.usefixtures("unmeasured")
def test_importing_the_package_loads_nothing_heavy_either() -> None:
    code = "import sys, stonecli; print(stonecli.Key.parse('Am').camelot); print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    camelot, modules = result.stdout.splitlines()
    assert camelot == "8A"
    assert not {name.partition(".")[0] for name in modules.split()} & HEAVY


def test_the_public_names() -> None:
    for name in stonecli.__all__:
        assert getattr(stonecli, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'detect_tempo'"):
        _ = stonecli.detect_tempo


def test_version(invoke: Invoke) -> None:
    result = invoke("--version")
    assert (result.exit_code, result.stdout) == (0, f"stone {stonecli.__version__}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["tune"],
        ["tag"],
        ["tag", "--loud", "."],
        ["tag", "--notation", "german", "."],
        ["tag", "--jobs", "0", "."],
        ["tag", "--min-confidence", "1.5", "."],
        ["tag", "--min-confidence", "nan", "."],
        ["tag", "--jobs"],
        ["tag", "--quiet=3", "."],
        ["cache", "drop"],
        ["cache", "show", "more"],
        ["--loud"],
        ["watch", "--settle", "0", "."],
        ["undo", "last"],
        ["tag", "--field", "artist", "."],
        ["tag", "--field", "comment=german", "."],
        ["tag", "--field", "comment=camelot", "--field", "comment=openkey", "."],
        ["tag", "--field", "title", "--mode", "replace", "."],
        ["tag", "--device", "tpu", "."],
        ["tag", "--remove", "--overwrite", "."],
        ["tag", "--output", "x.txt", "."],
        ["tag", "--output", "no/such/folder/x.csv", "."],
        ["tag", "--model", "nothing.onnx", "."],
        ["analyze"],
        ["analyze", "--overlap", "1.0", "a.mp3"],
        ["analyze", "--window", "long", "a.mp3"],
        ["analyze", "--npz", "no/such/folder/x.npz", "a.mp3"],
        ["analyze", "--device", "tpu", "a.mp3"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2(invoke: Invoke, arguments: list[str]) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("stone: ")
    assert result.stderr.count("\n") == 1
    assert not result.stdout


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["tune"], "'tune' is not a stone command; stone --help lists the commands"),
        (["xyz"], "'xyz' is not a stone command; stone --help lists the commands"),
        (["tag"], "PATH is missing; see stone tag --help"),
        (["tag", "--loud", "."], "there is no option --loud; see stone tag --help"),
        (["tag", "--overwrit", "."], "there is no option --overwrit; did you mean --overwrite?"),
        (["tag", "--write", "."], "there is no option --write; did you mean --write-tags?"),
        (["tag", "--jobs"], "--jobs needs a value"),
        (["tag", "--quiet=3", "."], "--quiet takes no value"),
        (["tag", "--jobs", "0", "."], "--jobs must be a whole number of at least 1, not '0'; see stone tag --help"),
        (
            ["tag", "--notation", "german", "."],
            f"--notation must be one of {', '.join(NOTATIONS)}, not 'german'; see stone tag --help",
        ),
        (["tag", "--remove", "--overwrite", "."], "--remove cannot be combined with --overwrite; see stone tag --help"),
        (["tag", "--output", "no/such/x.csv", "."], "--output no/such: no such folder; create it first"),
        (["cache", "drop"], "choose show or clear, not 'drop'; see stone cache --help"),
        (["cache", "show", "more"], "too many arguments: more; see stone cache --help"),
        (["--loud"], "there is no option --loud; see stone --help"),
    ],
    ids=str,
)
def test_wrong_usage_is_one_line_with_the_remedy(invoke: Invoke, arguments: list[str], line: str) -> None:
    assert invoke(*arguments).stderr == f"stone: {line}\n"


def test_nothing_at_all_shows_the_help(invoke: Invoke) -> None:
    result = invoke()
    assert result.exit_code == 0
    assert result.stdout == invoke("--help").stdout


@pytest.mark.parametrize(
    "arguments",
    [["tag", "--\x1b[31m[red]\x07"], ["\x1b[31m[red]\x07"], ["tag", "--field", "\x1b[31m[red]\x07", "."],
     ["tag", "--model", "\x1b[31m[red]\x07", "."], ["tag", "--output", "\x1b[31m[red]\x07/a.csv", "."]],
    ids=ascii,
)  # fmt: skip
def test_mistyped_text_is_shown_without_its_escapes(stone: Stone, arguments: list[str]) -> None:
    result = stone(*arguments)
    assert result.returncode == 2
    assert "\x1b" not in result.stdout + result.stderr
    assert "\x07" not in result.stdout + result.stderr
    assert "\\x1b" in result.stderr
    assert "[red]" in result.stderr


def test_an_unexpected_error_is_one_line_without_stone_debug(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by \x1b[31mzero\nindeed")

    monkeypatch.setattr("stonecli.remote.storage.find_music", broken)
    result = invoke("tag", ".")
    assert result.exit_code == 1
    assert result.stderr == "stone: unexpected ZeroDivisionError: by \\x1b[31mzero indeed\n"
    monkeypatch.setenv("STONE_DEBUG", "1")
    assert isinstance(invoke("tag", ".").exception, ZeroDivisionError)


def test_ctrl_c_in_a_command_is_130(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> Iterator[object]:
        os.kill(os.getpid(), signal.SIGINT)
        return iter(())

    monkeypatch.setattr("stonecli.remote.storage.find_music", interrupt)
    result = invoke("tag", ".")
    assert result.exit_code == 130
    assert result.stderr == "stone: interrupted\n"
