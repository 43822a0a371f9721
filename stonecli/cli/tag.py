"""``stone tag``: detect the keys of files and folders, show them, and write them to the tags."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stonecli.cli.common import (
    check_target,
    fail_without_music,
    listed_names,
    load_model,
    one_line_errors,
    refuse_addresses,
    silence_native_stderr,
)
from stonecli.cli.options import (
    FILES,
    PROCESSING,
    SCREEN,
    WRITING,
    DeviceOption,
    FieldOption,
    JobsOption,
    MinConfidenceOption,
    ModelOption,
    ModeOption,
    NotationOption,
    NullOption,
    OverwriteOption,
    PreserveMtimeOption,
    WriteTagsOption,
    file_with_ending,
    json_option,
)
from stonecli.cli.running import field_rules, journal_run, result_cache, stopped_by_ctrl_c, unbroken_output
from stonecli.cli.tag_screen import Manner, TagScreen
from stonecli.remote.locations import place_of

if TYPE_CHECKING:
    from stonecli.output.sinks import Outputs
    from stonecli.remote.storage import AnyPlace, Found


@one_line_errors
def tag(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...", help="Process files, folders, URLs (s3://, https://), or - for a list on stdin."
        ),
    ],
    write_tags: WriteTagsOption = False,
    field: FieldOption = None,
    notation: NotationOption = "camelot",
    mode: ModeOption = "prepend",
    overwrite: OverwriteOption = False,
    min_confidence: MinConfidenceOption = 0.0,
    remove: Annotated[
        bool,
        typer.Option("--remove", rich_help_panel=WRITING, help="Remove what stone wrote (same --field and --mode)."),
    ] = False,
    preserve_mtime: PreserveMtimeOption = False,
    output: Annotated[
        Path | None,
        typer.Option(
            parser=file_with_ending(".csv", ".json", ".ndjson", ".parquet"),
            metavar="FILE",
            rich_help_panel=FILES,
            help="Save a table: .csv, .json, .ndjson or .parquet.",
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            parser=file_with_ending(".html", ".htm"),
            metavar="FILE",
            rich_help_panel=FILES,
            help="Save a web page of the library: .html.",
        ),
    ] = None,
    playlist: Annotated[
        Path | None,
        typer.Option(
            parser=file_with_ending(".m3u8", ".m3u"),
            metavar="FILE",
            rich_help_panel=FILES,
            help="Save a playlist of the files: .m3u8.",
        ),
    ] = None,
    rekordbox: Annotated[
        Path | None,
        typer.Option(
            parser=file_with_ending(".xml"),
            metavar="FILE",
            rich_help_panel=FILES,
            help="Save a collection for rekordbox: .xml.",
        ),
    ] = None,
    as_json: Annotated[bool, json_option("Print one JSON object per file (default: a table).")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet/--no-quiet", "-q", rich_help_panel=SCREEN, help="Print only errors.")
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option("--verbose/--no-verbose", "-v", rich_help_panel=SCREEN, help="Print details to standard error."),
    ] = False,
    jobs: JobsOption = None,
    device: DeviceOption = "auto",
    model: ModelOption = None,
    no_cache: Annotated[
        bool,
        typer.Option(
            "--no-cache/--cache", rich_help_panel=PROCESSING, help="Ignore the result cache and store nothing."
        ),
    ] = False,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            rich_help_panel=PROCESSING,
            help="Run on a Dask cluster: tcp://HOST:8786 (default: this computer).",
        ),
    ] = None,
    null: NullOption = False,
) -> None:
    """Detect the key of music files and write it to their tags.

    Without --write-tags this is a preview: no file changes. Files that already have a key keep it; stone copies it to
    the other fields you name with --field. To restore the files, run stone undo.
    """
    rules = field_rules(field or ["key"], notation, mode)
    if write_tags:
        refuse_addresses(map(place_of, paths), "tags can only be written to files; leave out --write-tags")
    if cluster and output and output.suffix.lower() not in (".ndjson", ".parquet"):
        raise typer.BadParameter("must end in .ndjson or .parquet with --cluster", param_hint="--output")
    for target, option in (
        (output, "--output"),
        (playlist, "--playlist"),
        (rekordbox, "--rekordbox"),
        (html, "--html"),
    ):
        check_target(target, option, is_folder=target is not None and target.suffix.lower() == ".parquet")
    if remove and overwrite:
        raise typer.BadParameter("cannot be combined with --overwrite", param_hint="--remove")
    if quiet and as_json:
        raise typer.BadParameter("cannot be combined with --json", param_hint="--quiet")
    if cluster is not None and (jobs or playlist or rekordbox or html):
        raise typer.BadParameter(
            "cannot be combined with --jobs, --playlist, --rekordbox or --html", param_hint="--cluster"
        )
    places = map(place_of, listed_names(paths, null))
    manner = Manner(as_json, quiet, verbose)
    silence_native_stderr()
    if cluster is not None:
        from stonecli.cli.tag_cluster import ClusterTagging, tag_on_cluster

        how = ClusterTagging(rules, write_tags, overwrite, remove, min_confidence, preserve_mtime, model, device)
        with unbroken_output(wanted=write_tags or output is not None):
            tag_on_cluster(cluster, places, how, output, TagScreen(manner, [], notation, write_tags), notation)
        return

    from stonecli.output.resumable import results_at
    from stonecli.output.sinks import Outputs, Targets
    from stonecli.remote.storage import AnyPlace, find_places
    from stonecli.tagging import Remover, Tagger
    from stonecli.tags.edit.atomic_replace import remove_leftovers

    goes_on = output is not None and output.suffix.lower() == ".parquet"
    # A later run may start in another folder, where a relative name means another file.
    roots = [place.absolute() if goes_on and isinstance(place, Path) else place for place in places]
    if playlist or rekordbox or html:
        refuse_addresses(roots, "--playlist, --rekordbox and --html need files on this computer")
    with ExitStack() as stack:
        targets = Targets(output, playlist, rekordbox, html)
        stack.enter_context(unbroken_output(wanted=write_tags or targets != Targets()))
        results = stack.enter_context(results_at(output)) if output and goes_on else None
        screen = TagScreen(manner, roots, notation, write_tags)
        if results and output:
            screen.going_on(results, output, remove=remove)
        journal = stack.enter_context(journal_run(rules, remove)) if write_tags else None  # before the work
        tagger = (
            Remover(rules, write_tags, preserve_mtime, journal)
            if remove
            else Tagger(
                model=load_model(model, device),
                rules=rules,
                write=write_tags,
                overwrite=overwrite,
                min_confidence=min_confidence,
                preserve_mtime=preserve_mtime,
                journal=journal,
                cache=None if no_cache else stack.enter_context(result_cache()),
                match_audio=as_json or any((output, playlist, rekordbox, html)),  # what shows kept files in full
            )
        )
        leftovers: list[Path] = []
        found = list(find_places(roots, leftovers, results.seen if results else None))
        if write_tags:
            remove_leftovers(leftovers)
        copies = replace(tagger, cache=None) if isinstance(tagger, Tagger) else tagger
        act = AnyPlace(copies, write_tags or remove, tagger)
        outputs = stack.enter_context(Outputs(targets, notation, getattr(tagger, "model", None), results))
        interrupted = _run(act, found, outputs, jobs, screen)
    if not found and not (results and len(results.seen)):
        fail_without_music(paths)
    screen.end(interrupted=interrupted)


def _run(act: AnyPlace, found: list[Found], outputs: Outputs, jobs: int | None, screen: TagScreen) -> bool:
    """Tag all files and show each; True when interrupted."""
    from concurrent.futures import ThreadPoolExecutor

    from stonecli.jobs import default_jobs, run

    music = [one.place for one in found if one.error is None]
    jobs = jobs or default_jobs()
    model = outputs.model
    analyzed_by = f", analyzed by {model.name} ({model.sha256[:12]}) on {model.device}" if model else ""
    screen.remark(f"{len(music)} files, {jobs} at a time{analyzed_by}")
    with ExitStack() as stack:
        stack.enter_context(screen.opened(outputs, music))
        for one in found:
            if one.error is not None:
                screen.show(one.place, None, one.error)
        executor = stack.enter_context(ThreadPoolExecutor(jobs, thread_name_prefix="stone"))
        outcomes = stack.enter_context(
            run(act, music, executor=executor, in_flight=2 * jobs, on_done=lambda _: screen.advance())
        )
        is_interrupted = stack.enter_context(stopped_by_ctrl_c(outcomes))
        for outcome in outcomes:
            screen.show(outcome.item, outcome.result, outcome.error)
        return bool(is_interrupted)
