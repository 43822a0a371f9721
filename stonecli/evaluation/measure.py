"""Evaluate a model on labeled music: :func:`evaluate`, and the functions that it calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stonecli.detection.detect import detect_key
from stonecli.evaluation.bootstrap import RESAMPLES
from stonecli.evaluation.evaluate import Comparison, Evaluation, can_be_compared, compare_answers, evaluate_answers
from stonecli.evaluation.labels import Answers, Label, Prediction, answers_of, read_labels
from stonecli.evaluation.tempo import tempo_scores
from stonecli.jobs import in_threads, stopped_by_signals
from stonecli.key import Key
from stonecli.model.session import KeyModel, default_model

OnPrediction = Callable[[Prediction], None]


def evaluate(
    labels: Path | str,
    model: KeyModel | None = None,
    *,
    jobs: int | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    on_prediction: OnPrediction | None = None,
    playlist_name: str | None = None,
) -> Evaluation:
    """The scores of a model on the tracks of a CSV, with 95 % bootstrap intervals, as printed by ``stone evaluate``.

    Args:
        labels: CSV with the columns ``path`` and ``key``, a playlist, or a rekordbox XML, see
            :func:`stonecli.evaluation.labels.read_labels`.
        model: the model to evaluate; None for the built-in one.
        jobs: number of files analyzed in parallel; None for one per CPU core.
        resamples: number of bootstrap samples.
        seed: random seed of the bootstrap.
        on_prediction: called with the prediction or the error for each track. Tracks with an error are not scored.
        playlist_name: only this playlist of a rekordbox XML.

    Raises:
        LabelsError: the CSV cannot be used.
        OSError: the CSV cannot be read.
        ValueError: no track could be analyzed.
        KeyboardInterrupt: a signal, such as that of Ctrl-C, stopped the run.
        ModelError, DeviceError: the built-in model cannot be loaded.
    """
    tracks, _ = read_labels(Path(labels), playlist_name)
    used = default_model() if model is None else model
    found = measure(tracks, used, jobs=jobs, resamples=resamples, seed=seed, on_prediction=on_prediction)
    if found.interrupted:
        raise KeyboardInterrupt
    if found.evaluation is None:
        raise ValueError("no track could be analyzed, so there is nothing to score")
    return found.evaluation


@dataclass(frozen=True, eq=False)
class Measurement:
    """The answers of a model on labeled tracks, and their scores.

    Attributes:
        predictions: predictions for the tracks that were reached, in their order.
        evaluation: the scores; None if no track could be analyzed.
        comparison: the comparison with the other model; None if no track has an answer from both.
        failed: number of failed analyses, those of the other model included.
        interrupted: whether a signal, such as Ctrl-C, ended the run early.
    """

    predictions: list[Prediction]
    evaluation: Evaluation | None
    comparison: Comparison | None
    failed: int
    interrupted: bool


def measure(
    tracks: Sequence[Label],
    model: KeyModel,
    against: KeyModel | Answers | None = None,
    *,
    jobs: int | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    on_start: Callable[[KeyModel], None] = lambda model: None,
    on_prediction: OnPrediction | None = None,
    on_done: Callable[[], None] = lambda: None,
) -> Measurement:
    """The scores of a model on labeled tracks, and its comparison with another model or the answers of another tool.

    Args:
        tracks: the labeled tracks.
        model: the model to evaluate.
        against: the other model, or its answers, one per track; None for no comparison.
        jobs: number of files analyzed in parallel; None for one per CPU core.
        resamples: number of bootstrap samples.
        seed: random seed of the bootstrap.
        on_start: called with each model before its first track.
        on_prediction: called with each prediction or error of each model.
        on_done: called for each analyzed track as soon as it is done, for a progress bar.
    """

    def predictions_of(model: KeyModel) -> tuple[list[Prediction], bool]:
        found: list[Prediction] = []

        def collect(prediction: Prediction) -> None:
            found.append(prediction)
            if on_prediction:
                on_prediction(prediction)

        on_start(model)
        return found, predict(model, tracks, collect, jobs=jobs, on_done=on_done)

    predictions, interrupted = predictions_of(model)
    failed = sum(one.error is not None for one in predictions)
    if isinstance(against, KeyModel):
        theirs: Answers | None = None
        if not interrupted:
            others, interrupted = predictions_of(against)
            failed += sum(one.error is not None for one in others)
            theirs = answers_of(tracks, others)
    else:
        theirs = against
    ours = answers_of(tracks, predictions)
    evaluation = comparison = None
    if any(answer is not None for answer in ours):
        evaluation = evaluate_answers(tracks, ours, resamples=resamples, seed=seed)
        evaluation = replace(evaluation, tempo=tempo_scores(predictions, resamples=resamples, seed=seed))
        if theirs is not None and can_be_compared(tracks, ours, theirs):
            comparison = compare_answers(tracks, ours, theirs, resamples=resamples, seed=seed)
    return Measurement(predictions, evaluation, comparison, failed, interrupted)


def predict(
    model: KeyModel,
    tracks: Iterable[Label],
    on_prediction: OnPrediction,
    *,
    jobs: int | None = None,
    on_done: Callable[[], None] = lambda: None,
) -> bool:
    """Analyze the tracks. After a signal, such as that of Ctrl-C, analyses in progress are completed.

    Args:
        model: the model to run.
        tracks: the labeled tracks.
        on_prediction: called with the prediction or the error for each track, in their order, in the calling thread.
        jobs: number of files analyzed in parallel; None for one per CPU core.
        on_done: called for each analyzed track as soon as it is done, for a progress bar.

    Returns:
        Whether a signal stopped the run.
    """

    def detect(track: Label) -> tuple[Key | None, float, float | None]:
        estimate = detect_key(track.path, model, tempo=track.tempo is not None)
        return estimate.key, estimate.confidence, estimate.tempo.bpm if estimate.tempo else None

    with (
        in_threads(detect, tracks, jobs, on_done=lambda _: on_done()) as outcomes,
        stopped_by_signals(outcomes) as signals,
    ):
        for outcome in outcomes:
            key, confidence, bpm = outcome.result or (None, 0.0, None)
            on_prediction(Prediction(outcome.item, key, confidence, outcome.error, bpm))
    return bool(signals)
