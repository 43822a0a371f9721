"""The choice of a model: scores by group and paired intervals, on generated features."""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from stonecli.key import Key  # noqa: E402

ROOT = Path(__file__).parents[2]


def load_script(path: Path) -> Any:
    """A script that is no part of a package, as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


development_set = load_script(ROOT / "benchmarks" / "development_set.py")
CHECKPOINT = ROOT / "checkpoints" / "stone_8.pt"


def test_points_rise_with_the_probability_of_the_right_key() -> None:
    truth = np.array([0, 12, 5, 5])
    sure = np.full((4, 24), 0.01, dtype=np.float32)
    sure[[0, 1, 2, 3], [0, 12, 5, 0]] = 0.77  # the last is a fifth off
    found = development_set.points(sure, truth, np.ones(4))
    assert found.exact.tolist() == [1.0, 1.0, 1.0, 0.0]
    assert found.mirex.tolist() == [1.0, 1.0, 1.0, 0.5]
    assert found.loss[3] > found.loss[0]
    assert found.expected[0] > found.expected[3]
    flat = development_set.points(np.full((4, 24), 1 / 24, dtype=np.float32), truth, np.ones(4))
    assert flat.loss.mean() == pytest.approx(np.log(24))


def test_a_power_of_the_probabilities_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    soft = rng.dirichlet(np.full(24, 0.3), size=50).astype(np.float32)
    truth = np.where(rng.random(50) < 0.7, soft.argmax(axis=1), rng.integers(24, size=50))
    windows = np.where(np.arange(50) < 25, 1.0, 8.0)
    sharp = soft.astype(np.float64) ** (1.0 / (0.8 + 0.1 * np.log2(windows)))[:, None]
    first, second = (development_set.points(each.astype(np.float32), truth, windows) for each in (soft, sharp))
    assert first.loss.mean() == pytest.approx(second.loss.mean(), abs=0.01)
    assert np.array_equal(first.mirex, second.mirex)


def test_the_interval_of_paired_differences() -> None:
    mean, low, high = development_set.interval(np.array([1.0, -1.0] * 50))
    assert mean == 0.0
    assert -0.3 < low < 0.0 < high < 0.3
    assert development_set.interval(np.full(10, 0.5)) == (0.5, 0.5, 0.5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Features of chords with labels, in the form of the development set."""
    rng = np.random.default_rng(0)
    for name, source in (("dev", "isophonics-beatles"), ("modern", "modern")):
        tracks, rows = {}, []
        for number in range(6):
            tonic, minor = int(rng.integers(12)), number % 2
            track = np.full((99, 1500), 40, dtype=np.uint8)
            for step in (0, 3 if minor else 4, 7):
                track[(tonic + step - 9) % 12 :: 12] = 200
            tracks[f"{name}-{number}"] = track
            key = Key(tonic, "minor" if minor else "major")
            rows.append({"id": f"{name}-{number}", "source": source, "key": key.name, "genre": "dance"})
        np.savez(tmp_path / f"{name}_features_a440.npz", **tracks)  # type: ignore[arg-type]  # names of arrays
        with (tmp_path / f"{name}_labels.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return tmp_path


def test_groups_and_differences_of_two_checkpoints(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"{CHECKPOINT}@1", f"{CHECKPOINT}@1.8"]
    assert development_set.main([*names, "--eval", str(folder), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)["recordings"]
    assert list(report) == names
    baseline, other = report.values()
    assert list(baseline) == ["all", "sixties", "major", "minor", "modern", "dance"]
    assert baseline["all"]["tracks"] == [12.0]
    assert baseline["dance"]["tracks"] == [6.0]
    assert len(baseline["all"]["loss"]) == 1
    mean, difference, low, high = other["minor"]["loss"]
    assert mean == pytest.approx(baseline["minor"]["loss"][0] + difference)
    assert low <= difference <= high
    assert difference > 0  # odds of major cost minor keys
    assert development_set.main([names[0], "--eval", str(folder)]) == 0
    assert "dance" in capsys.readouterr().out


@pytest.mark.parametrize("text", [f"{CHECKPOINT}@0", f"{CHECKPOINT}@x", "missing.pt"])
def test_invalid_input_is_one_error_line(folder: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    assert development_set.main([text, "--eval", str(folder)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_renderings_are_grouped_by_style(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((50, 99), dtype=np.uint8))
    np.save(tmp_path / "b.npy", np.zeros((50, 99), dtype=np.uint8))
    (tmp_path / "labels.csv").write_text(
        "path,key,source,style,seed\na.npy,A minor,songs,trap,1\nb.npy,none,keyless,x,1\n"
    )
    tracks = list(development_set.renderings(tmp_path / "labels.csv", 99))
    assert [(track.key.name, track.groups) for track in tracks] == [("A minor", ("all", "minor", "trap"))]
    assert tracks[0].features.shape == (99, 50)
