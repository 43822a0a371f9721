"""One colour a key, by its place on the circle of fifths: keys that mix have colours that blend."""

from __future__ import annotations

import colorsys
from functools import cache

from rich.color import Color
from rich.style import Style

from stonecli.key import Key


@cache
def key_style(key: Key) -> Style:
    """Bold for major; twelve hues around the wheel, minor keys a little dimmer."""
    hue = ((key.wheel - 1) / 12 + 0.42) % 1.0  # 1 (B major) a green, 8 (C major) a red, as DJs know them
    lightness, saturation = (0.64, 0.75) if key.mode == "major" else (0.66, 0.50)
    red, green, blue = (round(255 * part) for part in colorsys.hls_to_rgb(hue, lightness, saturation))
    return Style(color=Color.from_rgb(red, green, blue), bold=key.mode == "major")
