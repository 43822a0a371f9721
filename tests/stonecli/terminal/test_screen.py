import io
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from stonecli.key import Key
from stonecli.terminal.analysis import print_analysis
from stonecli.terminal.screen import KeyStyle, Line, PlainScreen, RichScreen, output_screen
from stonecli.util.text import printable
from tests.fixture_types import MakeEstimate

plain_styles = st.sampled_from(["", "bold", "warning", "track"])
key_styles = st.builds(KeyStyle, st.sampled_from([*Key.all()]), st.booleans())
lines = st.lists(st.tuples(st.text(max_size=12).map(printable), plain_styles | key_styles), max_size=5)


def plainly(line: Line) -> str:
    stream = io.StringIO()
    PlainScreen(stream).show(line)
    return stream.getvalue()


def by_rich(line: Line) -> str:
    stream = io.StringIO()
    RichScreen(Console(file=stream, width=400, highlight=False)).show(line)
    return stream.getvalue()


@given(lines)
def test_a_pipe_gets_the_output_of_rich(line: Line) -> None:
    assert plainly(line) == by_rich(line)


def test_an_analysis_is_the_same_either_way(estimate_of: MakeEstimate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    for estimate in (estimate_of("Am"), estimate_of("C#m", changes_to="Eb"), estimate_of(None)):
        plain, rich = io.StringIO(), io.StringIO()
        print_analysis(PlainScreen(plain), Path("[b]a\t\x1b[1m 🎵.mp3"), estimate, per_window=True)
        screen = RichScreen(Console(file=rich, highlight=False))
        print_analysis(screen, Path("[b]a\t\x1b[1m 🎵.mp3"), estimate, per_window=True)
        assert plain.getvalue() == rich.getvalue()


@pytest.mark.parametrize(("columns", "width"), [("30", 30), ("wide", None), (None, None)])
def test_the_width_equals_that_of_rich(columns: str | None, width: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    assert PlainScreen(io.StringIO()).width == (width or Console(file=io.StringIO()).width)
    assert width is None or width == Console(file=io.StringIO()).width


def test_the_width_of_the_terminal_behind_the_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)

    def size(stream: int) -> os.terminal_size:
        if stream != 2:
            raise OSError
        return os.terminal_size((51, 20))

    monkeypatch.setattr(os, "get_terminal_size", size)
    assert PlainScreen(io.StringIO()).width == Console(file=io.StringIO()).width == 51


@pytest.mark.parametrize("name", ["FORCE_COLOR", "TTY_COMPATIBLE"])
def test_rich_is_loaded_only_for_terminals(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.delenv("TTY_COMPATIBLE", raising=False)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert isinstance(output_screen(), PlainScreen)
    monkeypatch.setenv(name, "1")
    assert isinstance(output_screen(), RichScreen)
    monkeypatch.delenv(name)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert isinstance(output_screen(), RichScreen)
