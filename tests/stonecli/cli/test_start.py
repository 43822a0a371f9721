import inspect
import subprocess
import sys

import pytest

from stonecli import __version__
from stonecli.cli.main import app
from stonecli.cli.start import COMMANDS, help_text

CALL = "import sys; from stonecli.cli.start import run; run(); print(*sys.modules, file=sys.stderr)"


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
    assert not {"typer", "rich", "stonecli.cli.main", "stonecli.key"} & modules


def test_anything_else_is_for_the_commands() -> None:
    with pytest.raises(subprocess.CalledProcessError) as failure:
        start("nonsense")
    assert failure.value.returncode == 2
    assert "nonsense" in failure.value.stderr
