"""``stone evaluate``: the accuracy of a model on labeled music, and whether it is better than another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stonecli.cli.common import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    check_target,
    error_console,
    fail,
    load_model,
    one_line_errors,
    output_console,
    print_json,
    silence_native_stderr,
)
from stonecli.cli.options import (
    FILES,
    DeviceOption,
    JobsOption,
    ModelOption,
    file_with_ending,
    json_option,
    model_file,
    whole_number,
)

if TYPE_CHECKING:
    from rich.console import Console

    from stonecli.evaluation.evaluate import Answers, Comparison, Evaluation, Heard, Label
    from stonecli.key import Key
    from stonecli.model.session import KeyModel

LEAST_WIDTH = 100  # of what goes into a file or a pipe


@dataclass(frozen=True)
class _Report:
    labels: Path
    model: str
    tracks: int
    failed: list[Heard]
    evaluation: Evaluation
    rival: str
    comparison: Comparison | None
    resamples: int
    seed: int


@one_line_errors
def evaluate(
    labels: Annotated[
        Path,
        typer.Argument(metavar="LABELS.csv", help="Read the true keys: columns path and key; optional genre, source."),
    ],
    model: ModelOption = None,
    against: Annotated[
        Path | None,
        typer.Option(
            parser=model_file,
            metavar="MODEL|CSV",
            help="Compare with another model or a CSV of another program (default: none).",
        ),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            parser=file_with_ending(".csv"),
            metavar="FILE",
            rich_help_panel=FILES,
            help="Save the detected key of every track: .csv.",
        ),
    ] = None,
    confusion: Annotated[
        Path | None,
        typer.Option(
            parser=file_with_ending(".png"),
            metavar="FILE",
            rich_help_panel=FILES,
            help="Save a picture of the confusion matrix: .png.",
        ),
    ] = None,
    resamples: Annotated[
        int,
        typer.Option(
            parser=whole_number(100, 100_000), metavar="N", help="Draw N bootstrap samples for the intervals."
        ),
    ] = 10_000,
    seed: Annotated[
        int, typer.Option(parser=whole_number(0), metavar="N", help="Set the random seed of the bootstrap.")
    ] = 0,
    as_json: Annotated[bool, json_option("Print one JSON object (default: tables).")] = False,
    jobs: JobsOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Measure the accuracy of a model on music with known keys.

    Prints the MIREX score, accuracy and KSEA with 95 % confidence intervals. Files that cannot be read are named and
    left out. No music file is changed.
    """
    _check_output(predictions, "--predictions", [labels, against, model])
    _check_output(confusion, "--confusion", [labels, against, model])
    silence_native_stderr()

    from stonecli.evaluation.evaluate import answers_of, compare_answers, write_predictions
    from stonecli.evaluation.evaluate import evaluate as evaluate_answers
    from stonecli.jobs import default_jobs
    from stonecli.output.records import model_record
    from stonecli.terminal.table import error_text

    errors = error_console()
    tracks = _labels(labels, errors)
    theirs, rival = None, None
    if against is not None and against.suffix.lower() == ".csv":
        theirs = _predictions(against, tracks, labels.parent, errors)
    elif against is not None:
        rival = load_model(against, device)
    key_model = load_model(model, device)
    if confusion is not None:
        _require_plots()

    heard, interrupted = _hear(key_model, tracks, jobs or default_jobs(), errors)
    failures = sum(one.error is not None for one in heard)
    if predictions is not None:
        write_predictions(predictions, heard)
    if rival is not None and not interrupted:
        heard_by_rival, interrupted = _hear(rival, tracks, jobs or default_jobs(), errors)
        failures += sum(one.error is not None for one in heard_by_rival)
        theirs = answers_of(tracks, heard_by_rival)

    ours = answers_of(tracks, heard)
    if not any(answer is not None for answer in ours):
        fail(
            "no track could be analyzed, so there is nothing to score", EXIT_INTERRUPTED if interrupted else EXIT_FAILED
        )
    evaluation = evaluate_answers(tracks, ours, resamples=resamples, seed=seed)
    comparison = None
    if theirs is not None and any(None not in pair for pair in zip(ours, theirs, strict=True)):
        comparison = compare_answers(tracks, ours, theirs, resamples=resamples, seed=seed)
    if confusion is not None:
        from stonecli.plots.confusion import save_confusion_plot

        save_confusion_plot(confusion, evaluation.confusion, f"{model_record(key_model)} on {labels.name}")
    report = _Report(
        labels=labels,
        model=model_record(key_model),
        tracks=len(tracks),
        failed=[one for one in heard if one.error is not None],
        evaluation=evaluation,
        rival=model_record(rival) if rival is not None else str(against or ""),
        comparison=comparison,
        resamples=resamples,
        seed=seed,
    )
    if as_json:
        print_json(_record(report))
    else:
        _print(report)
    if against is not None and comparison is None:
        errors.print(error_text(against, "no comparison: no track has an answer from both"), soft_wrap=True)
    if interrupted:
        fail("interrupted; the scores only cover the tracks analyzed until then", EXIT_INTERRUPTED)
    if failures:
        raise typer.Exit(EXIT_FAILED)


def _check_output(path: Path | None, option: str, inputs: list[Path | None]) -> None:
    """Refuse a file that cannot be written, or that is one of the ``inputs``, before anything slow starts."""
    if path is None:
        return
    check_target(path, option)
    if path.exists() and any(other is not None and other.exists() and path.samefile(other) for other in inputs):
        raise typer.BadParameter(f"{path} is an input of this command; choose another name", param_hint=option)


