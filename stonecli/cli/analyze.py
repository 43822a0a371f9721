"""``stone analyze``: the analysis of a few files in full."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

import typer

from stonecli.cli.analyze_files import analyze_files
from stonecli.cli.common import EXIT_USAGE, check_target, fail, fail_without_music, listed, one_line_errors
from stonecli.cli.options import (
    FILES,
    DeviceOption,
    ModelOption,
    NullOption,
    file_with_ending,
    json_option,
    number,
)


@one_line_errors
def analyze(
    files: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Analyze these files and folders, or - for a list on stdin.")
    ],
    per_window: Annotated[
        bool, typer.Option("--per-window", help="Show the key of every window, too (default: the summary).")
    ] = False,
    window: Annotated[
        float | None,
        typer.Option(
            parser=number(0),
            metavar="SECONDS",
            help="Set the length of a window (default: that of the model, 15).",
        ),
    ] = None,
    overlap: Annotated[
        float,
        typer.Option(parser=number(0, 0.95), metavar="0..0.95", help="Set the overlap between windows (default: 0)."),
    ] = 0.0,
    last_window: Annotated[
        Literal["keep", "drop"],
        typer.Option(metavar="keep|drop", help="Extend the last window to the end of the track, or drop the rest."),
    ] = "keep",
    min_segment: Annotated[
        float,
        typer.Option(parser=number(0), metavar="SECONDS", help="Ignore key changes shorter than this."),
    ] = 30.0,
    as_json: Annotated[bool, json_option("Print one JSON object per file (default: text).")] = False,
    html: Annotated[
        Path | None,
        typer.Option(
            parser=file_with_ending(".html", ".htm"),
            metavar="FILE",
            rich_help_panel=FILES,
            help="Save a web page: .html.",
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            parser=file_with_ending(".png", ".svg", ".pdf"),
            metavar="FILE",
            rich_help_panel=FILES,
            help="Save a plot: .png, .svg, or .pdf with one page per file.",
        ),
    ] = None,
    theme: Annotated[
        Literal["light", "dark"],
        typer.Option(metavar="light|dark", rich_help_panel=FILES, help="Set the colors of the plot."),
    ] = "light",
    npz: Annotated[
        Path | None,
        typer.Option(
            parser=file_with_ending(".npz"),
            metavar="FILE",
            rich_help_panel=FILES,
            help="Save the probabilities of every window for NumPy: .npz.",
        ),
    ] = None,
    device: DeviceOption = "auto",
    model: ModelOption = None,
    null: NullOption = False,
) -> None:
    """Show the key of music files in detail, without writing anything.

    Shows the most likely keys, the tuning, and how the key changes over time.
    """
    named, files = files, listed(files, null)
    check_target(npz, "--npz")
    check_target(html, "--html")
    _check_plot(plot, files)
    if not files:
        fail_without_music(named)
    code = analyze_files(
        files,
        per_window=per_window,
        window=window,
        overlap=overlap,
        last_window=last_window,
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
    """Wrong usage if no picture can be drawn there: found out before the work, not after it."""
    if plot is None:
        return
    from stonecli.errors import PlotError
    from stonecli.library.walk import files_and_music
    from stonecli.plots.confusion import require_matplotlib

    check_target(plot, "--plot")
    if plot.suffix.lower() != ".pdf" and len(list(islice(files_and_music(files), 2))) > 1:
        raise typer.BadParameter("must end in .pdf for several files", param_hint="--plot")
    try:
        require_matplotlib()
    except PlotError as error:
        fail(str(error), EXIT_USAGE)
