import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from stonecli import __version__
from stonecli.cli.help import program_help
from stonecli.tags import read_tags
from tests.fixture_types import CopySong

pytestmark = pytest.mark.usefixtures("unmeasured")

CALL = (
    "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
    "from stonecli.cli.start import run; run()"
)


def start(*arguments: str) -> tuple[str, set[str]]:
    """The output, and the modules that were loaded."""
    result = subprocess.run(
        [sys.executable, "-c", CALL, *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    return result.stdout, set(result.stderr.split())


@pytest.mark.parametrize("option", ["--help", "-h", "--version"])
def test_loads_no_module(option: str) -> None:
    printed, modules = start(option)
    assert printed == (f"stone {__version__}\n" if option == "--version" else program_help() + "\n")
    assert not {"typer", "rich", "stonecli.cli.app", "stonecli.key"} & modules


def test_only_the_command_that_is_run_is_loaded() -> None:
    _, modules = start("cache")
    assert "stonecli.cli.cache" in modules
    assert not {"stonecli.cli.analyze", "stonecli.cli.tag", "stonecli.cli.train"} & modules


def test_analyzing_reads_no_tags(songs: Mapping[str, Path]) -> None:
    printed, modules = start("analyze", "--device", "cpu", str(songs["flac"]))
    assert "Camelot" in printed
    assert not {"mutagen", "sqlite3", "matplotlib", "urllib.request", "stonecli.cli.tag", "stonecli.tagging"} & modules


def test_a_config_file_is_only_checked_for_the_command_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[tag]\njobs = 2\n\n[undo]\nno-such-option = 1\n")
    monkeypatch.setenv("STONE_CONFIG_DIR", str(tmp_path))
    start("cache")
    with pytest.raises(subprocess.CalledProcessError) as failure:
        start("undo", "--list")
    assert failure.value.returncode == 2
    assert "stone undo has no option --no-such-option; run: stone config unset undo.no-such" in failure.value.stderr


def test_other_arguments_go_to_the_commands() -> None:
    with pytest.raises(subprocess.CalledProcessError) as failure:
        start("nonsense")
    assert failure.value.returncode == 2
    assert "nonsense" in failure.value.stderr


PLAIN = "from stonecli.cli.start import run; run()"
LINES = (["--version"], ["--help"], ["models"], ["config", "path"], ["undo", "--list"], ["tag", "--help"])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_a_full_output_gives_one_line(line: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-c", PLAIN, *line], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert (result.returncode, result.stderr) == (1, "stone: no space left on device\n")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_a_closed_pipe_gives_no_message(line: list[str], unbuffered: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with os.fdopen(writing, "w") as pipe:
        result = subprocess.run(
            [sys.executable, "-c", PLAIN, *line], stdout=pipe, stderr=subprocess.PIPE, env=environment, timeout=60
        )
    assert (result.returncode, result.stderr) == (1, b"")


@pytest.mark.skipif(sys.platform == "win32", reason="wants sh")
def test_closed_streams_are_as_good_as_empty_ones(song: CopySong) -> None:
    path = str(song("flac"))
    for closed, line, end in (
        ("<&-", ["tag", "-"], (1, "stone: no music files found\n")),
        (">&-", ["analyze", path], (0, "")),
        ("2>&-", ["tag", path, "--write-tags"], (0, "")),
    ):
        command = ["sh", "-c", f'"$@" {closed}', "sh", sys.executable, "-c", PLAIN, *line]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (result.returncode, result.stderr) == end
    assert read_tags(Path(path)).text == "7A"


@pytest.mark.parametrize("line", [["tag", "", "--write-tags"], ["watch", ""], ["mix", ""], ["analyze", ""]])
def test_an_empty_argument_is_not_the_current_folder(line: list[str], song: CopySong) -> None:
    path = song("flac")
    before = path.read_bytes()
    command = [sys.executable, "-c", PLAIN, *line]
    result = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "stone: an argument is empty; write . for the current folder\n"
    assert path.read_bytes() == before


def test_ctrl_c_during_the_start_gives_one_line() -> None:
    pressed = (
        "import sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'stonecli.cli.app': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", pressed + PLAIN, "cache"], capture_output=True, text=True, timeout=60
    )
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "stone: interrupted\n")
