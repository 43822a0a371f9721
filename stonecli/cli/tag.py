"""``stone tag``: hear the keys of files and folders, show them, and write them where asked."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stonecli.cli.common import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    DeviceOption,
    MinConfidenceOption,
    ModelOption,
    ModeOption,
    NullOption,
    OverwriteOption,
    PreserveMtimeOption,
    WriteTagsOption,
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
from stonecli.cli.running import (
    Errors,
    field_rules,
    journal_run,
    progress_bar,
    result_cache,
    stopped_by_ctrl_c,
)
from stonecli.key import Notation

if TYPE_CHECKING:
    from stonecli.library import Finding
    from stonecli.report.outputs import Targets
    from stonecli.tagger import Remover, Tagger, TagResult


@dataclass(frozen=True)
class _Manner:
    """How much is printed, and for whom."""

    as_json: bool
    quiet: bool
    verbose: bool


@one_line_errors
def tag(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Music files, and folders of them; - for a list.")
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
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Hear everything anew, and remember nothing.")] = False,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a table as well: .csv, .json or .ndjson.")
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
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a file.")] = False,
    null: NullOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say on standard error what goes on.")] = False,
    preserve_mtime: PreserveMtimeOption = False,
) -> None:
    """Hear the key of music files and write it into their tags.

    Without --write-tags this is a preview: not one byte changes. A key that a file has already is kept, and written to
    the other fields that --field names. stone undo takes a run back.
    """
    rules = field_rules(field or ["key"], notation, mode)
    check_ending(output, (".csv", ".json", ".ndjson"), "--output")
    check_ending(playlist, (".m3u8", ".m3u"), "--playlist")
    check_ending(rekordbox, (".xml",), "--rekordbox")
    check_ending(html, (".html", ".htm"), "--html")
    for target in (output, playlist, rekordbox, html):
        check_target(target)
    if math.isnan(min_confidence):  # neither below nor above any limit
        raise typer.BadParameter("nan is not from 0 to 1", param_hint="--min-confidence")
    if remove and overwrite:
        raise typer.BadParameter("what is taken out is not heard: not with --overwrite", param_hint="--remove")
    if quiet and as_json:
        raise typer.BadParameter("prints nothing: not with --json", param_hint="--quiet")
    paths = listed(paths, null)
    silence_native_stderr()

    from stonecli.library import find_music
    from stonecli.report.outputs import Targets
    from stonecli.tagger import Remover, Tagger
    from stonecli.tags.safe_write import remove_leftovers

    targets = Targets(output, playlist, rekordbox, html)
    with ExitStack() as stack:
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
            )
        )
        leftovers: list[Path] = []
        findings = list(find_music(paths, leftovers))
        if write_tags:
            remove_leftovers(leftovers)
        errors = Errors(error_console())
        interrupted = _run(tagger, findings, paths, errors, targets, jobs, notation, _Manner(as_json, quiet, verbose))
    if interrupted:
        fail("interrupted; what is shown above is done", EXIT_INTERRUPTED)
    if errors.count:
        raise typer.Exit(EXIT_FAILED)


def _run(
    tagger: Tagger | Remover,
    findings: list[Finding],
    roots: list[Path],
    errors: Errors,
    targets: Targets,
    jobs: int | None,
    notation: Notation,
    manner: _Manner,
) -> bool:
    """Tag all files and show each; True when interrupted."""
    from concurrent.futures import ThreadPoolExecutor

    from stonecli.engine import default_jobs, run
    from stonecli.report.outputs import Outputs
    from stonecli.report.table import TagTable

    music = [finding.path for finding in findings if finding.error is None]
    jobs = jobs or default_jobs()
    model = getattr(tagger, "model", None)
    console = output_console()
    table = TagTable(console, roots, notation)
    shows = not manner.as_json and not manner.quiet
    if shows and music:
        table.header()
    started = time.monotonic()
    if manner.verbose:
        heard_by = f"{model.name} ({model.sha256[:12]}) on {model.device}, {jobs} at a time" if model else "nobody"
        errors.remark(f"{len(music)} files; heard by {heard_by}")
    with ExitStack() as stack:
        outputs = stack.enter_context(Outputs(targets, notation, model))

        def note(path: Path, result: TagResult | None, error: str | None) -> None:
            record = outputs.note(path, result, error)
            if manner.as_json:
                print_json(record)

        for finding in findings:
            if finding.error is not None:
                note(finding.path, None, finding.error)
                errors.show(finding.path, finding.error)
        executor = stack.enter_context(ThreadPoolExecutor(jobs, thread_name_prefix="stone"))
        progress = stack.enter_context(progress_bar(console, errors.console, hidden=manner.quiet))
        if console.is_terminal and errors.console.is_terminal:
            errors.console = progress.console  # one screen: an error line goes above the bar, not through it
        bar = progress.add_task("", total=len(music))
        outcomes = stack.enter_context(
            run(tagger, music, executor=executor, in_flight=2 * jobs, on_done=lambda _: progress.advance(bar))
        )
        is_interrupted = stack.enter_context(stopped_by_ctrl_c(outcomes))
        for outcome in outcomes:
            note(outcome.item, outcome.result, outcome.error)
            if outcome.result is not None and shows:
                table.row(outcome.result)
            if outcome.error is not None:
                errors.show(outcome.item, outcome.error)
        interrupted = bool(is_interrupted)
    if shows:
        table.summary(errors.count, tagger.write)
    if manner.verbose:
        errors.remark(f"{time.monotonic() - started:.1f} s, {errors.count} failed")
    return interrupted
