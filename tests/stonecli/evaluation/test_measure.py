import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stonecli.errors import LabelsError
from stonecli.evaluation.labels import Prediction
from stonecli.evaluation.measure import evaluate
from stonecli.key import Key
from stonecli.model.session import KeyModel

Song = Callable[..., Path]


@pytest.fixture
def labels(song: Song) -> Path:
    """Labels of two recordings in D minor, one of them labeled as F major, and of a broken file."""
    first, second = song("flac", "a"), song("mp3", "b")
    (first.parent / "broken.mp3").write_bytes(b"no music")
    path = first.parent / "labels.csv"
    path.write_text(f"path,key\n{first},Dm\n{second},F\nbroken.mp3,C\n", encoding="utf-8")
    return path


class TestEvaluateModel:
    def test_failed_tracks_are_not_scored(self, labels: Path, key_model: KeyModel) -> None:
        predictions: list[Prediction] = []
        found = evaluate(labels, key_model, jobs=2, resamples=100, on_prediction=predictions.append)
        assert [one.key for one in predictions] == [Key.parse("Dm"), Key.parse("Dm"), None]
        assert [one.error is not None for one in predictions] == [False, False, True]
        assert found.overall.count == 2
        assert found.overall.metrics["accuracy"].value == 0.5
        assert found.overall.metrics["mirex"].value == pytest.approx(0.65)  # (1 + 0.3 for the relative key) / 2

    def test_a_file_without_labels_is_refused(self, tmp_path: Path, key_model: KeyModel) -> None:
        path = tmp_path / "labels.csv"
        path.write_text("name\nx\n", encoding="utf-8")
        with pytest.raises(LabelsError, match="no column path"):
            evaluate(path, key_model)

    @pytest.mark.skipif(sys.platform == "win32", reason="Windows has no way to send Ctrl-C to one process")
    def test_a_signal_ends_it(self, labels: Path, key_model: KeyModel) -> None:
        predictions: list[Prediction] = []

        def on_prediction(prediction: Prediction) -> None:
            predictions.append(prediction)
            if len(predictions) == 1:  # a second signal would end the tests
                os.kill(os.getpid(), signal.SIGTERM)

        with pytest.raises(KeyboardInterrupt):
            evaluate(labels, key_model, jobs=1, on_prediction=on_prediction)
        assert predictions[0].key == Key.parse("Dm")
