"""``stone convert``: write the keys that files already have in another notation, or to other fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stonecli.cli.common import (
    check_inputs,
    check_outputs,
    listed_names,
    one_line_errors,
    refuse_addresses,
    source_collection,
)
from stonecli.cli.options import (
    CollectionOutput,
    HtmlOutput,
    NullOption,
    PlaylistNameOption,
    PlaylistOutput,
    QuietOption,
    TableOutput,
    json_option,
    takes_convert_options,
)
from stonecli.cli.tag_screen import OutputMode, TagScreen
from stonecli.library.locations import parse_location

if TYPE_CHECKING:
    from stonecli.tagging import TagOptions


@one_line_errors
@takes_convert_options
def convert(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...",
            help="Convert these files, folders, playlists or rekordbox XML, or - for a list on stdin.",
        ),
    ],
    options: TagOptions,
    output: TableOutput = None,
    html: HtmlOutput = None,
    playlist: PlaylistOutput = None,
    rekordbox: CollectionOutput = None,
    as_json: Annotated[bool, json_option("Print one JSON object per file (default: a table).")] = False,
    quiet: QuietOption = False,
    null: NullOption = False,
    playlist_name: PlaylistNameOption = None,
) -> None:
    """Write the keys that files already have in another notation.

    Analyzes nothing: the keys in the tags are read in any spelling, and corrections that you made stay. For files
    without a key, stone takes the one in the rekordbox XML, which --rekordbox saves in the notation. Without
    --write-tags this is a preview: no file changes. To restore the files, run stone undo.
    """
    from stonecli.output.sinks import Targets
    from stonecli.tagging import convert_library
    from stonecli.terminal.table import ConversionTable

    targets = Targets(output, playlist, rekordbox, html)
    check_outputs(targets, as_json=as_json, quiet=quiet)
    roots = list(map(parse_location, listed_names(paths, null)))
    refuse_addresses(roots, "tags can only be converted in files on this computer")
    check_inputs(roots, playlist)
    collection = source_collection(roots, playlist_name, rekordbox)
    mode = OutputMode(as_json, quiet)
    with TagScreen(
        mode,
        options,
        options.shown_notation,
        targets,
        None,
        roots,
        collection=collection,
        playlist_name=playlist_name,
        table=ConversionTable,
    ) as screen:
        summary = convert_library(
            roots,
            options,
            on_start=screen.start,
            on_done=screen.advance,
            on_result=screen.show,
            on_warning=screen.info,
            playlist_name=playlist_name,
        )
        screen.finish(summary)
    screen.end(summary, paths)
