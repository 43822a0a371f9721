"""``stone analyze``: the analysis of a few files in full."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stonecli.cli.analyze_screen import AnalysisFiles, AnalysisScreen
from stonecli.cli.common import (
    EXIT_USAGE,
    check_quiet,
    check_target,
    fail,
    fail_without_music,
    listed,
    load_model,
    one_line_errors,
    silence_native_stderr,
    source_collection,
)
from stonecli.cli.options import (
    FILES,
    TEMPO_RANGE_HELP,
    DeviceOption,
    ModelOption,
    NullOption,
    PlaylistNameOption,
    QuietOption,
    bpm_range_option,
    json_option,
    number,
    output_option,
    wants_tempo,
)
from stonecli.tempo.bpm import BpmRange

if TYPE_CHECKING:
    from stonecli.model.session import KeyModel


@one_line_errors
def analyze(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...",
            help="Analyze these files, folders, playlists or rekordbox XML, or - for a list on stdin.",
        ),
    ],
    per_window: Annotated[
        bool,
        typer.Option(
            "--per-window/--no-per-window",
            help="Show the key of every window, too (default: the summary).",
        ),
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
    bpm: Annotated[bool | None, typer.Option("--bpm/--no-bpm", help="Add the tempo (default: key only).")] = None,
    bpm_range: Annotated[
        BpmRange | None,
        bpm_range_option(TEMPO_RANGE_HELP),
    ] = None,
    as_json: Annotated[bool, json_option("Print one JSON object per file (default: text).")] = False,
    quiet: QuietOption = False,
    html: Annotated[
        Path | None,
        output_option("Save a web page: .html.", ".html", ".htm"),
    ] = None,
    plot: Annotated[
        Path | None,
        output_option("Save a plot: .png, .svg, or .pdf with one page per file.", ".png", ".svg", ".pdf"),
    ] = None,
    theme: Annotated[
        Literal["light", "dark"],
        typer.Option(metavar="light|dark", rich_help_panel=FILES, help="Set the colors of the plot."),
    ] = "light",
    npz: Annotated[
        Path | None,
        output_option("Save the probabilities of every window for NumPy: .npz.", ".npz"),
    ] = None,
    device: DeviceOption = "auto",
    model: ModelOption = None,
    null: NullOption = False,
    playlist_name: PlaylistNameOption = None,
) -> None:
    """Show the key of music files in detail, without writing anything.

    Shows the most likely keys, the tuning, and how the key changes over time.
    """
    paths = listed(names, null, "analyze")
    targets = AnalysisFiles(npz, html, plot, theme)
    check_quiet(as_json=as_json, quiet=quiet)
    source_collection(paths, playlist_name, None)
    _check(targets, paths, playlist_name)
    if not paths:
        fail_without_music(names)
    silence_native_stderr()

    from stonecli.detection.many import analyze as analyze_files

    key_model = load_model(model, device)
    _check_windows(key_model, window, overlap)
    screen = AnalysisScreen(
        key_model, targets, as_json=as_json, quiet=quiet, per_window=per_window, bpm_range=bpm_range
    )
    summary = analyze_files(
        paths,
        key_model,
        window_seconds=window,
        overlap=overlap,
        min_segment=min_segment,
        last_window=last_window,
        tempo=wants_tempo(bpm, bpm_range),
        on_result=screen.show,
        playlist_name=playlist_name,
    )
    screen.end(summary, paths)


def _check(targets: AnalysisFiles, paths: list[Path], playlist_name: str | None) -> None:
    """Wrong usage if a file cannot be saved: found out before the work, not after it."""
    check_target(targets.npz, "--npz")
    check_target(targets.html, "--html")
    _check_plot(targets.plot, paths, playlist_name)


def _check_windows(model: KeyModel, window: float | None, overlap: float) -> None:
    """Wrong usage if the model cannot analyze such windows."""
    from stonecli.detection.windows import check_windows

    try:
        check_windows(model.info, window, overlap)
    except ValueError as error:
        name, _, reason = str(error).partition(" ")
        raise typer.BadParameter(reason, param_hint=f"--{name}") from None


def _check_plot(plot: Path | None, files: list[Path], playlist_name: str | None) -> None:
    """Wrong usage if no picture can be drawn there: found out before the work, not after it."""
    if plot is None:
        return
    from stonecli.errors import PlotError
    from stonecli.library.walk import files_and_music
    from stonecli.plots.confusion import require_matplotlib

    check_target(plot, "--plot")
    if plot.suffix.lower() != ".pdf" and len(list(islice(files_and_music(files, playlist_name), 2))) > 1:
        raise typer.BadParameter("must end in .pdf for several files", param_hint="--plot")
    try:
        require_matplotlib()
    except PlotError as error:
        fail(str(error), EXIT_USAGE)
