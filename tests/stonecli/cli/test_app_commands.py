"""The commands are thin: they parse, call the library, and print."""

import ast
import inspect
import os
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from stonecli import cli
from stonecli.cli.help import COMMANDS
from tests.fixture_types import RunStone

MAX_LINES = 40  # of a command's body, without its parameters and its docstring


@pytest.mark.parametrize("name", COMMANDS)
def test_the_body_of_a_command_is_short(name: str) -> None:
    source = Path(cli.__path__[0], f"{name}.py").read_text("utf-8")
    (command,) = (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == name)
    assert ast.get_docstring(command)  # the help
    first, last = command.body[1], command.body[-1]
    assert (last.end_lineno or last.lineno) - first.lineno + 1 <= MAX_LINES


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unreadable_file_is_not_wrong_usage(name: str) -> None:
    """Typer would refuse the whole command line because of one file without read permission."""
    function = getattr(import_module(f"stonecli.cli.{name}"), name)
    refusing = []
    for param in inspect.signature(function, locals={"TagOptions": Any}, eval_str=True).parameters.values():
        for info in getattr(param.annotation, "__metadata__", ()):
            is_path = "Path" in str(param.annotation.__origin__) and info.parser is None
            refusing += [param.name] if is_path and info.readable else []
    assert refusing == []


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_paths_that_may_not_be_read_are_named(stone: RunStone, tmp_path: Path) -> None:
    secret, closed = tmp_path / "secret.mp3", tmp_path / "closed"
    secret.touch(mode=0)
    closed.mkdir(mode=0)
    found = [stone("analyze", secret, weak=True), stone("watch", closed, weak=True)]
    assert [(result.returncode, result.stderr) for result in found] == [
        (1, f"{secret}: permission denied\n"),
        (2, f"stone: {closed}: you may not read this folder; check its permissions\n"),
    ]
