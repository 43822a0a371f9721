import io
import re

import pytest
from rich.console import Console

from stonecli.detection.segments import Segment
from stonecli.key import Key
from stonecli.terminal.screen import Line, RichScreen, rich_text
from stonecli.terminal.timeline import timeline


def screen(width: int, *, terminal: bool = False, no_color: bool = False) -> RichScreen:
    return RichScreen(console(width, terminal=terminal, no_color=no_color))


def console(width: int, *, terminal: bool = False, no_color: bool = False) -> Console:
    return Console(
        file=io.StringIO(), width=width, force_terminal=terminal, no_color=no_color,
        color_system="truecolor" if terminal else None,
    )  # fmt: skip


def plain(line: Line) -> str:
    return "".join(text for text, _ in line)


def segments(*parts: tuple[str, float]) -> list[Segment]:
    start, made = 0.0, []
    for key, seconds in parts:
        made.append(Segment(start, start + seconds, Key.parse(key), 0.9))
        start += seconds
    return made


def test_letters_without_color() -> None:
    blocks, axis = timeline(screen(42), segments(("Am", 120), ("Em", 120), ("C", 60)))
    assert plain(blocks) == "  |8A-------------|9A-------------|8B-----|"
    assert plain(axis) == "  0:00            2:00                5:00"


def test_blocks_of_color() -> None:
    out = console(42, terminal=True)
    blocks, _ = timeline(RichScreen(out), segments(("Am", 120), ("Em", 180)))
    assert plain(blocks) == "   8A".ljust(2 + 16) + " 9A".ljust(24)
    out.print(rich_text(blocks))
    assert isinstance(out.file, io.StringIO)
    assert len(re.findall(r"\x1b\[[0-9;]*48;2;[0-9;]*m", out.file.getvalue())) == 2


@pytest.mark.parametrize("width", [10, 24, 40, 80, 200])
@pytest.mark.parametrize("terminal", [False, True])
def test_it_fits_and_is_in_order(width: int, terminal: bool) -> None:
    many = segments(*[(f"{1 + number % 12}A", 1.0 if number % 3 else 40.0) for number in range(40)])
    blocks, axis = timeline(screen(width, terminal=terminal), many)
    inner = max(24, min(72, width - 2))
    assert len(plain(blocks)) == 2 + inner + (not terminal)
    assert len(plain(axis)) == 2 + inner
    times = [int(m) * 60 + int(s) for m, s in re.findall(r"(\d+):(\d\d)", plain(axis))]
    assert times == sorted(times)
    assert times[-1] == int(many[-1].end)


def test_colors_are_used_on_terminals() -> None:
    assert screen(40, terminal=True).has_colors
    assert not screen(40).has_colors
    assert not screen(40, terminal=True, no_color=True).has_colors  # NO_COLOR
