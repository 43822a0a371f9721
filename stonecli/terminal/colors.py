"""One colour a key, by its place on the circle of fifths: keys that mix have colours that blend.

The colours lie on a tilted circle of OKLab (B. Ottosson, *A perceptual color space for image processing*, 2020): where
red and green change, so does lightness. Who cannot tell red from green sees lightness instead, and still a circle.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

from stonecli.key import Key

if TYPE_CHECKING:
    from rich.style import Style

_LIGHTNESS, _TILT, _CHROMA = 0.76, 0.17, 0.11  # of major keys
_MINOR_LIGHTNESS, _MINOR_CHROMA = -0.03, 0.7  # what minor keys have less: dimmer (black letters can be read), greyer
_FIRST_ANGLE = 150.0  # degrees, of Camelot 1: greens; 8 (C major) is then a light red


@cache
def key_rgb(key: Key) -> tuple[int, int, int]:
    """Red, green and blue of the key, 0..255 each."""
    angle = math.radians(_FIRST_ANGLE + 30.0 * (key.wheel - 1))
    is_minor = key.mode == "minor"
    lightness = _LIGHTNESS + _TILT * math.cos(angle) + (_MINOR_LIGHTNESS if is_minor else 0.0)
    chroma = _CHROMA * (_MINOR_CHROMA if is_minor else 1.0)
    red, green, blue = _from_oklab(lightness, chroma * math.cos(angle), chroma * math.sin(angle))
    return red, green, blue


def key_hex(key: Key) -> str:
    """The colour as ``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*key_rgb(key))


@cache
def key_style(key: Key) -> Style:
    """The colour for the terminal; bold for major."""
    from rich.color import Color
    from rich.style import Style

    return Style(color=Color.from_rgb(*key_rgb(key)), bold=key.mode == "major")


@cache
def key_block_style(key: Key) -> Style:
    """Dark letters on the colour: readable on a dark and on a light terminal."""
    from rich.color import Color
    from rich.style import Style

    return Style(color=Color.from_rgb(0, 0, 0), bgcolor=Color.from_rgb(*key_rgb(key)), bold=key.mode == "major")


def _from_oklab(lightness: float, green_red: float, blue_yellow: float) -> list[int]:
    """sRGB, 0..255, of a colour of OKLab; what lies outside is clipped."""
    long = (lightness + 0.3963377774 * green_red + 0.2158037573 * blue_yellow) ** 3
    medium = (lightness - 0.1055613458 * green_red - 0.0638541728 * blue_yellow) ** 3
    short = (lightness - 0.0894841775 * green_red - 1.2914855480 * blue_yellow) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )
    return [round(255 * _gamma(min(1.0, max(0.0, part)))) for part in linear]


def _gamma(linear: float) -> float:
    return 12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055
