"""``stone evaluate``: measure the accuracy of a model on labeled music, and compare it with another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stonecli.cli.common import (
    EXIT_USAGE,
    check_target,
    error_console,
    fail,
    load_model,
    one_line_errors,
    silence_native_stderr,
    source_collection,
)
from stonecli.cli.evaluate_screen import EvaluationScreen
from stonecli.cli.options import (
    DeviceOption,
    JobsOption,
    ModelOption,
    PlaylistNameOption,
    json_option,
    model_file,
    output_option,
    whole_number,
)


@one_line_errors
def evaluate(
    labels: Annotated[
        Path | None,
        typer.Argument(
            readable=False,
            metavar="[LABELS.csv]",
            help="Read the labels: columns path and key or tempo (or bpm), or a playlist or rekordbox XML.",
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Use a dataset of mirdata instead: giantsteps_key, beatles (default: none)."),
    ] = None,
    dataset_dir: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            metavar="FOLDER",
            help="Keep the dataset here (default: datasets/NAME in stone's data folder).",
        ),
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
        output_option("Save the detected key of every track: .csv.", ".csv"),
    ] = None,
    confusion: Annotated[
        Path | None,
        output_option("Save a picture of the confusion matrix: .png.", ".png"),
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
    playlist_name: PlaylistNameOption = None,
) -> None:
    """Measure the accuracy of a model on music with known keys.

    Prints the MIREX score, accuracy and KSEA with 95 % confidence intervals. Files that cannot be read are
    reported and skipped. No music file is changed.
    """
    labels = _labels_file(labels, dataset, dataset_dir)
    source_collection([labels], playlist_name, None)
    for target, option in ((predictions, "--predictions"), (confusion, "--confusion")):
        _check_output(target, option, [labels, against, model])
    silence_native_stderr()

    from stonecli.evaluation.labels import write_predictions
    from stonecli.evaluation.measure import measure

    screen = EvaluationScreen(labels, against, resamples, seed, as_json=as_json)
    tracks = screen.read_labels(playlist_name)
    if confusion is not None and not any(track.key for track in tracks):
        raise typer.BadParameter("needs labels with keys", param_hint="--confusion")
    rival = (
        screen.read_answers(tracks) if screen.compares_with_csv else load_model(against, device) if against else None
    )
    key_model = load_model(model, device)
    if confusion is not None:
        _require_plots()
    with screen:
        found = measure(
            tracks,
            key_model,
            rival,
            jobs=jobs,
            resamples=resamples,
            seed=seed,
            on_start=screen.start,
            on_prediction=screen.show,
            on_done=screen.advance,
        )
    if predictions is not None:
        write_predictions(predictions, found.predictions)
    screen.end(found, key_model, rival, confusion)


def _labels_file(labels: Path | None, dataset: str | None, folder: Path | None) -> Path:
    """The CSV of labels: the given one, or that of a dataset, which is downloaded if necessary."""
    if labels is not None and dataset is None:
        return labels
    if labels is not None or dataset is None:
        fail("give either LABELS.csv or --dataset NAME; see stone evaluate --help", EXIT_USAGE)
    return _dataset_labels(dataset, folder)


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
