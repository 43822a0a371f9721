import os
import pty
import re
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest
from typer import Context
from typer.main import get_command

from stonecli.cli.help import COMMANDS, program_help, sections
from stonecli.cli.main import app
from tests.fixture_types import Invoke

GROUP: Any = get_command(app)
STONE = [sys.executable, "-c", "from stonecli.cli.start import run; run()"]
VERBS = {
    "Add", "Analyze", "Cache", "Check", "Choose", "Compare", "Convert", "Draw", "End", "Extend", "Give", "Ignore",
    "Install", "Keep", "Label", "List", "Mix", "Name", "Only", "Prepare", "Print", "Process", "Put",
    "Re-analyze", "Read", "Remove", "Report", "Resume", "Run", "Save", "Set", "Show", "Start", "Train", "Undo", "Use",
    "Validate", "Wait", "Watch", "With", "Write",
}  # fmt: skip


def printed(*arguments: str, columns: int = 80) -> str:
    environment = os.environ | {"COLUMNS": str(columns)}
    result = subprocess.run([*STONE, *arguments], capture_output=True, text=True, timeout=60, env=environment)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def help_of(invoke: Invoke, command: str) -> str:
    """The help of a command, or of the program if it is empty, without the start of a process."""
    return invoke(command, "--help").stdout if command else program_help() + "\n"


class TestOneHelp:
    def test_of_the_program(self, invoke: Invoke) -> None:
        text = printed("--help")
        assert text == help_of(invoke, "")
        for arguments in ([], ["help"], ["-h"], ["help", "help"]):
            assert printed(*arguments) == text

    @pytest.mark.parametrize("command", ["tag", "config"])
    def test_of_a_command(self, invoke: Invoke, command: str) -> None:
        text = printed(command, "--help")
        assert text == help_of(invoke, command)
        assert text.startswith(f"Usage: stone {command} [OPTIONS] ")
        for arguments in (["help", command], [command, "-h"]):
            assert printed(*arguments) == text

    def test_of_no_command(self, invoke: Invoke) -> None:
        result = invoke("help", "tga")
        assert result.exit_code == 2
        assert result.stderr == "stone: 'tga' is not a stone command; did you mean stone tag?\n"

    def test_the_list_has_the_first_sentence_of_every_command(self) -> None:
        assert list(GROUP.commands) == list(COMMANDS)
        for name, command in GROUP.commands.items():
            assert (command.help or "").splitlines()[0] == COMMANDS[name]


@pytest.mark.parametrize("command", ["", *COMMANDS])
class TestLayout:
    @pytest.mark.parametrize("columns", [40, 60, 80, 100, 200])
    def test_it_fits_the_terminal(
        self, invoke: Invoke, monkeypatch: pytest.MonkeyPatch, command: str, columns: int
    ) -> None:
        monkeypatch.setenv("COLUMNS", str(columns))
        for line in help_of(invoke, command).splitlines():
            assert len(line) <= min(columns, 100) or " " not in line.strip(), line

    def test_it_is_for_people(self, invoke: Invoke, command: str) -> None:
        text = help_of(invoke, command)
        assert text.isascii()
        assert not re.search(r"<\w+>|[{}]|\[\[|\.\.\.\.|x[<>]=|\bNone\b|Path\(", text)


@pytest.mark.parametrize("command", COMMANDS)
class TestTexts:
    def test_every_option_has_one_that_starts_with_a_verb(self, command: str) -> None:
        for _, entries in sections(GROUP.commands[command], Context(GROUP.commands[command])):
            for name, text in entries:
                assert text.split()[0].rstrip(":") in VERBS, (name, text)
                assert text.endswith("."), (name, text)
                assert len(text) <= 90, (name, text)

    def test_every_value_has_a_name(self, command: str) -> None:
        for param in GROUP.commands[command].params:
            assert getattr(param, "is_flag", False) or param.metavar, param.name

    def test_help_states_every_default(self, command: str) -> None:
        for title, entries in sections(GROUP.commands[command], Context(GROUP.commands[command])):
            for name, text in entries:
                is_file = title in ("Output files", "Arguments") or name.endswith("FILE")
                is_told = "default: " in text or "(required)" in text or "default: " in title
                assert is_told or is_file or not re.search(r" [A-Z0-9|]+$", name) or "repeatable" in text, name


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
@pytest.mark.parametrize("columns", [50, 80, 120])
def test_the_width_of_the_terminal_counts(columns: int, tmp_path: Path) -> None:
    reader, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, columns))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    subprocess.run([*STONE, "tag", "--help"], stdout=terminal, check=True, timeout=60, env=environment)
    os.close(terminal)
    text = b""
    try:
        while block := os.read(reader, 1 << 16):
            text += block
    except OSError:  # Linux says so where all is read
        pass
    os.close(reader)
    lines = text.decode().splitlines()
    assert min(columns, 100) - 15 < max(map(len, lines)) <= min(columns, 100)


def test_shared_options_are_equal_in_all_commands() -> None:
    texts: dict[tuple[str, str], set[str]] = {}
    shared = {"--write-tags", "--field", "--notation", "--device", "--model", "--jobs", "--null", "--overwrite"}
    for name, command in GROUP.commands.items():
        for param in command.params:
            for option in shared & set(param.opts):
                if (name, option) not in (("mix", "--notation"), ("compare", "--notation")):  # which write nothing
                    texts.setdefault((option, ""), set()).add(param.help)
    assert {len(found) for found in texts.values()} == {1}
