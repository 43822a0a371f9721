"""Evaluate a model on labeled music: :func:`evaluate`, and the functions that it calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from stonecli.detection.detect import detect_key
from stonecli.evaluation.bootstrap import RESAMPLES
from stonecli.evaluation.evaluate import Evaluation, evaluate_answers
from stonecli.evaluation.labels import Label, Prediction, answers_of, read_labels
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
) -> Evaluation:
    """The scores of a model on the tracks of a CSV, with 95 % bootstrap intervals, as printed by ``stone evaluate``.

    Args:
        labels: CSV with the columns ``path`` and ``key``, see :func:`stonecli.evaluation.labels.read_labels`.
        model: the model to evaluate; None for the built-in one.
        jobs: number of files analyzed in parallel; None for one per CPU core.
        resamples: number of bootstrap samples.
        seed: random seed of the bootstrap.
        on_prediction: called with the prediction or the error for each track. Tracks with an error are not scored.

    Raises:
        LabelsError: the CSV cannot be used.
        OSError: the CSV cannot be read.
        ValueError: no track could be analyzed.
        KeyboardInterrupt: a signal, such as that of Ctrl-C, stopped the run.
        ModelError, DeviceError: the built-in model cannot be loaded.
    """
    tracks, _ = read_labels(Path(labels))
    predictions: list[Prediction] = []

    def collect(prediction: Prediction) -> None:
        predictions.append(prediction)
        if on_prediction:
            on_prediction(prediction)

    if predict(default_model() if model is None else model, tracks, collect, jobs=jobs):
        raise KeyboardInterrupt
    evaluation = evaluate_answers(tracks, answers_of(tracks, predictions), resamples=resamples, seed=seed)
    return replace(evaluation, tempo=tempo_scores(predictions, resamples=resamples, seed=seed))


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
