"""One color per key, by its position on the circle of fifths: keys that mix have similar colors.

The colors are on a tilted circle in OKLab (B. Ottosson, *A perceptual color space for image processing*, 2020): the
lightness changes along the red-green axis, so the circle is visible to people with red-green color blindness, too.
"""

from __future__ import annotations

import math
from functools import cache

from stonecli.key import Key

_LIGHTNESS, _TILT, _CHROMA = 0.76, 0.17, 0.11  # of major keys
_MINOR_LIGHTNESS, _MINOR_CHROMA = -0.03, 0.7  # added and multiplied: slightly darker (black stays readable), grayer
_BAR_LUMINANCE = 0.2
_FIRST_ANGLE = 150.0  # degrees: the hue of Camelot 1, green; Camelot 8 (C major) is then light red


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
    """The color as ``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*key_rgb(key))


@cache
def key_bar_rgb(key: Key) -> tuple[int, int, int]:
    """Red, green and blue of the key's bars, with a relative luminance of about 0.2."""
    angle = math.radians(_FIRST_ANGLE + 30.0 * (key.wheel - 1))
    chroma = _CHROMA * (_MINOR_CHROMA if key.mode == "minor" else 1.0)
    low, high = 0.0, 1.0
    for _ in range(20):
        lightness = (low + high) / 2
        red, green, blue = _from_oklab(lightness, chroma * math.cos(angle), chroma * math.sin(angle))
        if luminance((red, green, blue)) < _BAR_LUMINANCE:
            low = lightness
        else:
            high = lightness
    return red, green, blue


def luminance(rgb: tuple[int, int, int]) -> float:
    """Relative luminance, 0 to 1, as the Web Content Accessibility Guidelines define it."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in (c / 255 for c in rgb)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    """Contrast ratio of two colors, 1 to 21, as the Web Content Accessibility Guidelines define it."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def _from_oklab(lightness: float, green_red: float, blue_yellow: float) -> list[int]:
    """The OKLab color in sRGB, 0..255, clipped to its range."""
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
