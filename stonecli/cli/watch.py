"""``stone watch``: tag what arrives in a folder."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

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
    MinConfidenceOption,
    ModelOption,
    ModeOption,
    OverwriteOption,
    PreserveMtimeOption,
    WriteTagsOption,
)
from stonecli.cli.running import Errors, field_rules, journal_run, result_cache, stopped_by_ctrl_c
from stonecli.key import Notation


@one_line_errors
def watch(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder; what lies below it counts.")],
    write_tags: WriteTagsOption = False,
    notation: Annotated[Notation, typer.Option(help="How a key is written: 8A, 1m or Am.")] = "camelot",
    field: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD[=NOTATION]", help="Where to write: as for stone tag. May be repeated."),
    ] = None,
    mode: ModeOption = "prepend",
    overwrite: OverwriteOption = False,
    min_confidence: MinConfidenceOption = 0.0,
    settle: Annotated[
        float, typer.Option(min=0.5, metavar="SECONDS", help="How long a file has to stay as it is to have arrived.")
    ] = 3.0,
    existing: Annotated[bool, typer.Option("--existing", help="Begin with what is there.")] = False,
    poll: Annotated[bool, typer.Option("--poll", help="For network drives that report no changes.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json/--no-json", help="Print one JSON object a file.", show_default=False)
    ] = False,
    preserve_mtime: PreserveMtimeOption = False,
    device: DeviceOption = "auto",
    model: ModelOption = None,
) -> None:
    """Tag the music that arrives in a folder, each file when it has finished arriving. Ctrl-C ends it.

    Without --write-tags this is a preview, as with stone tag. stone undo takes back what one watch has written.
    """
    rules = field_rules(field or ["key"], notation, mode)
    if not folder.is_dir():
        fail(f"{folder}: no such folder", EXIT_USAGE)
    silence_native_stderr()

    from stonecli.engine import error_line
    from stonecli.report.records import tag_record
    from stonecli.report.table import TagTable
    from stonecli.tagger import Tagger
    from stonecli.watch import FolderWatcher

    errors = Errors(error_console())
    table = TagTable(output_console(), [folder], notation)
    with ExitStack() as stack:
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
        )
        watcher = stack.enter_context(FolderWatcher(folder, settle, polling=poll, existing=existing))
        stack.enter_context(stopped_by_ctrl_c(watcher))  # the file in hand is finished
        errors.remark(f"watching {folder}; Ctrl-C ends it")
        if not as_json:
            table.header()
        for path in watcher:
            result, error = None, None
            try:
                result = tagger(path)
            except Exception as caught:  # one bad file does not end the watch
                error = error_line(caught)
                errors.show(path, error)
            else:
                watcher.done(path)  # not of a file that somebody has written meanwhile: that comes again
            if as_json:
                print_json(tag_record(path, result, error, key_model))
            elif result is not None:
                table.row(result)
    if not as_json:
        table.summary(errors.count, write_tags)
