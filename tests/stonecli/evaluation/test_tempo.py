"""Scores of tempos, and the tempo column of the labels."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import soundfile

from stonecli.errors import LabelsError
from stonecli.evaluation.evaluate import evaluate_answers
from stonecli.evaluation.labels import Label, Prediction, read_labels
from stonecli.evaluation.tempo import FACTORS, is_same_tempo, tempo_scores
from stonecli.key import Key
from tests.fixture_types import Invoke, MakeMusic
from tests.stonecli.tempo.sounds import drum_loop

A_MINOR = Key.parse("Am")


def prediction(bpm: float | None, label: float | None, error: str | None = None) -> Prediction:
    return Prediction(Label(Path("a"), "a", A_MINOR, "", "", 2, label), A_MINOR, 1.0, error, bpm)


@pytest.mark.parametrize(
    ("bpm", "first", "second"),
    [
        (100.0, True, True),
        (103.9, True, True),
        (104.1, False, False),
        (50.0, False, True),
        (200.0, False, True),
        (300.0, False, True),
        (33.4, False, True),
        (150.0, False, False),
        (None, False, False),
    ],
)
def test_hits(bpm: float | None, first: bool, second: bool) -> None:
    assert (is_same_tempo(bpm, 100.0), is_same_tempo(bpm, 100.0, FACTORS)) == (first, second)


def test_scores_need_a_label_and_an_analysis() -> None:
    found = [(100.0, 100.0), (50.0, 100.0), (None, 100.0), (100.0, None)]
    scores = tempo_scores([prediction(None, 100.0, "cannot be decoded"), *(prediction(*pair) for pair in found)])
    assert scores is not None
    assert (scores.count, scores.no_tempo) == (3, 1)
    assert (scores.accuracy_1.value, scores.accuracy_2.value) == pytest.approx((1 / 3, 2 / 3))
    assert scores.accuracy_1.low <= scores.accuracy_1.value <= scores.accuracy_1.high


def test_without_labels_there_are_no_scores() -> None:
    assert tempo_scores([prediction(100.0, None)]) is None


def test_the_column_is_optional_per_track(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("path,key,Tempo\na.wav,Am,128\nb.wav,C,\n", encoding="utf-8")
    tracks, _ = read_labels(tmp_path / "labels.csv")
    assert [track.tempo for track in tracks] == [128.0, None]


def test_a_word_instead_of_a_tempo_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("path,key,tempo\na.wav,Am,fast\n", encoding="utf-8")
    with pytest.raises(LabelsError, match="line 2: not a tempo: 'fast'"):
        read_labels(tmp_path / "labels.csv")


def test_stone_evaluate_prints_and_saves_the_tempos(invoke: Invoke, music: MakeMusic, tmp_path: Path) -> None:
    samples = music("D minor", rate=22050)
    samples = 0.4 * samples + 0.6 * drum_loop(124.0, len(samples) / 22050, 22050)[: len(samples)]
    soundfile.write(tmp_path / "a.wav", samples, 22050)
    (tmp_path / "labels.csv").write_text("path,key,tempo\na.wav,Dm,62\n", encoding="utf-8")
    text = invoke("evaluate", tmp_path / "labels.csv", "--predictions", tmp_path / "out.csv").stdout
    assert "tempo of 1 track" in text
    with (tmp_path / "out.csv").open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert float(row["tempo"]) == pytest.approx(124.0, abs=0.1)
    scores = json.loads(invoke("evaluate", tmp_path / "labels.csv", "--json").stdout)["tempo"]
    assert (scores["accuracy_1"]["value"], scores["accuracy_2"]["value"]) == (0.0, 1.0)


@pytest.mark.parametrize("column", ["tempo", "bpm", "BPM"])
def test_a_file_of_tempos_alone_is_scored(invoke: Invoke, music: MakeMusic, tmp_path: Path, column: str) -> None:
    samples = music("D minor", rate=22050)
    samples = 0.4 * samples + 0.6 * drum_loop(124.0, len(samples) / 22050, 22050)[: len(samples)]
    soundfile.write(tmp_path / "a.wav", samples, 22050)
    (tmp_path / "labels.csv").write_text(f"path,{column}\na.wav,124\n", encoding="utf-8")
    result = invoke("evaluate", tmp_path / "labels.csv", "--predictions", tmp_path / "out.csv")
    assert result.exit_code == 0
    assert "tempo of 1 track" in result.stdout
    assert "MIREX" not in result.stdout
    assert invoke("evaluate", tmp_path / "labels.csv", "--confusion", tmp_path / "out.png").exit_code == 2
    record = json.loads(invoke("evaluate", tmp_path / "labels.csv", "--json").stdout)
    assert (record["tempo"]["accuracy_1"]["value"], record["overall"]["count"]) == (1.0, 0)


def test_keys_and_tempos_may_be_of_different_tracks(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("path,key,bpm\na.wav,Am,0\nb.wav,,128\n", encoding="utf-8")
    tracks, _ = read_labels(tmp_path / "labels.csv")
    assert [(track.key, track.tempo) for track in tracks] == [(A_MINOR, None), (None, 128.0)]
    found = evaluate_answers(tracks, (A_MINOR.index, A_MINOR.index))
    assert found.overall.count == 1


def test_a_track_without_key_and_tempo_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("path,key,bpm\na.wav,,\n", encoding="utf-8")
    with pytest.raises(LabelsError, match="line 2: no key"):
        read_labels(tmp_path / "labels.csv")


def test_without_a_tempo_column_nothing_is_different(invoke: Invoke, music: MakeMusic, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", music("D minor"), 22050)
    (tmp_path / "labels.csv").write_text("path,key\na.wav,Dm\n", encoding="utf-8")
    result = invoke("evaluate", tmp_path / "labels.csv", "--json", "--predictions", tmp_path / "out.csv")
    assert "tempo" not in json.loads(result.stdout)
    assert "tempo" not in (tmp_path / "out.csv").read_text()
