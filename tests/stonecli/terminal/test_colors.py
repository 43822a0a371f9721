import io
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from rich.ansi import AnsiDecoder
from rich.color import Color, ColorSystem
from rich.console import Console
from rich.style import Style
from rich.text import Text

from stonecli.key import Key
from stonecli.tagging import Status, TagResult
from stonecli.terminal.analysis import print_analysis
from stonecli.terminal.colors import WARNING, key_bar_style, key_style
from stonecli.terminal.evaluation import RELATION_STYLES
from stonecli.terminal.screen import make_console, output_screen
from stonecli.terminal.table import TagTable, error_text
from stonecli.util.key_colors import contrast, key_hex, key_rgb
from tests.fixture_types import MakeEstimate

# Machado, Oliveira and Fernandes, A Physiologically-based Model for Simulation of Color Vision Deficiency, 2009;
# severity 1.0, on linear RGB.
BLINDNESS = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}
MAJORS = [key for key in Key.all() if key.mode == "major"]


def seen(key: Key, blindness: str) -> np.ndarray:
    """The color in CIELAB as someone sees it."""
    srgb = np.array(key_rgb(key)) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.array(BLINDNESS[blindness]) @ linear, 0, 1)
    matrix = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.array(matrix) @ linear / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("blindness", BLINDNESS)
def test_the_circle_has_one_bounding_box(blindness: str) -> None:
    def apart(one: Key, other: Key) -> float:
        return float(np.linalg.norm(seen(one, blindness) - seen(other, blindness)))

    for one, other in itertools.combinations(MAJORS, 2):
        assert apart(one, other) > 6, (one, other)  # 2.3 is just noticeable
    for key in MAJORS:
        opposite = apart(key, key.transposed(6))
        assert opposite > 30
        assert apart(key, key.transposed(7)) < 0.8 * opposite
        assert apart(key, key.transposed(5)) < 0.8 * opposite


def test_each_key_has_a_color_of_its_own() -> None:
    assert len({key_hex(key) for key in Key.all()}) == 24
    assert key_style(Key.parse("C")).bold
    assert not key_style(Key.parse("Am")).bold


BACKGROUNDS = [(0, 0, 0), (0x1E, 0x1E, 0x1E), (255, 255, 255)]  # of the usual terminals


def rgb(color: Color | None) -> tuple[int, int, int]:
    assert color is not None
    return tuple(color.get_truecolor())  # type: ignore[return-value]


def as_shown(color: Color | None, system: ColorSystem) -> tuple[int, int, int]:
    """The color that a terminal with this number of colors shows."""
    assert color is not None
    return rgb(color.downgrade(system))


def test_contrast_follows_the_web_guidelines() -> None:
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast((0x77, 0x77, 0x77), (255, 255, 255)) == pytest.approx(4.48, abs=0.01)  # WCAG's own example


@pytest.mark.parametrize("system", [ColorSystem.TRUECOLOR, ColorSystem.EIGHT_BIT])
class TestContrast:
    def test_of_text_on_the_color_of_a_key(self, system: ColorSystem) -> None:
        for key in Key.all():
            style = key_style(key)  # a block of its own: the terminal's background does not matter
            assert contrast(as_shown(style.color, system), as_shown(style.bgcolor, system)) >= 4.5, key

    def test_of_bars_on_every_background(self, system: ColorSystem) -> None:
        for key in Key.all():
            for background in BACKGROUNDS:
                assert contrast(as_shown(key_bar_style(key).color, system), background) >= 3, key

    @pytest.mark.parametrize("style", [WARNING, *RELATION_STYLES.values()])
    def test_of_other_blocks(self, system: ColorSystem, style: str) -> None:
        parsed = Style.parse(style)
        assert contrast(as_shown(parsed.color, system), as_shown(parsed.bgcolor, system)) >= 4.5


CODES = re.compile(r"\x1b\[([0-9;]*)m")
Terminal = Callable[[], str]
BARS = set("━╸╺█▉▊▋▌▍▎▏· ")


def pieces(text: str) -> Iterator[tuple[str, Style]]:
    """The pieces of a terminal's text, each with its style."""
    for segment in AnsiDecoder().decode(text):
        for span in segment.render(Console(file=io.StringIO())):
            yield span.text, span.style or Style()


def readable(text: str) -> None:
    """Fail for text in a color of its own without a block, and for dimmed text."""
    assert CODES.search(text), "no colors at all"
    for piece, style in pieces(text):
        assert not style.dim, piece
        if not piece.strip() or style.color is None or style.color.is_default:
            continue
        if set(piece) <= BARS:
            assert all(contrast(rgb(style.color), background) >= 3 for background in BACKGROUNDS), piece
        else:
            assert style.bgcolor is not None, piece
            assert contrast(rgb(style.color), rgb(style.bgcolor)) >= 4.5, piece


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    """Standard output as a terminal with all colors; call it for what was printed."""
    for name, value in (
        ("FORCE_COLOR", "1"),
        ("COLORTERM", "truecolor"),
        ("TERM", "xterm-256color"),
        ("COLUMNS", "120"),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    return lambda: capsys.readouterr().out


class TestWhatIsPrinted:
    def test_the_table(self, terminal: Terminal, estimate_of: MakeEstimate) -> None:
        table = TagTable(make_console(), [], "camelot")
        table.header()
        for status in get_args(Status):
            for key in ("Am", "Eb", "F#m", None):
                table.row(
                    TagResult(Path("a.mp3"), status, Key.parse(key) if key else None, "8A", None, estimate_of(key))
                )
        table.summary(1, write=False)
        readable(terminal())

    def test_the_analysis(self, terminal: Terminal, estimate_of: MakeEstimate) -> None:
        for estimate in (estimate_of("Am", changes_to="Eb"), estimate_of(None)):
            print_analysis(output_screen(), Path("a.mp3"), estimate, per_window=True)
        readable(terminal())

    def test_an_error(self, terminal: Terminal) -> None:
        make_console().print(
            error_text("a.mp3", "truncated"), Text("x", "progress.remaining"), Text("y", "markdown.code")
        )
        readable(terminal())

    def test_a_terminal_of_16_colors_shows_none(
        self, terminal: Terminal, monkeypatch: pytest.MonkeyPatch, estimate_of: MakeEstimate
    ) -> None:
        monkeypatch.delenv("COLORTERM")
        monkeypatch.setenv("TERM", "xterm-color")
        print_analysis(output_screen(), Path("a.mp3"), estimate_of("Am"), per_window=False)
        assert all(style.color is None and style.bgcolor is None for _, style in pieces(terminal()))
