"""``stone analyze``: what is heard in a few files, in full."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stonecli.cli.common import (
    EXIT_FAILED,
    EXIT_USAGE,
    DeviceOption,
    ModelOption,
    NullOption,
    check_ending,
    check_target,
    error_console,
    fail,
    listed,
    load_model,
    one_line_errors,
    output_console,
    print_json,
    silence_native_stderr,
)

if TYPE_CHECKING:
    from stonecli.detect import KeyEstimate
    from stonecli.report.analysis_plot import Picture


@one_line_errors
def analyze(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Music files; - for a list.")],
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
    """Show the key of music files: candidates, tuning, the key over time. Nothing is written into them."""
    files = listed(files, null)
    check_target(npz)
    check_ending(html, (".html", ".htm"), "--html")
    check_target(html)
    _check_plot(plot, len(files))
    silence_native_stderr()

    from stonecli.detect import detect_key
    from stonecli.engine import error_line
    from stonecli.report.analysis import print_analysis
    from stonecli.report.records import estimate_record

    key_model = load_model(model, device)
    console, errors = output_console(), error_console()
    heard, pictures, tracks, failed = [], [], [], 0
    for path in files:
        try:
            estimate = detect_key(path, key_model, window_seconds=window, overlap=overlap, least_segment=min_segment)
        except ValueError as error:
            fail(str(error), EXIT_USAGE)
        except Exception as error:  # one bad file does not end the run
            if os.environ.get("STONE_DEBUG"):
                raise
            from stonecli.report.table import error_text

            failed += 1
            errors.print(error_text(path, error_line(error)), soft_wrap=True)
            if html:
                tracks.append(_track(path, None, error_line(error)))
            if as_json:
                print_json(estimate_record(path, None, error_line(error), key_model, per_window=per_window))
            continue
        if npz:
            heard.append((path, estimate))
        if html:
            tracks.append(_track(path, estimate, None))
        if plot:
            pictures.append(_picture(path, estimate))
        if as_json:
            print_json(estimate_record(path, estimate, None, key_model, per_window=per_window))
        else:
            print_analysis(console, path, estimate, per_window=per_window)
    if npz:
        from stonecli.report.npz import save_npz

        save_npz(npz, heard, key_model)
    if html:
        from stonecli.report.page import save_page

        save_page(html, tracks)
    if plot and pictures:
        from stonecli.report.analysis_plot import save_analysis_plot

        save_analysis_plot(plot, pictures, theme)
    if failed:
        raise typer.Exit(EXIT_FAILED)


def _check_plot(plot: Path | None, count: int) -> None:
    """Leave with wrong usage if no picture can be drawn there: before the work, not after it."""
    if plot is None:
        return
    from stonecli.report.confusion_plot import PlotError, require_matplotlib

    check_ending(plot, (".png", ".svg", ".pdf"), "--plot")
    check_target(plot)
    if count > 1 and plot.suffix.lower() != ".pdf":
        raise typer.BadParameter("only a .pdf holds pictures of several files", param_hint="--plot")
    try:
        require_matplotlib()
    except PlotError as error:
        fail(str(error), EXIT_USAGE)


def _track(path: Path, estimate: KeyEstimate | None, error: str | None) -> dict[str, Any]:
    """The file's row of the page, with what its tags say where it could be heard."""
    from stonecli.report.page import page_track
    from stonecli.tags.info import TrackInfo, read_info  # the readers of all kinds of tags: only where they are shown

    if estimate is None:
        return page_track(path, None, None, TrackInfo(), "error", error)
    return page_track(path, estimate.key, estimate, read_info(path), "detected")


def _picture(path: Path, estimate: KeyEstimate) -> Picture:
    from stonecli.audio import read_audio
    from stonecli.chroma import SAMPLE_RATE, chroma_of
    from stonecli.report.analysis_plot import Picture

    chroma = chroma_of(read_audio(path, SAMPLE_RATE), estimate.tuning_cents or 0.0)
    return Picture(path.name, estimate, chroma)
