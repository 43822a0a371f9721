"""What ``stone analyze`` does once its command line is read: analyze the files, print, draw."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stonecli.cli.common import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    Device,
    error_console,
    fail,
    fail_without_music,
    load_model,
    print_json,
    silence_native_stderr,
)

if TYPE_CHECKING:
    from stonecli.detection.detect import KeyEstimate, LastWindow
    from stonecli.plots.analysis import Picture


def analyze_files(
    files: list[Path],
    *,
    per_window: bool = False,
    window: float | None = None,
    overlap: float = 0.0,
    last_window: LastWindow = "keep",
    min_segment: float = 30.0,
    as_json: bool = False,
    npz: Path | None = None,
    plot: Path | None = None,
    theme: Literal["light", "dark"] = "light",
    html: Path | None = None,
    device: Device = "auto",
    model: Path | None = None,
) -> int:
    """Analyze and show ``files`` and the music in those that are folders; the result is the exit code.

    The arguments are the options of ``stone analyze``. The caller has checked the files that are to be written.
    """
    silence_native_stderr()

    from stonecli.detection.detect import check_windows, detect_key
    from stonecli.errors import AudioError
    from stonecli.library.walk import files_and_music
    from stonecli.output.records import estimate_record
    from stonecli.terminal.analysis import print_analysis
    from stonecli.terminal.screen import output_screen

    key_model = load_model(model, device)
    try:
        check_windows(key_model.info, window, overlap)
    except ValueError as error:
        import typer  # here: the simple command line, which has no such options, runs without it

        name, _, reason = str(error).partition(" ")
        raise typer.BadParameter(reason, param_hint=f"--{name}") from None
    screen = output_screen()
    estimates, pictures, tracks, found, failed = [], [], [], 0, 0
    shown: set[str] = set()
    interrupted = True
    with suppress(KeyboardInterrupt):
        for found, finding in enumerate(files_and_music(files), 1):  # noqa: B007 (the count)
            path = finding.path
            try:
                if finding.error is not None:
                    raise AudioError(finding.error)
                estimate = detect_key(
                    path,
                    key_model,
                    window_seconds=window,
                    overlap=overlap,
                    min_segment=min_segment,
                    last_window=last_window,
                )
            except Exception as error:  # one bad file does not end the run
                if os.environ.get("STONE_DEBUG"):
                    raise
                from stonecli.errors import describe
                from stonecli.terminal.table import new_error_text

                failed += 1
                text = new_error_text(path, describe(error), shown)
                if text is not None:
                    error_console().print(text, soft_wrap=True)
                if html:
                    tracks.append(_track(path, None, describe(error)))
                if as_json:
                    print_json(estimate_record(path, None, describe(error), key_model, per_window=per_window))
                continue
            if estimate.notes:
                show_notes(path, estimate.notes)
            if npz:
                estimates.append((path, estimate))
            if html:
                tracks.append(_track(path, estimate, None))
            if plot:
                pictures.append(_picture(path, estimate))
            if as_json:
                print_json(estimate_record(path, estimate, None, key_model, per_window=per_window))
            else:
                print_analysis(screen, path, estimate, per_window=per_window)
        interrupted = False
    if not found and not interrupted:
        fail_without_music(files)
    if npz:
        from stonecli.output.npz import save_npz

        save_npz(npz, estimates, key_model)
    if html:
        from stonecli.output.page import save_page

        save_page(html, tracks)
    if plot and pictures:
        from stonecli.plots.analysis import save_analysis_plot

        save_analysis_plot(plot, pictures, theme)
    if interrupted:
        fail("interrupted; the files shown above are done", EXIT_INTERRUPTED)
    return EXIT_FAILED if failed else 0


def show_notes(path: Path, notes: tuple[str, ...]) -> None:
    """Show on standard error what the user should know of a file that was analyzed."""
    from rich.text import Text

    from stonecli.util.text import printable

    for note in notes:
        error_console().print(Text(f"{printable(str(path))}: {note}"), soft_wrap=True)


def _track(path: Path, estimate: KeyEstimate | None, error: str | None) -> dict[str, Any]:
    """The file's row of the page, with what its tags say where it could be analyzed."""
    from stonecli.output.page import page_track
    from stonecli.tags.track_info import (  # the readers of all kinds of tags: only where they are shown
        TrackInfo,
        read_info,
    )

    if estimate is None:
        return page_track(path, None, None, TrackInfo(), "error", error)
    return page_track(path, estimate.key, estimate, read_info(path), "detected")


def _picture(path: Path, estimate: KeyEstimate) -> Picture:
    from stonecli.audio.decode import read_audio
    from stonecli.detection.chroma import SAMPLE_RATE, chroma_of
    from stonecli.plots.analysis import Picture

    chroma = chroma_of(read_audio(path, SAMPLE_RATE), estimate.tuning_cents or 0.0)
    return Picture(path.name, estimate, chroma)
