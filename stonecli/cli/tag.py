"""``stone tag``: detect the keys of files and folders, show them, and write them to the tags."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stonecli.cli.common import (
    Device,
    check_inputs,
    check_outputs,
    is_parquet,
    listed_names,
    load_model,
    one_line_errors,
    refuse_addresses,
    silence_native_stderr,
    source_collection,
)
from stonecli.cli.options import (
    PROCESSING,
    SCREEN,
    WRITING,
    CollectionOutput,
    DeviceOption,
    HtmlOutput,
    ModelOption,
    NoCacheOption,
    NullOption,
    PlaylistNameOption,
    PlaylistOutput,
    QuietOption,
    json_option,
    listing,
    output_option,
    takes_tag_options,
)
from stonecli.cli.tag_screen import OutputMode, TagScreen
from stonecli.library.locations import Location, parse_location
from stonecli.output import TABLE_SUFFIXES

if TYPE_CHECKING:
    from stonecli.output.sinks import Targets
    from stonecli.tagging import TagOptions, TagSummary

_TABLES = (*TABLE_SUFFIXES, ".parquet")


@one_line_errors
@takes_tag_options
def tag(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...",
            help="Process files, folders, playlists, a rekordbox XML, URLs, or - for a list on stdin.",
        ),
    ],
    options: TagOptions,
    remove: Annotated[
        bool,
        typer.Option(
            "--remove/--no-remove", rich_help_panel=WRITING, help="Remove what stone wrote (same --field and --mode)."
        ),
    ] = False,
    output: Annotated[
        Path | None,
        output_option(f"Save a table: {listing(_TABLES)}.", *_TABLES),
    ] = None,
    html: HtmlOutput = None,
    playlist: PlaylistOutput = None,
    rekordbox: CollectionOutput = None,
    as_json: Annotated[bool, json_option("Print one JSON object per file (default: a table).")] = False,
    quiet: QuietOption = False,
    verbose: Annotated[
        bool,
        typer.Option("--verbose/--no-verbose", "-v", rich_help_panel=SCREEN, help="Print details to standard error."),
    ] = False,
    device: DeviceOption = "auto",
    model: ModelOption = None,
    no_cache: NoCacheOption = False,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            rich_help_panel=PROCESSING,
            help="Run on a Dask cluster: tcp://HOST:8786 (default: this computer).",
        ),
    ] = None,
    null: NullOption = False,
    playlist_name: PlaylistNameOption = None,
) -> None:
    """Detect the key of music files and write it to their tags.

    Without --write-tags this is a preview: no file changes. Files that already have a key keep it; stone copies it to
    the other fields you name with --field. To restore the files, run stone undo.
    """
    from stonecli.output.sinks import Targets
    from stonecli.tagging import tag_library

    silence_native_stderr()
    targets, mode = Targets(output, playlist, rekordbox, html), OutputMode(as_json, quiet, verbose)
    _check(paths, options, targets, mode, remove=remove, cluster=cluster)
    match_audio = as_json or targets != Targets()  # shows files that keep their key with their analysis
    options = replace(options, remove=remove, use_cache=not no_cache, match_audio=match_audio)
    locations = map(parse_location, listed_names(paths, null))
    if cluster is not None:
        screen, summary = _tag_on_cluster(cluster, locations, options, targets, mode, model, device, playlist_name)
    else:
        roots = _roots(locations, targets)
        collection = source_collection(roots, playlist_name, rekordbox)
        key_model = None if remove else load_model(model, device)
        with TagScreen(
            mode,
            options,
            options.shown_notation,
            targets,
            key_model,
            roots,
            collection=collection,
            playlist_name=playlist_name,
            resume=is_parquet(output),
        ) as screen:
            summary = tag_library(
                roots,
                options,
                model=key_model,
                skip=screen.skipped,
                on_start=screen.start,
                on_done=screen.advance,
                on_result=screen.show,
                on_warning=screen.info,
                playlist_name=playlist_name,
            )
            screen.finish(summary)
    screen.end(summary, paths)


def _tag_on_cluster(
    address: str,
    locations: Iterable[Location],
    options: TagOptions,
    targets: Targets,
    mode: OutputMode,
    model: Path | None,
    device: Device,
    playlist_name: str | None,
) -> tuple[TagScreen, TagSummary]:
    from stonecli.cluster.client import ClusterModel, connected, tag_on_cluster

    key_model = None if options.remove else load_model(model, "cpu")  # to check it before it is sent
    with (
        connected(address) as client,
        TagScreen(mode, options, options.shown_notation, targets, key_model, resume=True) as screen,
    ):
        return screen, tag_on_cluster(
            client,
            locations,
            options,
            model=ClusterModel(key_model, model, device) if key_model else None,
            skip=screen.skipped,
            on_start=screen.start_cluster,
            on_done=screen.advance,
            on_result=screen.show,
            playlist_name=playlist_name,
        )


def _check(
    paths: list[str], options: TagOptions, targets: Targets, mode: OutputMode, *, remove: bool, cluster: str | None
) -> None:
    """Wrong usage if the options contradict each other, or an output file cannot be written."""
    if options.write:
        refuse_addresses(map(parse_location, paths), "tags can only be written to files; leave out --write-tags")
    if cluster and targets.output and targets.output.suffix.lower() not in (".ndjson", ".parquet"):
        raise typer.BadParameter("must end in .ndjson or .parquet with --cluster", param_hint="--output")
    check_outputs(targets, as_json=mode.as_json, quiet=mode.quiet)
    if remove and options.overwrite:
        raise typer.BadParameter("cannot be combined with --overwrite", param_hint="--remove")
    if remove and options.bpm:
        raise typer.BadParameter(
            "cannot be combined with --bpm or --bpm-range; stone undo restores the tempo", param_hint="--remove"
        )
    local = [*(["--jobs"] if options.jobs else []), *targets.track_files]
    if cluster is not None and local:
        raise typer.BadParameter(f"cannot be combined with {' and '.join(local)}", param_hint="--cluster")


def _roots(locations: Iterable[Location], targets: Targets) -> list[Location]:
    """The files, folders and URLs to process; wrong usage if an output cannot list or would replace one."""
    # A later run may append to the Parquet folder from another folder, where a relative name means another file.
    is_absolute = is_parquet(targets.output)
    roots = [location.absolute() if is_absolute and isinstance(location, Path) else location for location in locations]
    if local := targets.track_files:
        refuse_addresses(roots, f"{' and '.join(local)} can only list files on this computer")
    check_inputs(roots, targets.playlist)
    return roots
