"""Styles of keys and warnings in the terminal; the colors are those of :mod:`stonecli.util.key_colors`."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from stonecli.key import Key
from stonecli.util.key_colors import key_bar_rgb, key_rgb

if TYPE_CHECKING:
    from rich.style import Style

WARNING = "black on #e6b450"
"""Style of text that needs attention: a colored block, as for keys."""


@cache
def key_style(key: Key) -> Style:
    """Black text on the color of the key, bold for major: readable on a dark and on a light terminal.

    No text color has a contrast of 4.5 : 1 both on white and on the usual dark gray.
    """
    from rich.color import Color
    from rich.style import Style

    return Style(color=Color.from_rgb(0, 0, 0), bgcolor=Color.from_rgb(*key_rgb(key)), bold=key.mode == "major")


@cache
def key_bar_style(key: Key) -> Style:
    """The hue of the key for bars, which are not text: dark enough for white and light enough for black terminals."""
    from rich.color import Color
    from rich.style import Style

    return Style(color=Color.from_rgb(*key_bar_rgb(key)))
