"""Draw the figures of docs/how-it-works.md: circle.svg and cpsd.svg (python docs/make_figures.py [FOLDER]).

Lines and letters are gray, readable on white and on black, because the site has a light and a dark theme.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stonecli import Key, KeyEstimate, KeyModel
from stonecli.detection.detect import detect_key_in_audio
from stonecli.util.key_colors import key_hex
from stonecli_export.pitch_fork import play_key

GRAY = "#82858f"
FIRST, SECOND = "#c8553d", "#3d7dc8"
MAJORS = [Key(7 * step % 12, "major") for step in range(12)]  # clockwise: C, G, D, ...
ANGLES = np.arange(12) * np.pi / 6
SHIFT = 3  # semitones between the two recordings of the second figure
HERE = Key.parse("Am")


def draw_circle() -> Figure:
    """The 24 keys around the circle of fifths; the keys that mix with A minor have a thick edge."""
    figure = Figure(figsize=(6.4, 6.4))
    axes = figure.add_axes((0, 0, 1, 1), projection="polar")
    axes.set_theta_zero_location("N")
    axes.set_theta_direction(-1)
    axes.set_axis_off()
    axes.set_ylim(0, 1)
    mixes = {HERE, *HERE.neighbors()}
    for thick in (False, True):  # thick edges last, or the neighbors would cover half of them
        for angle, major in zip(ANGLES, MAJORS, strict=True):
            for key, bottom, height in ((major, 0.66, 0.32), (major.relative, 0.36, 0.30)):
                if (key in mixes) != thick:
                    continue
                edge = {"edgecolor": GRAY, "linewidth": 6.0 if key == HERE else 3.0} if thick else {"linewidth": 0}
                axes.bar(angle, height, np.pi / 6 * 0.96, bottom, color=key_hex(key), zorder=2 + thick, **edge)
                middle = bottom + height / 2
                axes.text(
                    angle, middle, f"{key.camelot}\n{key.musical}", ha="center", va="center", fontsize=14, zorder=5
                )
    axes.text(
        0,
        0,
        f"outside: major\ninside: minor\n\nframed: {HERE.camelot} and\nwhat mixes with it",
        ha="center",
        va="center",
        fontsize=12,
        color=GRAY,
    )
    return figure


def draw_cpsd() -> Figure:
    """Two profiles of the same music, the second a minor third higher, and their vectors on the circle of fifths."""
    model = KeyModel(device="cpu")
    rate = model.info.sample_rate

    def estimate(shift: int) -> KeyEstimate:
        keys = (HERE, HERE.transposed(7))
        return detect_key_in_audio([play_key(key.transposed(shift), 1, 30.0, rate) for key in keys], model, rate)

    first, second = estimate(0), estimate(SHIFT)
    figure = Figure(figsize=(9.6, 5.0))
    names = ["half in A minor, half in E minor", f"{SHIFT} semitones higher"]
    profiles = [_profile(first), _profile(second)]
    for bottom, profile, color, name in zip((0.60, 0.12), profiles, (FIRST, SECOND), names, strict=True):
        axes = figure.add_axes((0.06, bottom, 0.44, 0.30))
        axes.bar(range(12), profile, color=color, width=0.72)
        axes.set_xticks(range(12), [key.musical for key in MAJORS])
        axes.set_ylim(0, 1)
        axes.set_yticks([0, 1])
        axes.set_title(f"estimate: {name}", fontsize=11, color=color, loc="left")
        _plain(axes)
    axes = figure.add_axes((0.56, 0.10, 0.40, 0.76))
    axes.set_aspect("equal")
    axes.set_xlim(-1.3, 1.3)
    axes.set_ylim(-1.3, 1.3)
    axes.set_axis_off()
    turn = np.linspace(0, 2 * np.pi, 200)
    axes.plot(np.cos(turn), np.sin(turn), color=GRAY, linewidth=1)
    for angle, key in zip(ANGLES, MAJORS, strict=True):
        axes.text(1.15 * np.sin(angle), 1.15 * np.cos(angle), key.musical, ha="center", va="center", color=GRAY)
    vectors = [complex((profile * np.exp(1j * ANGLES)).sum()) for profile in profiles]
    for vector, color in zip(vectors, (FIRST, SECOND), strict=True):
        tip = (vector.imag, vector.real)  # angles are clockwise from the top, as on the circle of fifths
        axes.annotate("", tip, (0, 0), arrowprops={"arrowstyle": "-|>", "color": color, "linewidth": 3, "shrinkA": 0})
    start, end = (float(np.angle(vector)) for vector in vectors)
    end = start + (end - start + np.pi) % (2 * np.pi) - np.pi  # the short way
    arc = np.linspace(start, end, 50)
    axes.plot(0.42 * np.sin(arc), 0.42 * np.cos(arc), color=GRAY, linewidth=2)
    middle = (start + end) / 2
    axes.text(0.56 * np.sin(middle), 0.56 * np.cos(middle), f"{np.degrees(abs(end - start)):.0f}°", ha="center",
              va="center", color=GRAY, fontsize=12)  # fmt: skip
    figure.text(0.76, 0.92, "what they add up to on the circle of fifths", ha="center", fontsize=11, color=GRAY)
    asked = (7 * SHIFT % 12) * 30
    asked = min(asked, 360 - asked)
    figure.text(0.76, 0.03, f"{SHIFT} semitones are a turn by {asked}°", ha="center", fontsize=11, color=GRAY)
    return figure


def _profile(estimate: KeyEstimate) -> np.ndarray:
    """Probabilities of the 12 key signatures in the order of ``MAJORS``."""
    return np.array([estimate.probabilities[[key.index, key.relative.index]].sum() for key in MAJORS])


def _plain(axes: Axes) -> None:
    axes.set_facecolor("none")
    axes.tick_params(colors=GRAY, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(GRAY)


def main(folder: Path) -> None:
    """Writes the figures into ``folder``; the same code and model give the same files."""
    mpl.rcParams["svg.hashsalt"] = "stone"
    for name, figure in (("circle", draw_circle()), ("cpsd", draw_cpsd())):
        figure.savefig(folder / f"{name}.svg", transparent=True, metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