def _require_plots() -> None:
    from stonecli.plots.confusion import PlotError, require_matplotlib

    try:
        require_matplotlib()
    except PlotError as error:
        fail(str(error), EXIT_USAGE)


def _labels(path: Path, errors: Console) -> list[Label]:
    """The tracks of the labels file; one that cannot be used ends the program as wrong usage."""
    from stonecli.evaluation.evaluate import LabelsError, read_labels
    from stonecli.jobs import error_line
    from stonecli.terminal.table import error_text

    try:
        tracks, repeated = read_labels(path)
    except (LabelsError, OSError) as error:
        fail(f"{path}: {error_line(error)}", EXIT_USAGE)
    if repeated:
        lines = ", ".join(str(line) for line in repeated[:10]) + (", ..." if len(repeated) > 10 else "")
        errors.print(error_text(path, f"tracks listed twice count once (line {lines})"), soft_wrap=True)
    return tracks


def _predictions(path: Path, tracks: list[Label], folder: Path, errors: Console) -> Answers:
    """The answers in the file of another tool, and on standard error what is odd about them."""
    from stonecli.evaluation.evaluate import LabelsError, read_predictions
    from stonecli.jobs import error_line
    from stonecli.terminal.table import error_text

    try:
        found = read_predictions(path, tracks, folder)
    except (LabelsError, OSError) as error:
        fail(f"{path}: {error_line(error)}", EXIT_USAGE)
    missing = found.answers.count(None)
    if missing == len(tracks):
        fail(f"{path}: none of its rows is for a track of the labels; check the paths in it", EXIT_USAGE)
    for count, what in (
        (missing, f"not in the comparison, because it has no key for them: {missing} of {len(tracks)} tracks"),
        (found.unmatched, f"rows that belong to no track of the labels: {found.unmatched}"),
        (found.kept, f"keys that stone tag read from tags instead of detecting them: {found.kept}"),
    ):
        if count:
            errors.print(error_text(path, what), soft_wrap=True)
    return found.answers


def _hear(model: KeyModel, tracks: list[Label], jobs: int, errors: Console) -> tuple[list[Heard], bool]:
    """What the model hears in the tracks, in their order, and whether Ctrl-C ended it early."""
    from concurrent.futures import ThreadPoolExecutor

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from stonecli.detection.detect import detect_key
    from stonecli.evaluation.evaluate import Heard
    from stonecli.jobs import Outcome, run
    from stonecli.terminal.table import new_error_text
    from stonecli.util.text import printable

    shown: set[str] = set()

    def listen(track: Label) -> tuple[Key | None, float]:
        estimate = detect_key(track.path, model)
        return estimate.key, estimate.confidence

    def note(outcome: Outcome[Label, tuple[Key | None, float]]) -> None:
        key, confidence = outcome.result or (None, 0.0)
        heard.append(Heard(outcome.item, key, confidence, outcome.error))
        if outcome.error is not None:
            text = new_error_text(outcome.item.path, outcome.error, shown)
            if text is not None:
                errors.print(text, soft_wrap=True)

    heard: list[Heard] = []
    interrupted = False
    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        console=errors,
        transient=True,
        disable=not errors.is_terminal,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with ThreadPoolExecutor(jobs, thread_name_prefix="stone") as executor, progress:
        bar = progress.add_task(printable(model.name), total=len(tracks))
        outcomes = run(listen, tracks, executor=executor, in_flight=2 * jobs, on_done=lambda _: progress.advance(bar))
        with outcomes:
            try:
                for outcome in outcomes:
                    note(outcome)
            except KeyboardInterrupt:
                interrupted = True
                outcomes.stop()
                for outcome in outcomes:
                    note(outcome)
    return heard, interrupted


def _print(report: _Report) -> None:
    from rich.text import Text

    from stonecli.terminal.colors import WARNING
    from stonecli.terminal.evaluation import print_comparison, print_evaluation
    from stonecli.util.text import printable

    console = output_console()
    if not console.is_terminal:
        console.width = max(console.width, LEAST_WIDTH)
    console.print(Text(printable(f"{report.model} on {report.labels}"), "bold"), soft_wrap=True)
    drawn = f"scores in percent; intervals by bootstrap, {report.resamples} samples, seed {report.seed}"
    console.print(Text(drawn), soft_wrap=True)
    left_out, failed = report.tracks - report.evaluation.overall.count, len(report.failed)
    if left_out:
        why = f"{failed} could not be analyzed" + (f", {left_out - failed} not reached" if left_out > failed else "")
        line = f"{left_out} of {report.tracks} tracks are not in these scores: {why}"
        console.print(Text(line, WARNING), soft_wrap=True)
    console.print()
    print_evaluation(console, report.evaluation)
    if report.comparison is not None:
        print_comparison(console, report.model, report.rival, report.comparison)


def _record(report: _Report) -> dict[str, Any]:
    from stonecli.terminal.evaluation import comparison_record, evaluation_record

    comparison = report.comparison
    return {
        "labels": str(report.labels),
        "model": report.model,
        "tracks": report.tracks,
        "failed": [{"path": str(one.track.path), "error": one.error} for one in report.failed],
        "resamples": report.resamples,
        "seed": report.seed,
        **evaluation_record(report.evaluation),
        "against": None if comparison is None else {"name": report.rival, **comparison_record(comparison)},
    }
