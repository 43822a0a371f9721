import inspect
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from stonecli import __version__
from stonecli.cli.main import app
from stonecli.cli.start import COMMANDS, help_text

CALL = (
    "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
    "from stonecli.cli.start import run; run()"
)


def start(*arguments: str) -> tuple[str, set[str]]:
    """What is printed, and the modules that were loaded."""
    result = subprocess.run(
        [sys.executable, "-c", CALL, *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    return result.stdout, set(result.stderr.split())


def test_the_help_lists_the_commands_that_there_are() -> None:
    commands = {command.name: inspect.getdoc(command.callback) or "" for command in app.registered_commands}
    assert list(COMMANDS) == list(commands)  # a new command has its line in start.py
    for name, text in COMMANDS.items():
        assert " ".join(commands[name or ""].split()).startswith(text)
    assert max(map(len, help_text().splitlines())) <= 80


@pytest.mark.parametrize("option", ["--help", "-h", "--version"])
def test_nothing_is_loaded_for_it(option: str) -> None:
    printed, modules = start(option)
    assert printed == (f"stone {__version__}\n" if option == "--version" else help_text() + "\n")
    assert not {"typer", "rich", "stonecli.cli.app", "stonecli.key"} & modules


def test_only_the_command_that_is_run_is_loaded() -> None:
    _, modules = start("cache")
    assert "stonecli.cli.cache" in modules
    assert not {"stonecli.cli.analyze", "stonecli.cli.tag", "stonecli.cli.train"} & modules


def test_analyzing_reads_no_tags(songs: Mapping[str, Path]) -> None:
    printed, modules = start("analyze", "--device", "cpu", str(songs["flac"]))
    assert "Camelot" in printed
    assert not {"mutagen", "sqlite3", "matplotlib", "urllib.request", "stonecli.cli.tag", "stonecli.tagger"} & modules


def test_a_config_file_speaks_of_commands_that_are_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[tag]\njobs = 2\n\n[undo]\nno-such-option = 1\n")
    monkeypatch.setenv("STONE_CONFIG_DIR", str(tmp_path))
    with pytest.raises(subprocess.CalledProcessError) as failure:
        start("cache")
    assert failure.value.returncode == 2
    assert "[undo] no-such-option: stone undo has no such option" in failure.value.stderr


def test_anything_else_is_for_the_commands() -> None:
    with pytest.raises(subprocess.CalledProcessError) as failure:
        start("nonsense")
    assert failure.value.returncode == 2
    assert "nonsense" in failure.value.stderr
