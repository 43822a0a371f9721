"""``stone evaluate``: measure the accuracy of a model on labeled music, and compare it with another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
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
from stonecli.cli.running import Errors, progress_bar

if TYPE_CHECKING:
    from rich.console import Console

    from stonecli.evaluation.evaluate import Comparison, Evaluation
    from stonecli.evaluation.labels import Answers, Label, Prediction
    from stonecli.model.session import KeyModel

MIN_WIDTH = 100  # characters, in a file or a pipe


@dataclass(frozen=True)
class _Report:
    labels: Path
    model: str
    tracks: int
    reached: int
    failed: list[Prediction]
    evaluation: Evaluation
    rival: str
    comparison: Comparison | None
    resamples: int
    seed: int
    signatures: bool = False


@one_line_errors
def evaluate(
    labels: Annotated[
        Path | None,
        typer.Argument(
            metavar="[LABELS.csv]",
            help="Read the labels: columns path and key or tempo (or bpm); optional genre, source.",
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Use a dataset of mirdata instead: giantsteps_key, beatles (default: none)."),
    ] = None,
    dataset_dir: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Keep the dataset here (default: datasets/NAME in stone's data folder)."),
    ] = None,
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

    Prints the MIREX score, accuracy and KSEA with 95 % confidence intervals. Files that cannot be read are
    reported and skipped. No music file is changed.
    """
    labels = _labels_file(labels, dataset, dataset_dir)
    for target, option in ((predictions, "--predictions"), (confusion, "--confusion")):
        _check_output(target, option, [labels, against, model])
    silence_native_stderr()

    from stonecli.evaluation.labels import answers_of, write_predictions
    from stonecli.output.records import model_record

    errors = error_console()
    tracks = _labels(labels, errors)
    if confusion is not None and not any(track.key for track in tracks):
        raise typer.BadParameter("needs labels with keys", param_hint="--confusion")
    theirs = None
    if against is not None and against.suffix.lower() == ".csv":
        theirs = _predictions(against, tracks, labels.parent, errors)
    rival = load_model(against, device) if against is not None and theirs is None else None
    key_model = load_model(model, device)
    if confusion is not None:
        _require_plots()
    ours, interrupted = _predict(key_model, tracks, jobs, errors)
    if predictions is not None:
        write_predictions(predictions, ours)
    failures = sum(one.error is not None for one in ours)
    if rival is not None and not interrupted:
        by_rival, interrupted = _predict(rival, tracks, jobs, errors)
        failures += sum(one.error is not None for one in by_rival)
        theirs = answers_of(tracks, by_rival)
    names = model_record(key_model), model_record(rival) if rival is not None else str(against or "")
    report = _report(labels, tracks, ours, theirs, names, resamples, seed, interrupted=interrupted)
    report = replace(report, signatures=len(key_model.info.classes) == 12)
    if confusion is not None:
        _save_confusion(confusion, report, labels.name)
    _print(report, as_json=as_json)
    if against is not None and report.comparison is None:
        _warn(errors, against, "no comparison: no track has an answer from both")
    if interrupted:
        fail("interrupted; the scores cover only the tracks analyzed so far", EXIT_INTERRUPTED)
    if failures:
        raise typer.Exit(EXIT_FAILED)


def _labels_file(labels: Path | None, dataset: str | None, folder: Path | None) -> Path:
    """The CSV of labels: the given one, or that of a dataset, which is downloaded if necessary."""
    if labels is not None and dataset is None:
        return labels
    if labels is not None or dataset is None:
        fail("give either LABELS.csv or --dataset NAME; see stone evaluate --help", EXIT_USAGE)
    return _dataset_labels(dataset, folder)


def _save_confusion(path: Path, report: _Report, name: str) -> None:
    """Plot the confusion matrix; by key signature for a model with 12 classes."""
    from stonecli.plots.confusion import save_confusion_plot

    counts = report.evaluation.confusion
    if report.signatures:
        from stonecli.evaluation.metrics import signature_confusion

        counts = signature_confusion(counts)
    save_confusion_plot(path, counts, f"{report.model} on {name}")


def _report(
    labels: Path,
    tracks: list[Label],
    predictions: list[Prediction],
    theirs: Answers | None,
    names: tuple[str, str],
    resamples: int,
    seed: int,
    *,
    interrupted: bool,
) -> _Report:
    """The scores, and the comparison with ``theirs``; if nothing could be analyzed, the program ends."""
    from stonecli.evaluation.evaluate import compare_answers, evaluate_answers
    from stonecli.evaluation.labels import answers_of
    from stonecli.evaluation.tempo import tempo_scores

    ours = answers_of(tracks, predictions)
    if not any(answer is not None for answer in ours):
        fail(
            "no track could be analyzed, so there is nothing to score", EXIT_INTERRUPTED if interrupted else EXIT_FAILED
        )
    comparison = None
    labeled = (track.key is not None for track in tracks)
    if theirs is not None and any(
        has_key and None not in pair for has_key, *pair in zip(labeled, ours, theirs, strict=True)
    ):
        comparison = compare_answers(tracks, ours, theirs, resamples=resamples, seed=seed)
    return _Report(
        labels=labels,
        model=names[0],
        tracks=len(tracks),
        reached=len(predictions),
        failed=[one for one in predictions if one.error is not None],
        evaluation=replace(
            evaluate_answers(tracks, ours, resamples=resamples, seed=seed),
            tempo=tempo_scores(predictions, resamples=resamples, seed=seed),
        ),
        rival=names[1],
        comparison=comparison,
        resamples=resamples,
        seed=seed,
    )


