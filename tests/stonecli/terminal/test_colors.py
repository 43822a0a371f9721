import itertools

import numpy as np
import pytest

from stonecli.key import Key
from stonecli.terminal.colors import key_block_style, key_hex, key_rgb, key_style

# Machado, Oliveira and Fernandes, A Physiologically-based Model for Simulation of Color Vision Deficiency, 2009;
# severity 1.0, on linear RGB.
BLINDNESS = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}
MAJORS = [key for key in Key.all() if key.mode == "major"]


def seen(key: Key, blindness: str) -> np.ndarray:
    """The colour in CIELAB as someone sees it."""
    srgb = np.array(key_rgb(key)) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.array(BLINDNESS[blindness]) @ linear, 0, 1)
    matrix = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.array(matrix) @ linear / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("blindness", BLINDNESS)
def test_the_circle_is_seen_as_one(blindness: str) -> None:
    def apart(one: Key, other: Key) -> float:
        return float(np.linalg.norm(seen(one, blindness) - seen(other, blindness)))

    for one, other in itertools.combinations(MAJORS, 2):
        assert apart(one, other) > 6, (one, other)  # 2.3 is just noticeable
    for key in MAJORS:
        opposite = apart(key, key.transposed(6))
        assert opposite > 30
        assert apart(key, key.transposed(7)) < 0.8 * opposite
        assert apart(key, key.transposed(5)) < 0.8 * opposite


def test_each_key_has_a_colour_of_its_own() -> None:
    assert len({key_hex(key) for key in Key.all()}) == 24
    assert key_style(Key.parse("C")).bold
    assert not key_style(Key.parse("Am")).bold


def test_letters_can_be_read_on_it() -> None:
    for key in Key.all():
        lightness = seen(key, "none")[0]
        assert lightness > 49, key  # black on it has a contrast of 4.5 and more
        assert key_block_style(key).bgcolor
