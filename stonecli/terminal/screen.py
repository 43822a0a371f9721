"""Where styled lines are shown: a terminal, through Rich, or a pipe, without it.

Rich takes longer to load than a short recording to hear, and in a pipe nothing of it is seen.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TextIO, TypeAlias

from stonecli.key import Key

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

DEFAULT_WIDTH = 80  # cells, where nothing is a terminal
_OF_COLOUR = ("FORCE_COLOR", "TTY_COMPATIBLE")  # by which the user tells Rich what a pipe is


class KeyStyle(NamedTuple):
    """The colour of a key: of letters, or of a block that they stand on."""

    key: Key
    is_block: bool = False


Style: TypeAlias = KeyStyle | Literal["", "bold", "dim", "yellow", "grey30"]
Line: TypeAlias = list[tuple[str, Style]]
"""Pieces of a line, each with its style. Whatever was written by others has gone through ``printable`` before."""


class Screen(Protocol):
    """Shows lines.

    Attributes:
        width: in cells.
        has_colours: whether colours are told apart there.
    """

    @property
    def width(self) -> int: ...

    @property
    def has_colours(self) -> bool: ...

    def show(self, line: Line) -> None:
        """Print the line at once: whoever reads in a pipe need not wait for the end."""


class PlainScreen:
    """A pipe or a file: text alone."""

    has_colours = False

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.width = _width()

    def show(self, line: Line) -> None:
        """As :meth:`Screen.show`."""
        self._stream.write("".join(text for text, _ in line) + "\n")
        self._stream.flush()


class RichScreen:
    """Whatever Rich makes of its console."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @property
    def width(self) -> int:
        """As of :class:`Screen`."""
        return self._console.width

    @property
    def has_colours(self) -> bool:
        """Not in a pipe, not where NO_COLOR is set, not among 16 colours."""
        console = self._console
        return console.is_terminal and not console.no_color and console.color_system in ("256", "truecolor")

    def show(self, line: Line) -> None:
        """As :meth:`Screen.show`."""
        self._console.print(rich_text(line), soft_wrap=True)


def output_screen() -> Screen:
    """The screen for answers: standard output."""
    if not sys.stdout.isatty() and not any(name in os.environ for name in _OF_COLOUR):
        return PlainScreen(sys.stdout)
    from rich.console import Console

    return RichScreen(Console(highlight=False))


def rich_text(line: Line) -> Text:
    """The line as Rich has it."""
    from rich.text import Text

    from stonecli.terminal.colors import key_block_style, key_style

    made = Text()
    for text, style in line:
        if isinstance(style, KeyStyle):
            made.append(text, key_block_style(style.key) if style.is_block else key_style(style.key))
        else:
            made.append(text, style)
    return made


def _width() -> int:
    """Cells of the terminal that a pipe may lead to in the end, found as Rich does."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdigit() and int(columns):
        return int(columns)
    for stream in (1, 2) if os.name == "nt" else (0, 1, 2):
        with suppress(OSError, ValueError, AttributeError):
            return os.get_terminal_size(stream).columns or DEFAULT_WIDTH
    return DEFAULT_WIDTH
