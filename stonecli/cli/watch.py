"""``stone watch``: tag the music that arrives in a folder."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from stonecli.cli.common import (
    EXIT_USAGE,
    error_console,
    fail,
    load_model,
    one_line_errors,
    output_console,
    print_json,
    silence_native_stderr,
)
from stonecli.cli.options import (
    DeviceOption,
    FieldOption,
    JobsOption,
    MinConfidenceOption,
    ModelOption,
    ModeOption,
    NotationOption,
    OverwriteOption,
    PreserveMtimeOption,
    WriteTagsOption,
    json_option,
    number,
)
from stonecli.cli.running import Errors, field_rules, journal_run, result_cache, stopped_by_ctrl_c, unbroken_output

if TYPE_CHECKING:
    from collections.abc import Iterator
    from threading import Event

    from stonecli.jobs import Run
    from stonecli.library.watch import FolderWatcher
    from stonecli.tagging import Tagger, TagResult


@one_line_errors
def watch(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Watch this folder and the folders in it.")],
    write_tags: WriteTagsOption = False,
    field: FieldOption = None,
    notation: NotationOption = "camelot",
    mode: ModeOption = "prepend",
    overwrite: OverwriteOption = False,
    min_confidence: MinConfidenceOption = 0.0,
    preserve_mtime: PreserveMtimeOption = False,
    settle: Annotated[
        float,
        typer.Option(
            parser=number(0.5),
            metavar="SECONDS",
            help="Wait until a file is unchanged for this long before processing it.",
        ),
    ] = 3.0,
    existing: Annotated[
        bool, typer.Option("--existing", help="Process the files that are already there, too (default: only new ones).")
    ] = False,
    poll: Annotated[
        bool, typer.Option("--poll", help="Check for changes regularly: for network drives that do not report them.")
    ] = False,
    as_json: Annotated[bool, json_option("Print one JSON object per file (default: a table).")] = False,
    jobs: JobsOption = None,
    device: DeviceOption = "auto",
    model: ModelOption = None,
) -> None:
    """Tag new music files as they arrive in a folder.

    Press Ctrl-C to stop. A file is processed once it is complete. Without --write-tags this is a preview, as in
    stone tag. To restore everything that one watch has written, run stone undo.
    """
    rules = field_rules(field or ["key"], notation, mode)
    if not folder.is_dir():
        fail(f"{folder}: no such folder; create it first", EXIT_USAGE)
    silence_native_stderr()

    from concurrent.futures import ThreadPoolExecutor
    from threading import Event

    from stonecli.jobs import default_jobs, run
    from stonecli.library.watch import FolderWatcher
    from stonecli.output.records import tag_record
    from stonecli.tagging import Tagger
    from stonecli.terminal.table import TagTable

    jobs = jobs or default_jobs()
    errors = Errors(error_console())
    table = TagTable(output_console(), [folder], notation)
    ended = Event()
    with ExitStack() as stack:
        stack.enter_context(unbroken_output(wanted=write_tags))
        key_model = load_model(model, device)
        tagger = Tagger(
            model=key_model,
            rules=rules,
            write=write_tags,
            overwrite=overwrite,
            min_confidence=min_confidence,
            preserve_mtime=preserve_mtime,
            journal=stack.enter_context(journal_run(rules, remove=False)) if write_tags else None,
            cache=stack.enter_context(result_cache()),
            cancelled=ended.is_set,
        )
        watcher = stack.enter_context(
            FolderWatcher(folder, settle, polling=poll, existing=existing, warn=errors.remark)
        )
        executor = stack.enter_context(ThreadPoolExecutor(jobs, thread_name_prefix="stone"))
        arrivals = cast("Iterator[Path]", watcher.arrivals())  # run() takes out NOT_YET
        outcomes = stack.enter_context(
            run(_Arrival(tagger, watcher), arrivals, executor=executor, in_flight=2 * jobs, ordered=False)
        )
        stack.enter_context(stopped_by_ctrl_c(_Ending(ended, watcher, outcomes)))
        errors.remark(f"watching {folder}; press Ctrl-C to stop")
        if not as_json:
            table.header()
        for outcome in outcomes:
            path, result, error = outcome.item, outcome.result, outcome.error
            if error is not None:
                errors.show(path, error)
            elif result is None:  # ended before it was analyzed
                continue
            if as_json:
                print_json(tag_record(path, result, error, key_model))
            elif result is not None:
                table.row(result)
            if result is not None and result.estimate is not None:
                for note in result.estimate.notes:
                    errors.note(path, note)
    if not as_json:
        table.summary(errors.count, write_tags)


@dataclass(frozen=True)
class _Arrival:
    """Tags one file that has arrived, in a thread of its own."""

    tagger: Tagger
    watcher: FolderWatcher

    def __call__(self, path: Path) -> TagResult | None:
        """The result; None if the watch ended before the file was analyzed."""
        from stonecli.errors import Cancelled

        try:
            result = self.tagger(path)
        except Cancelled:
            return None
        if result.status == "written":  # a change by somebody else still is news
            self.watcher.done(path)
        return result


@dataclass(frozen=True)
class _Ending:
    """Ends the watch within a moment: files whose analysis has not ended are left as they are, writes are finished."""

    ended: Event
    watcher: FolderWatcher
    outcomes: Run[Path, TagResult | None]

    def stop(self) -> None:
        """Called by the signal handler."""
        self.ended.set()
        self.watcher.stop()
        self.outcomes.stop()
