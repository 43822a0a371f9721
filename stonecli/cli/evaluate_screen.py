"""The input and output of ``stone evaluate``: labels, progress, scores as tables or JSON, the confusion matrix."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from stonecli.cli.common import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    error_console,
    fail,
    output_console,
    print_json,
)
from stonecli.cli.running import Errors, progress_bar

if TYPE_CHECKING:
    from types import TracebackType

    from stonecli.evaluation.evaluate import Evaluation
    from stonecli.evaluation.labels import Answers, Label, Prediction
    from stonecli.evaluation.measure import Measurement
    from stonecli.model.session import KeyModel

MIN_WIDTH = 100  # characters, in a file or a pipe


class EvaluationScreen:
    """A context manager that shows progress, and prints the scores at the end.

    Args:
        labels: the CSV of labels.
        against: the other model, or a CSV of another tool; None for no comparison.
        resamples: number of bootstrap samples.
        seed: random seed of the bootstrap.
        as_json: print one JSON object instead of tables.
    """

    def __init__(self, labels: Path, against: Path | None, resamples: int, seed: int, *, as_json: bool) -> None:
        self._labels = labels
        self._against = against
        self._resamples = resamples
        self._seed = seed
        self._as_json = as_json
        self._errors = Errors(error_console())
        self._tracks: list[Label] = []
        self._stack = ExitStack()

    def __enter__(self) -> EvaluationScreen:
        console = self._errors.console
        self._progress = self._stack.enter_context(progress_bar(console, console))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    @property
    def compares_with_csv(self) -> bool:
        """Whether the model is compared with a CSV of another tool."""
        return self._against is not None and self._against.suffix.lower() == ".csv"

    def read_labels(self, playlist_name: str | None = None) -> list[Label]:
        """The labeled tracks, or those of a playlist in an XML; ends with wrong usage if the file is invalid."""
        from stonecli.errors import LabelsError, describe
        from stonecli.evaluation.labels import read_labels

        try:
            self._tracks, repeated = read_labels(self._labels, playlist_name)
        except (LabelsError, OSError) as error:
            fail(f"{self._labels}: {describe(error)}", EXIT_USAGE)
        if repeated:
            lines = ", ".join(str(line) for line in repeated[:10]) + (", ..." if len(repeated) > 10 else "")
            self._errors.note(self._labels, f"tracks listed twice count once (line {lines})")
        for track in self._tracks:
            if track.key is not None and track.other_key is not None:
                self._errors.two_keys(track.location, track.key, track.other_key, "musical")
        self._errors.finish()
        return self._tracks

    def read_answers(self, tracks: list[Label]) -> Answers:
        """The answers in the CSV of another tool; prints notes about them to standard error."""
        from stonecli.errors import LabelsError, describe
        from stonecli.evaluation.labels import read_predictions

        path = self._against or Path()
        try:
            found = read_predictions(path, tracks, self._labels.parent)
        except (LabelsError, OSError) as error:
            fail(f"{path}: {describe(error)}", EXIT_USAGE)
        missing = found.answers.count(None)
        if missing == len(tracks):
            fail(f"{path}: no row belongs to a track of the labels; check the paths in it", EXIT_USAGE)
        for count, text in (
            (missing, f"tracks without a key in this file, not compared: {missing} of {len(tracks)}"),
            (found.unmatched, f"rows that match no track of the labels, ignored: {found.unmatched}"),
            (found.kept, f"keys that stone tag read from tags, not detected (--overwrite detects all): {found.kept}"),
        ):
            if count:
                self._errors.note(path, text)
        return found.answers

    def start(self, model: KeyModel) -> None:
        """Show the progress of a model."""
        for task in self._progress.task_ids:
            self._progress.update(task, visible=False)
        self._task = self._progress.add_task(model.name, total=len(self._tracks))

    def advance(self) -> None:
        """Move the progress bar by one track."""
        self._progress.advance(self._task)

    def show(self, prediction: Prediction) -> None:
        """Print the error of a track, if it has one."""
        if prediction.error is not None:
            self._errors.show(prediction.track.location, prediction.error)

    def end(
        self, found: Measurement, model: KeyModel, rival: KeyModel | Answers | None, confusion: Path | None
    ) -> None:
        """Print the scores, plot the confusion matrix, and end the program with an exit code if not all is well."""
        from stonecli.output.records import model_record

        if found.evaluation is None:
            code = EXIT_INTERRUPTED if found.interrupted else EXIT_FAILED
            fail("no track could be analyzed, so there is nothing to score", code)
        against = str(self._against or "") if rival is None or isinstance(rival, tuple) else model_record(rival)
        names = model_record(model), against
        has_signatures = len(model.info.classes) == 12
        if confusion is not None:
            _save_confusion(confusion, found.evaluation, f"{names[0]} on {self._labels.name}", has_signatures)
        if self._as_json:
            print_json(self._record(found, found.evaluation, names))
        else:
            self._print(found, found.evaluation, names, has_signatures)
        if self._against is not None and found.comparison is None:
            self._errors.note(self._against, "no comparison: no track has an answer from both")
        if found.interrupted:
            fail("interrupted; the scores cover only the tracks analyzed so far", EXIT_INTERRUPTED)
        if found.failed:
            raise typer.Exit(EXIT_FAILED)

    def _print(self, found: Measurement, evaluation: Evaluation, names: tuple[str, str], has_signatures: bool) -> None:
        from rich.text import Text

        from stonecli.terminal.colors import WARNING
        from stonecli.terminal.evaluation import print_comparison, print_evaluation
        from stonecli.util.text import printable

        console = output_console()
        if not console.is_terminal:
            console.width = max(console.width, MIN_WIDTH)
        console.print(Text(printable(f"{names[0]} on {self._labels}"), "bold"), soft_wrap=True)
        drawn = f"scores in percent; intervals by bootstrap, {self._resamples} samples, seed {self._seed}"
        console.print(Text(drawn), soft_wrap=True)
        failed = sum(one.error is not None for one in found.predictions)
        missed = len(self._tracks) - len(found.predictions)
        if failed or missed:
            why = f"{failed} could not be analyzed" + (f", {missed} not reached" if missed else "")
            line = f"{failed + missed} of {len(self._tracks)} tracks are not in these scores: {why}"
            console.print(Text(line, WARNING), soft_wrap=True)
        console.print()
        print_evaluation(console, evaluation, signatures=has_signatures)
        if found.comparison is not None:
            print_comparison(console, *names, found.comparison)

    def _record(self, found: Measurement, evaluation: Evaluation, names: tuple[str, str]) -> dict[str, Any]:
        from stonecli.terminal.evaluation import comparison_record, evaluation_record

        failed = [one for one in found.predictions if one.error is not None]
        comparison = found.comparison
        return {
            "labels": str(self._labels),
            "model": names[0],
            "tracks": len(self._tracks),
            "failed": [{"path": str(one.track.location), "error": one.error} for one in failed],
            "resamples": self._resamples,
            "seed": self._seed,
            **evaluation_record(evaluation),
            "against": None if comparison is None else {"name": names[1], **comparison_record(comparison)},
        }


def _save_confusion(path: Path, evaluation: Evaluation, title: str, has_signatures: bool) -> None:
    """Plot the confusion matrix; by key signature for a model with 12 classes."""
    from stonecli.plots.confusion import save_confusion_plot

    counts = evaluation.confusion
    if has_signatures:
        from stonecli.evaluation.metrics import signature_confusion

        counts = signature_confusion(counts)
    save_confusion_plot(path, counts, title)
