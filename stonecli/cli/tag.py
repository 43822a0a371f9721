"""``stone tag``: hear the keys of files and folders, show them, and write them where asked."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stonecli.cli.common import (
    check_ending,
    check_target,
    fail_without_music,
    listed_names,
    load_model,
    one_line_errors,
    refuse_addresses,
    silence_native_stderr,
)
from stonecli.cli.options import (
    DeviceOption,
    MinConfidenceOption,
    ModelOption,
    ModeOption,
    NullOption,
    OverwriteOption,
    PreserveMtimeOption,
    WriteTagsOption,
)
from stonecli.cli.running import field_rules, journal_run, result_cache, stopped_by_ctrl_c
from stonecli.cli.tag_screen import Manner, TagScreen
from stonecli.key import Notation
from stonecli.places import place_of

if TYPE_CHECKING:
    from stonecli.report.outputs import Outputs
    from stonecli.storage import AnyPlace, Found


@one_line_errors
def tag(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH...", help="Music files, folders, addresses (s3://, https://); - for a list."),
    ],
    write_tags: WriteTagsOption = False,
    notation: Annotated[Notation, typer.Option(help="How a key is written: 8A, 1m or Am.")] = "camelot",
    field: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD[=NOTATION]", help="Where to write: key, comment, grouping or title. May be repeated."
        ),
    ] = None,
    mode: ModeOption = "prepend",
    overwrite: OverwriteOption = False,
    remove: Annotated[
        bool, typer.Option("--remove", help="Take out what stone has written, with the same fields and mode.")
    ] = False,
    min_confidence: MinConfidenceOption = 0.0,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Files at once; else one a processor.")
    ] = None,
    device: DeviceOption = "auto",
    model: ModelOption = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache/--cache", help="Hear everything anew, and remember nothing.", show_default=False)
    ] = False,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a table as well: .csv, .json, .ndjson or .parquet.")
    ] = None,
    playlist: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a playlist of the files as well: .m3u8.")
    ] = None,
    rekordbox: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a collection for rekordbox as well: .xml.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page to look at the library as well: .html.")
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Run on a Dask cluster: tcp://scheduler:8786.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json/--no-json", help="Print one JSON object a file.", show_default=False)
    ] = False,
    null: NullOption = False,
    quiet: Annotated[
        bool, typer.Option("--quiet/--no-quiet", "-q", help="Print nothing but errors.", show_default=False)
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option("--verbose/--no-verbose", "-v", help="Say on standard error what goes on.", show_default=False),
    ] = False,
    preserve_mtime: PreserveMtimeOption = False,
) -> None:
    """Hear the key of music files and write it into their tags.

    Without --write-tags this is a preview: not one byte changes. A key that a file has already is kept, and written to
    the other fields that --field names. stone undo takes a run back.
    """
    rules = field_rules(field or ["key"], notation, mode)
    if write_tags:
        refuse_addresses(map(place_of, paths), "tags are written to files")
    check_ending(output, (".ndjson", ".parquet") if cluster else (".csv", ".json", ".ndjson", ".parquet"), "--output")
    check_ending(playlist, (".m3u8", ".m3u"), "--playlist")
    check_ending(rekordbox, (".xml",), "--rekordbox")
    check_ending(html, (".html", ".htm"), "--html")
    for target in (output, playlist, rekordbox, html):
        check_target(target, is_folder=target is not None and target.suffix.lower() == ".parquet")
    if math.isnan(min_confidence):  # neither below nor above any limit
        raise typer.BadParameter("nan is not from 0 to 1", param_hint="--min-confidence")
    if remove and overwrite:
        raise typer.BadParameter("what is taken out is not heard: not with --overwrite", param_hint="--remove")
    if quiet and as_json:
        raise typer.BadParameter("prints nothing: not with --json", param_hint="--quiet")
    if cluster is not None and (jobs or playlist or rekordbox or html):
        raise typer.BadParameter("not with --jobs, --playlist, --rekordbox and --html", param_hint="--cluster")
    places = map(place_of, listed_names(paths, null))
    manner = Manner(as_json, quiet, verbose)
    silence_native_stderr()
    if cluster is not None:
        from stonecli.cli.tag_cluster import ClusterTagging, tag_on_cluster

        how = ClusterTagging(rules, write_tags, overwrite, remove, min_confidence, preserve_mtime, model, device)
        tag_on_cluster(cluster, places, how, output, TagScreen(manner, [], notation, write_tags), notation)
        return

    from stonecli.report.outputs import Outputs, Targets
    from stonecli.report.resumable import results_at
    from stonecli.storage import AnyPlace, find_places
    from stonecli.tagger import Remover, Tagger
    from stonecli.tags.safe_write import remove_leftovers

    goes_on = output is not None and output.suffix.lower() == ".parquet"
    # A later run may start in another folder, where a relative name means another file.
    roots = [place.absolute() if goes_on and isinstance(place, Path) else place for place in places]
    if playlist or rekordbox or html:
        refuse_addresses(roots, "--playlist, --rekordbox and --html list files")
    with ExitStack() as stack:
        targets = Targets(output, playlist, rekordbox, html)
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

    from stonecli.engine import default_jobs, run

    music = [one.place for one in found if one.error is None]
    jobs = jobs or default_jobs()
    model = outputs.model
    heard_by = f"{model.name} ({model.sha256[:12]}) on {model.device}, {jobs} at a time" if model else "nobody"
    screen.remark(f"{len(music)} files; heard by {heard_by}")
    with ExitStack() as stack:
        stack.enter_context(screen.opened(outputs, len(music)))
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
