"""``stone compare``: the keys in the tags beside the detected ones, and how they are related."""

from __future__ import annotations

from typing import Annotated, cast

import typer

from stonecli.cli.common import (
    check_inputs,
    check_outputs,
    listed_names,
    load_model,
    one_line_errors,
    output_console,
    refuse_addresses,
    silence_native_stderr,
    source_collection,
)
from stonecli.cli.options import (
    SCREEN,
    DeviceOption,
    HtmlOutput,
    JobsOption,
    ModelOption,
    NoCacheOption,
    NullOption,
    PlaylistNameOption,
    PlaylistOutput,
    QuietOption,
    TableOutput,
    json_option,
    number,
)
from stonecli.cli.tag_screen import OutputMode, TagScreen
from stonecli.key import AGREEMENTS, NOTATIONS, Agreement, Notation
from stonecli.library.locations import parse_location

FILTER = "Filter"


def _relations(names: list[str] | None) -> list[str] | None:
    """The values of ``--only``, checked."""
    for name in names or ():
        if name not in AGREEMENTS:
            raise typer.BadParameter(f"must be one of {', '.join(AGREEMENTS)}, not {name!r}")
    return names


@one_line_errors
def compare(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...",
            help="Compare these files, folders, playlists or rekordbox XML, or - for a list on stdin.",
        ),
    ],
    only: Annotated[
        list[str] | None,
        typer.Option(
            callback=_relations,
            metavar="|".join(AGREEMENTS),
            rich_help_panel=FILTER,
            help="Show only files with this relation; repeatable (default: all).",
        ),
    ] = None,
    min_confidence: Annotated[
        float,
        typer.Option(
            parser=number(0, 1),
            metavar="0..1",
            rich_help_panel=FILTER,
            help="Show only files with at least this confidence.",
        ),
    ] = 0.0,
    notation: Annotated[
        Notation, typer.Option(metavar="|".join(NOTATIONS), rich_help_panel=SCREEN, help="Show keys as 8A, 1m or Am.")
    ] = "camelot",
    output: TableOutput = None,
    html: HtmlOutput = None,
    playlist: PlaylistOutput = None,
    as_json: Annotated[bool, json_option("Print one JSON object per file (default: a table).")] = False,
    quiet: QuietOption = False,
    jobs: JobsOption = None,
    device: DeviceOption = "auto",
    model: ModelOption = None,
    no_cache: NoCacheOption = False,
    null: NullOption = False,
    playlist_name: PlaylistNameOption = None,
) -> None:
    """Compare the keys in the tags with the detected ones.

    Shows both keys, how they are related, and the confidence of the detected one, so that you can check what another
    program wrote. For files without a key, stone takes the one in the rekordbox XML. No music file
    is changed.
    """
    silence_native_stderr()

    from stonecli.output.sinks import Targets
    from stonecli.tagging import TagOptions, compare_library
    from stonecli.terminal.compare import ComparisonTable, print_counts

    targets = Targets(output, playlist, None, html)
    check_outputs(targets, as_json=as_json, quiet=quiet)
    roots = list(map(parse_location, listed_names(paths, null)))
    if playlist or html:
        refuse_addresses(roots, "--playlist and --html need files on this computer")
    check_inputs(roots, playlist)
    source_collection(roots, playlist_name, None)
    key_model, options = load_model(model, device), TagOptions(jobs=jobs, use_cache=not no_cache)
    with TagScreen(
        OutputMode(as_json, quiet), options, notation, targets, key_model, roots, table=ComparisonTable
    ) as screen:
        summary = compare_library(
            roots,
            options,
            only=cast("list[Agreement] | None", only or None),
            min_confidence=min_confidence,
            model=key_model,
            on_start=screen.start,
            on_done=screen.advance,
            on_result=screen.show,
            on_warning=screen.info,
            playlist_name=playlist_name,
        )
        screen.finish(summary)
    if not as_json and not quiet and summary.files:
        print_counts(output_console(), summary)
    screen.end(summary, paths)
