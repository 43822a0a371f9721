"""Print styled lines to a terminal with Rich, or to a pipe without it.

Importing Rich takes longer than analyzing a short recording, and a pipe shows no styles. The colors do not depend on
the background of the terminal: text has the default color or is on a colored block, and is never dimmed.
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

DEFAULT_WIDTH = 80  # cells, without a terminal
TRACK = "grey46"  # the empty part of a bar: visible on black and on white
_OF_COLOR = ("FORCE_COLOR", "TTY_COMPATIBLE")  # environment variables that make Rich treat a pipe as a terminal


class KeyStyle(NamedTuple):
    """The color of a key: of a block with text on it, or of a bar."""

    key: Key
    is_bar: bool = False


Style: TypeAlias = KeyStyle | Literal["", "bold", "warning", "track"]
Line: TypeAlias = list[tuple[str, Style]]
"""The parts of a line, each with its style. Untrusted text must be passed through ``printable`` first."""


class Screen(Protocol):
    """Shows lines.

    Attributes:
        width: width in cells.
        has_colors: whether it shows the colors of keys.
    """

    @property
    def width(self) -> int: ...

    @property
    def has_colors(self) -> bool: ...

    def show(self, line: Line) -> None:
        """Print the line and flush it, so that the reader of a pipe sees it at once."""


class PlainScreen:
    """A pipe or a file: text without styles."""

    has_colors = False

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.width = _width()

    def show(self, line: Line) -> None:
        """As :meth:`Screen.show`."""
        self._stream.write("".join(text for text, _ in line) + "\n")
        self._stream.flush()


class RichScreen:
    """A terminal, or a pipe that Rich treats as one."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @property
    def width(self) -> int:
        """As of :class:`Screen`."""
        return self._console.width

    @property
    def has_colors(self) -> bool:
        """False in a pipe, with NO_COLOR, and on a terminal with 16 colors."""
        console = self._console
        return console.is_terminal and not console.no_color and console.color_system in ("256", "truecolor")

    def show(self, line: Line) -> None:
        """As :meth:`Screen.show`."""
        self._console.print(rich_text(line), soft_wrap=True)


def output_screen() -> Screen:
    """The screen for results: standard output."""
    if not sys.stdout.isatty() and not any(name in os.environ for name in _OF_COLOR):
        return PlainScreen(sys.stdout)
    return RichScreen(make_console())


def make_console(*, stderr: bool = False) -> Console:
    """Rich's console for standard output or standard error, with colors that are readable on any background."""
    from rich.console import Console
    from rich.default_styles import DEFAULT_STYLES
    from rich.style import Style as RichStyle
    from rich.theme import Theme

    class StoneConsole(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # the command handles it; Rich would end the program

    not_dim = RichStyle(dim=False)
    styles = {name: style.without_color + not_dim for name, style in DEFAULT_STYLES.items()}
    console = StoneConsole(stderr=stderr, highlight=False, theme=Theme({**styles, "bar.back": TRACK}))
    if console.color_system in ("standard", "windows"):
        console.no_color = True  # users can redefine the 16 colors
    return console


def rich_text(line: Line) -> Text:
    """The line as Rich text."""
    from rich.text import Text

    from stonecli.terminal.colors import WARNING, key_bar_style, key_style

    made = Text()
    for text, style in line:
        if isinstance(style, KeyStyle):
            made.append(text, key_bar_style(style.key) if style.is_bar else key_style(style.key))
        else:
            made.append(text, {"warning": WARNING, "track": TRACK}.get(style, style))
    return made


def _width() -> int:
    """Width in cells of the terminal that the pipe may end in, determined as in Rich."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdigit() and int(columns):
        return int(columns)
    for stream in (1, 2) if os.name == "nt" else (0, 1, 2):
        with suppress(OSError, ValueError, AttributeError):
            return os.get_terminal_size(stream).columns or DEFAULT_WIDTH
    return DEFAULT_WIDTH
