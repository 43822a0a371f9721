"""Plot a KeyEstimate: chroma and keys over time, and the key signature profile on the circle of fifths."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stonecli.detection.chroma import Chroma
from stonecli.detection.estimate import KeyEstimate
from stonecli.key import MAJOR_NAMES, Key
from stonecli.plots.confusion import require_matplotlib
from stonecli.util.atomic_file import atomic_file
from stonecli.util.key_colors import key_hex
from stonecli.util.text import clock, printable, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Theme = Literal["light", "dark"]
PLOT_FORMATS = (".png", ".svg", ".pdf")

SIZE_INCHES, DPI = (13.0, 8.0), 110
TITLE_CELLS = 90
TIME_STEPS, MAX_TIMES = (2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600), 9  # seconds
LABEL_INCHES = 0.085  # width of a character of a segment's label
_LOOKS: dict[Theme, dict[str, str]] = {
    "light": {"back": "#ffffff", "front": "#1c1c22", "faint": "#8a8a94", "map": "magma_r"},
    "dark": {"back": "#17171c", "front": "#e8e8ee", "faint": "#7d7d88", "map": "magma"},
}
_WHEEL = [Key.parse(f"{number}{letter}") for number in range(1, 13) for letter in "AB"]  # around the circle of fifths


@dataclass(frozen=True, eq=False)
class Picture:
    """The data of one plot.

    Attributes:
        name: name of the file; untrusted.
        estimate: the estimate with its windows.
        chroma: chroma of the same recording.
    """

    name: str
    estimate: KeyEstimate
    chroma: Chroma


def save_analysis_plot(path: Path, pictures: Sequence[Picture], theme: Theme = "light") -> None:
    """Save plots to ``path`` (.png, .svg or .pdf) atomically; only a PDF can have more than one, one per page.

    Raises:
        PlotError: matplotlib is not installed.
        OSError: the file cannot be written; an existing file is unchanged.
    """
    require_matplotlib()
    from matplotlib import rc_context
    from matplotlib.backends.backend_pdf import PdfPages

    kind = path.suffix.lower().removeprefix(".")
    with atomic_file(path) as temporary, warnings.catch_warnings(), rc_context({"svg.hashsalt": "stone"}):
        warnings.filterwarnings("ignore", "Glyph")  # no font here may have the characters of a name
        if kind == "pdf":
            content = BytesIO()  # after a failed write, matplotlib fails to close a PDF
            with PdfPages(content) as pages:
                for picture in pictures:
                    pages.savefig(_draw(picture, theme))
            temporary.write_bytes(content.getvalue())
        else:
            (picture,) = pictures
            metadata = {"Date": None} if kind == "svg" else None
            _draw(picture, theme).savefig(temporary, format=kind, dpi=DPI, metadata=metadata)


def _draw(picture: Picture, theme: Theme) -> Figure:
    from matplotlib.figure import Figure

    look, estimate = _LOOKS[theme], picture.estimate
    figure = Figure(figsize=SIZE_INCHES, facecolor=look["back"])
    title = shortened(printable(picture.name), TITLE_CELLS)
    figure.text(0.045, 0.95, title, fontsize=15, weight="bold", color=look["front"], parse_math=False)
    figure.text(0.045, 0.915, _facts(estimate), fontsize=10.5, color=look["faint"], parse_math=False)
    left, width = 0.075, 0.535
    strip = figure.add_axes((left, 0.835, width, 0.045))
    chroma = figure.add_axes((left, 0.575, width, 0.25))
    heat = figure.add_axes((left, 0.075, width, 0.46))
    scale = figure.add_axes((left + width + 0.008, 0.075, 0.010, 0.46))
    circle = figure.add_axes((0.735, 0.28, 0.225, 0.45), projection="polar")
    _draw_segments(strip, estimate, look, width * SIZE_INCHES[0])
    _draw_chroma(chroma, picture.chroma, estimate.duration, look)
    image = _draw_probabilities(heat, estimate, look)
    bar = figure.colorbar(image, cax=scale)
    bar.outline.set_visible(False)
    scale.tick_params(colors=look["faint"], labelsize=8, length=0)
    scale.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    _draw_circle(circle, estimate, look)
    for axes in (strip, chroma, heat):
        axes.set_xlim(0, estimate.duration)
    return figure


def _facts(estimate: KeyEstimate) -> str:
    if estimate.key is None:
        return f"no key: nothing tonal detected   ·   {clock(estimate.duration)}"
    key = estimate.key
    facts = [f"{key.name} ({key.camelot}, {key.open_key})", f"confidence {estimate.confidence:.0%}"]
    if estimate.tuning_cents is not None:
        hertz = 440 * 2 ** (estimate.tuning_cents / 1200)
        facts.append(f"A = {hertz:.1f} Hz ({round(estimate.tuning_cents):+d} cents)")
    return "   ·   ".join([*facts, clock(estimate.duration)])


def _plain(axes: Axes, look: dict[str, str]) -> None:
    axes.set_facecolor(look["back"])
    axes.tick_params(colors=look["front"], labelsize=8, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _draw_segments(axes: Axes, estimate: KeyEstimate, look: dict[str, str], inches: float) -> None:
    """One block per segment, with a label if it fits."""
    _plain(axes, look)
    axes.set_axis_off()
    axes.set_ylim(0, 1)
    for segment in estimate.segments:
        length = segment.end - segment.start
        axes.barh(0.5, length, 1.0, segment.start, color=key_hex(segment.key), edgecolor=look["back"], linewidth=1)
        room = length / estimate.duration * inches / LABEL_INCHES
        names = (f"{segment.key.camelot}  {segment.key.musical}", segment.key.camelot)
        label = next((name for name in names if len(name) + 1 <= room), "")
        middle = segment.start + length / 2
        axes.text(middle, 0.47, label, ha="center", va="center", fontsize=9, color="black", clip_on=True)


def _draw_chroma(axes: Axes, chroma: Chroma, duration: float, look: dict[str, str]) -> None:
    _plain(axes, look)
    end = chroma.levels.shape[1] * chroma.column_seconds
    axes.imshow(
        chroma.levels,
        origin="lower",
        aspect="auto",
        extent=(0.0, end, -0.5, 11.5),
        cmap=look["map"],
        interpolation="nearest",
    )
    axes.set_yticks(range(12), MAJOR_NAMES)
    axes.set_xticks([])
    axes.set_ylabel("pitch class", color=look["faint"], fontsize=9)


def _draw_probabilities(axes: Axes, estimate: KeyEstimate, look: dict[str, str]) -> Any:
    """One row per key in the order of the circle of fifths, one column per window; blank if not tonal."""
    _plain(axes, look)
    starts = [window.start for window in estimate.windows]
    edges = np.array([*starts, estimate.windows[-1].end])
    if len(starts) > 1:  # windows that overlap meet in the middle
        edges[1:-1] = (edges[1:-1] + np.array([window.end for window in estimate.windows[:-1]])) / 2
    order = [key.index for key in _WHEEL]
    rows = np.array([window.probabilities[order] for window in estimate.windows]).T
    rows = np.where([window.tonal for window in estimate.windows], rows, np.nan)
    image = axes.pcolormesh(edges, np.arange(25) - 0.5, rows, cmap=look["map"], vmin=0, vmax=1)
    axes.set_yticks(range(24), [f"{key.camelot}  {key.musical}" for key in _WHEEL])
    for before, after in itertools.pairwise(estimate.segments):
        axes.axvline((before.end + after.start) / 2, color=look["faint"], linewidth=0.8, linestyle=(0, (4, 4)))
    step = next((step for step in TIME_STEPS if estimate.duration <= MAX_TIMES * step), TIME_STEPS[-1])
    times = np.arange(0.0, 0.97 * estimate.duration, step)  # a label at the end would overlap the color scale
    axes.set_xticks(times, [clock(seconds) for seconds in times])
    axes.set_xlabel("time", color=look["faint"], fontsize=9)
    axes.set_ylabel("probability of each key, around the circle of fifths", color=look["faint"], fontsize=9)
    return image


def _draw_circle(axes: Any, estimate: KeyEstimate, look: dict[str, str]) -> None:
    """The key signature profile as bars around the circle of fifths, and the vector that it adds up to.

    The vector is the profile's DFT coefficient of one turn, which the loss of STONE compares (Kong et al., 2024).
    """
    _plain(axes, look)
    axes.set_theta_zero_location("N")
    axes.set_theta_direction(-1)
    majors = [Key(7 * step % 12, "major") for step in range(12)]  # C, G, D, ... clockwise
    profile = np.array([estimate.probabilities[[key.index, key.relative.index]].sum() for key in majors])
    angles = np.arange(12) * np.pi / 6
    vector = (profile * np.exp(1j * angles)).sum()
    reach = max(float(profile.max()), abs(vector), 0.05) * 1.04
    colors = [key_hex(key) for key in majors]
    axes.bar(angles, profile, width=0.42, color=colors, edgecolor=look["front"], linewidth=0.4)
    if estimate.key is not None:
        axes.annotate(
            "",
            xy=(float(np.angle(vector)), abs(vector)),
            xytext=(0, 0),
            arrowprops={"arrowstyle": "-|>", "color": look["front"], "linewidth": 2, "shrinkA": 0, "shrinkB": 0},
        )
    axes.set_ylim(0, reach)
    axes.set_yticks([])
    axes.set_xticks(angles, [f"{key.musical}\n{key.relative.musical}" for key in majors])
    axes.tick_params(pad=9, labelsize=9.5, colors=look["front"])
    axes.grid(color=look["faint"], linewidth=0.4, alpha=0.5)
    axes.spines["polar"].set(visible=True, color=look["faint"], linewidth=0.8)
    figure = axes.figure
    center = 0.8475
    head = "key signature profile on the circle of fifths"
    figure.text(center, 0.80, head, ha="center", fontsize=10.5, color=look["front"])
    note = f"arrow: its DFT vector, length {abs(vector):.2f} of 1" if estimate.key else "nothing tonal"
    figure.text(center, 0.185, note, ha="center", fontsize=9.5, color=look["faint"])
