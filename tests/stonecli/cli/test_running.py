"""Functions that the commands share that process many files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal

import pytest
from rich.console import Console

import stonecli
from stonecli.cli.running import progress_bar

PACKAGES = [Path(stonecli.__file__).parent, Path(__file__).parents[3] / "train"]


class TestProgressBar:
    def test_there_is_only_one(self) -> None:
        for package in PACKAGES:
            for path in package.rglob("*.py"):
                assert path.name == "running.py" or "rich.progress import" not in path.read_text("utf-8").replace(
                    "    from rich.progress import Progress\n",
                    "",  # for type checking
                ), path

    @pytest.mark.parametrize(
        ("unit", "shown"),
        [("files", "3/10"), ("bytes", "3/10 bytes"), ("steps", "3/10")],
        ids=["files", "bytes", "steps"],
    )
    def test_it_shows_untrusted_text_as_text(self, unit: Literal["files", "bytes", "steps"], shown: str) -> None:
        console = Console(file=io.StringIO(), force_terminal=True, width=120)
        with progress_bar(console, console, unit=unit) as bar:
            task = bar.add_task("[red]a\x1b[31m", total=10)
            bar.update(task, completed=3, note="loss 0.5")
        assert isinstance(console.file, io.StringIO)
        text = console.file.getvalue()
        assert "[red]a\\x1b[31m" in text
        assert shown in text
        assert "loss 0.5" in text

    def test_nothing_is_shown_in_a_pipe(self) -> None:
        console = Console(file=io.StringIO())
        with progress_bar(console, console) as bar:
            bar.add_task("")
        assert isinstance(console.file, io.StringIO)
        assert console.file.getvalue() == ""
