"""The tree of errors, and the one line for each."""

from __future__ import annotations

import errno
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import stonecli
from stonecli import errors
from stonecli.errors import AudioError, StoneError, describe, reason

OPTIONAL = {"stonecli.cli.export", "stonecli.cli.train", "stonecli.integrations.beets"}  # need packages of an extra


class TestTree:
    """The tree in the docstring of ``stonecli.errors``."""

    def test_it_names_every_error_with_its_base(self) -> None:
        drawn: dict[str, str] = {}
        stack: list[str] = []
        for line in (errors.__doc__ or "").splitlines():
            if match := re.match(r"( *)[*x-] (\w+)", line):
                depth = len(match[1]) // 2
                del stack[depth:]
                if stack:
                    drawn[match[2]] = stack[-1]
                stack.append(match[2])
        kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, StoneError)]
        kinds.remove(StoneError)
        assert drawn == {kind.__name__: kind.__bases__[0].__name__ for kind in kinds}

    def test_no_other_module_of_stonecli_defines_a_public_one(self) -> None:
        for module in pkgutil.walk_packages(stonecli.__path__, "stonecli."):
            if module.name in OPTIONAL or module.name.endswith("__main__"):
                continue
            try:
                loaded = importlib.import_module(module.name)
            except ImportError as error:  # of a package of an extra
                if (error.name or "stonecli").startswith("stonecli"):
                    raise
                continue
            for name, kind in vars(loaded).items():
                if isinstance(kind, type) and issubclass(kind, StoneError) and kind.__module__ == module.name:
                    assert module.name == "stonecli.errors" or name.startswith("_"), f"{module.name}.{name}"


class TestDescribe:
    @given(st.text())
    def test_the_line_is_printable_and_short(self, text: str) -> None:
        for error in (AudioError(text * 100), OSError(errno.EIO, text * 100), ValueError(text * 100)):
            line = describe(error)
            assert line.isprintable()
            assert 0 < len(line) <= 440

    @pytest.mark.parametrize(
        ("number", "line"),
        [
            (errno.ENOENT, "no such file or folder"),
            (errno.EACCES, "permission denied"),
            (errno.ENOSPC, "no space left on device"),
        ],
    )
    def test_an_error_of_the_system_is_in_plain_words(self, number: int, line: str) -> None:
        error = OSError(number, os.strerror(number), "/music/a.mp3")
        assert describe(error) == line
        assert describe(error, with_path=True) == f"/music/a.mp3: {line}"

    def test_a_message_of_our_own_stays_as_it_is(self) -> None:
        assert reason(FileNotFoundError(errno.ENOENT, "the folder is gone")) == "the folder is gone"
        assert reason(OSError("I am no system message")) == "I am no system message"

    def test_a_path_is_printable_and_may_be_bytes(self) -> None:
        error = OSError(errno.EACCES, os.strerror(errno.EACCES), b"a\x1b[31m\xff.mp3")
        assert describe(error, with_path=True) == "a\\x1b[31m\\udcff.mp3: permission denied"


def test_all_commands_use_the_same_words(tmp_path: Path) -> None:
    """The walk, the library and the program's last resort all use one function."""
    lines = {
        subprocess.run(
            [sys.executable, "-m", "stonecli", *arguments, tmp_path / "none.mp3"],
            capture_output=True,
            text=True,
            check=False,
        ).stderr
        for arguments in (["tag"], ["analyze"], ["mix"])
    }
    assert lines == {f"{tmp_path / 'none.mp3'}: no such file or folder\n"}