def _dataset_labels(name: str, folder: Path | None) -> Path:
    """The CSV of labels of a dataset, which is downloaded if necessary."""
    from stonecli.errors import DatasetError
    from stonecli.evaluation.datasets import open_dataset, write_labels
    from stonecli.util.app_dirs import data_folder

    errors = error_console()

    def report(text: str) -> None:
        errors.print(text, markup=False, highlight=False, soft_wrap=True)

    home = folder or data_folder() / "datasets" / name
    labels = home.with_name(f"{home.name}.csv")
    try:
        write_labels(open_dataset(name, home, report), labels, report)
    except DatasetError as error:
        fail(str(error), EXIT_USAGE)
    return labels


def _check_output(path: Path | None, option: str, inputs: list[Path | None]) -> None:
    """Refuse a file that cannot be written, or that is one of the ``inputs``, before anything slow starts."""
    if path is None:
        return
    check_target(path, option)
    if path.exists() and any(other is not None and other.exists() and path.samefile(other) for other in inputs):
        raise typer.BadParameter(f"{path} is an input of this command; choose another name", param_hint=option)


def _require_plots() -> None:
    from stonecli.errors import PlotError
    from stonecli.plots.confusion import require_matplotlib

    try:
        require_matplotlib()
    except PlotError as error:
        fail(str(error), EXIT_USAGE)


def _labels(path: Path, errors: Console) -> list[Label]:
    """The tracks in the labels file; if it is invalid, the program ends with wrong usage."""
    from stonecli.errors import LabelsError, describe
    from stonecli.evaluation.labels import read_labels
    from stonecli.terminal.table import error_text

    try:
        tracks, repeated = read_labels(path)
    except (LabelsError, OSError) as error:
        fail(f"{path}: {describe(error)}", EXIT_USAGE)
    if repeated:
        lines = ", ".join(str(line) for line in repeated[:10]) + (", ..." if len(repeated) > 10 else "")
        errors.print(error_text(path, f"tracks listed twice count once (line {lines})"), soft_wrap=True)
    return tracks


def _predictions(path: Path, tracks: list[Label], folder: Path, errors: Console) -> Answers:
    """The answers in the file of another tool; prints notes about them to standard error."""
    from stonecli.errors import LabelsError, describe
    from stonecli.evaluation.labels import read_predictions
    from stonecli.terminal.table import error_text

    try:
        found = read_predictions(path, tracks, folder)
    except (LabelsError, OSError) as error:
        fail(f"{path}: {describe(error)}", EXIT_USAGE)
    missing = found.answers.count(None)
    if missing == len(tracks):
        fail(f"{path}: no row belongs to a track of the labels; check the paths in it", EXIT_USAGE)
    for count, what in (
        (missing, f"not in the comparison, because it has no key for them: {missing} of {len(tracks)} tracks"),
        (found.unmatched, f"rows that belong to no track of the labels: {found.unmatched}"),
        (found.kept, f"keys that stone tag read from tags instead of detecting them: {found.kept}"),
    ):
        if count:
            errors.print(error_text(path, what), soft_wrap=True)
    return found.answers


def _predict(model: KeyModel, tracks: list[Label], jobs: int | None, errors: Console) -> tuple[list[Prediction], bool]:
    """The predictions of the model in the order of the tracks, and whether a signal stopped the run; shows progress."""
    from stonecli.evaluation.measure import predict

    found: list[Prediction] = []
    shown = Errors(errors)

    def on_prediction(prediction: Prediction) -> None:
        found.append(prediction)
        if prediction.error is not None:
            shown.show(prediction.track.path, prediction.error)

    with progress_bar(errors, errors) as progress:
        advance = partial(progress.advance, progress.add_task(model.name, total=len(tracks)))
        return found, predict(model, tracks, on_prediction, jobs=jobs, on_done=advance)


def _warn(errors: Console, path: Path, text: str) -> None:
    from stonecli.terminal.table import error_text

    errors.print(error_text(path, text), soft_wrap=True)


def _print(report: _Report, *, as_json: bool) -> None:
    if as_json:
        print_json(_record(report))
        return
    from rich.text import Text

    from stonecli.terminal.colors import WARNING
    from stonecli.terminal.evaluation import print_comparison, print_evaluation
    from stonecli.util.text import printable

    console = output_console()
    if not console.is_terminal:
        console.width = max(console.width, MIN_WIDTH)
    console.print(Text(printable(f"{report.model} on {report.labels}"), "bold"), soft_wrap=True)
    drawn = f"scores in percent; intervals by bootstrap, {report.resamples} samples, seed {report.seed}"
    console.print(Text(drawn), soft_wrap=True)
    failed = len(report.failed)
    left_out = report.tracks - report.reached + failed
    if left_out:
        why = f"{failed} could not be analyzed" + (f", {left_out - failed} not reached" if left_out > failed else "")
        line = f"{left_out} of {report.tracks} tracks are not in these scores: {why}"
        console.print(Text(line, WARNING), soft_wrap=True)
    console.print()
    print_evaluation(console, report.evaluation, signatures=report.signatures)
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
