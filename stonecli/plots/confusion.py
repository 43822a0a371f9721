"""Plot the confusion matrix: the estimates for each key, in the order of the circle of fifths."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stonecli.errors import PlotError
from stonecli.evaluation.metrics import CIRCLE
from stonecli.key import Key
from stonecli.util.atomic_file import atomic_file
from stonecli.util.installation import how_to_install

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from stonecli.evaluation.bootstrap import Integers

SIZE_INCHES, DPI = 11.0, 110
DARK = 0.45  # share of the row from which the count is white


def require_matplotlib() -> None:
    """Raise unless plots can be drawn.

    Raises:
        PlotError: matplotlib is not installed; the message says how to get it.
    """
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise PlotError(f"plots need {error.name}; {how_to_install('plot')}") from error


def save_confusion_plot(path: Path, confusion: Integers, title: str) -> None:
    """Write a PNG of ``confusion``, int [24, 25] of :func:`stonecli.evaluation.metrics.confusion_matrix`.

    By key signature it is int [12, 13], of :func:`stonecli.evaluation.metrics.signature_confusion`.

    The color of a cell is its share of the row, the number is the count. The column "no key" is omitted if it is empty.

    Raises:
        PlotError: matplotlib is not installed.
        OSError: the file cannot be written; an existing file is unchanged.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(SIZE_INCHES, SIZE_INCHES), dpi=DPI, layout="constrained")
    _draw(figure.add_subplot(), confusion if confusion[:, -1].any() else confusion[:, :-1], title)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png")


def _draw(axes: Axes, confusion: Integers, title: str) -> None:
    rows, columns = confusion.shape
    shares = confusion / confusion.sum(axis=1, keepdims=True).clip(min=1)
    axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    largest = int(confusion.max())
    size = 10 if largest < 100 else 8 if largest < 1000 else 6
    for row, column in zip(*confusion.nonzero(), strict=True):
        color = "white" if shares[row, column] > DARK else "black"
        axes.text(column, row, str(confusion[row, column]), ha="center", va="center", color=color, fontsize=size)
    for column in range(12, columns, 12):  # between major and minor, and before "no key"
        axes.axvline(column - 0.5, color="0.4", linewidth=1)
    for row in range(12, rows, 12):
        axes.axhline(row - 0.5, color="0.4", linewidth=1)
    names = [_name(key) if rows == 24 else f"{key.musical}/{key.relative.musical}" for key in CIRCLE[:rows]]
    axes.set_xticks(range(columns), [*names, "no key"][:columns], rotation=90)
    axes.set_yticks(range(rows), names)
    axes.set_xticks([column - 0.5 for column in range(columns)], minor=True)
    axes.set_yticks([row - 0.5 for row in range(rows)], minor=True)
    axes.grid(which="minor", color="0.9", linewidth=0.5)
    axes.tick_params(which="both", length=0)
    axes.tick_params(labeltop=True)
    axes.set_xlabel("detected")
    axes.set_ylabel("label")
    axes.set_title(title, parse_math=False)


def _name(key: Key) -> str:
    return f"{key.musical} {key.camelot}"
