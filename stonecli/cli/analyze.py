"""``stone analyze``: the full analysis of some files. Plain command lines take a shorter way: ``plain.py``."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

import typer

from stonecli.cli.analyze_files import analyze_files
from stonecli.cli.common import (
    EXIT_USAGE,
    check_ending,
    check_target,
    fail,
    fail_without_music,
    listed,
    one_line_errors,
)
from stonecli.cli.options import DeviceOption, ModelOption, NullOption


@one_line_errors
def analyze(
    files: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Music files or folders; - reads a list.")],
    per_window: Annotated[bool, typer.Option("--per-window", help="Show every window as well.")] = False,
    window: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Length of a window; else as the model was trained.")
    ] = None,
    overlap: Annotated[
        float, typer.Option(min=0.0, max=0.95, metavar="FRACTION", help="Share of a window that the next one repeats.")
    ] = 0.0,
    min_segment: Annotated[
        float, typer.Option(min=0.0, metavar="SECONDS", help="Shortest stretch in another key that counts as a change.")
    ] = 30.0,
    null: NullOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a file.")] = False,
    npz: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Save the model's raw probabilities for every window.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw a picture: .png, .svg, or .pdf with a page a file.")
    ] = None,
    theme: Annotated[Literal["light", "dark"], typer.Option(help="Of the picture.")] = "light",
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page to look at: .html.")] = None,
    device: DeviceOption = "auto",
    model: ModelOption = None,
) -> None:
    """Show the key of music files: candidates, tuning, the key over time. The files are not changed."""
    named, files = files, listed(files, null)
    check_ending(npz, (".npz",), "--npz")
    check_target(npz)
    check_ending(html, (".html", ".htm"), "--html")
    check_target(html)
    _check_plot(plot, files)
    if not files:
        fail_without_music(named)
    code = analyze_files(
        files,
        per_window=per_window,
        window=window,
        overlap=overlap,
        min_segment=min_segment,
        as_json=as_json,
        npz=npz,
        plot=plot,
        theme=theme,
        html=html,
        device=device,
        model=model,
    )
    raise typer.Exit(code)


def _check_plot(plot: Path | None, files: list[Path]) -> None:
    """Leave with wrong usage if no picture can be drawn there: before the work, not after it."""
    if plot is None:
        return
    from stonecli.library import files_and_music
    from stonecli.report.confusion_plot import PlotError, require_matplotlib

    check_ending(plot, (".png", ".svg", ".pdf"), "--plot")
    check_target(plot)
    if plot.suffix.lower() != ".pdf" and len(list(islice(files_and_music(files), 2))) > 1:
        raise typer.BadParameter("several files need a .pdf", param_hint="--plot")
    try:
        require_matplotlib()
    except PlotError as error:
        fail(str(error), EXIT_USAGE)
