"""``stone watch``: tag the music that arrives in a folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stonecli.cli.common import EXIT_USAGE, check_quiet, fail, load_model, one_line_errors, silence_native_stderr
from stonecli.cli.options import DeviceOption, ModelOption, QuietOption, json_option, number, takes_tag_options
from stonecli.cli.tag_screen import OutputMode, TagScreen
from stonecli.library.locations import parse_location

if TYPE_CHECKING:
    from stonecli.tagging import TagOptions


@one_line_errors
@takes_tag_options
def watch(
    name: Annotated[str, typer.Argument(metavar="FOLDER", help="Watch this folder and its subfolders.")],
    options: TagOptions,
    settle: Annotated[
        float,
        typer.Option(
            parser=number(0.5),
            metavar="SECONDS",
            help="Process a file after it has been unchanged for this long.",
        ),
    ] = 3.0,
    existing: Annotated[
        bool, typer.Option("--existing/--no-existing", help="Process existing files, too (default: only new ones).")
    ] = False,
    poll: Annotated[
        bool,
        typer.Option(
            "--poll/--no-poll", help="Check for new files regularly, for network drives (default: where needed)."
        ),
    ] = False,
    as_json: Annotated[bool, json_option("Print one JSON object per file (default: a table).")] = False,
    quiet: QuietOption = False,
    device: DeviceOption = "auto",
    model: ModelOption = None,
) -> None:
    """Tag new music files as they arrive in a folder.

    Press Ctrl-C to stop. A file is processed once it is complete. Without --write-tags this is a preview, as in
    stone tag. To restore everything that one watch has written, run stone undo.
    """
    check_quiet(as_json=as_json, quiet=quiet)
    folder = _folder(name)
    silence_native_stderr()

    from stonecli.output.sinks import Targets
    from stonecli.tagging import watch_folder

    def start() -> None:
        screen.info(f"watching {folder}; press Ctrl-C to stop")
        screen.start(with_progress=False)

    key_model = load_model(model, device)
    with TagScreen(
        OutputMode(as_json, quiet), options, options.shown_notation, Targets(), key_model, [folder]
    ) as screen:
        watch_folder(
            folder,
            options,
            model=key_model,
            settle_seconds=settle,
            polling=poll,
            existing=existing,
            on_start=start,
            on_result=screen.show,
            on_warning=screen.info,
        )
    screen.summarize()


def _folder(name: str) -> Path:
    """The folder that the user has named; wrong usage if it cannot be watched."""
    folder = parse_location(name)
    if not isinstance(folder, Path):
        fail(f"{folder} is a URL: stone watch works with folders on this computer", EXIT_USAGE)
    if not folder.is_dir():
        problem = "a file, not a folder; use stone tag" if folder.exists() else "no such folder; create it first"
        fail(f"{folder}: {problem}", EXIT_USAGE)
    if not os.access(folder, os.R_OK):
        fail(f"{folder}: you may not read this folder; check its permissions", EXIT_USAGE)
    return folder
