"""Calibration on logits whose truth is known: drawn from a softmax, then made too sharp or too flat."""

from __future__ import annotations

import csv
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import stonecli_train.calibrate
import stonecli_train.gate
from stonecli.errors import StoneError
from stonecli.key import Key
from stonecli_train.calibrate import MAX_NO_KEY_REJECTED, calibrate, confidences, fit_exponents, main, window_logits
from stonecli_train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from tests.train.fixture_types import MakeConfig


def drawn(count: int, scale: float, seed: int = 0) -> tuple[list[np.ndarray], list[int]]:
    """Logits of one window each, scaled by ``scale``, and keys drawn from the softmax of the unscaled logits."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.0, 2.0, (count, 24)).astype(np.float32)
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    indices = [int(rng.choice(24, p=row / row.sum())) for row in chances.astype(np.float64)]
    return [row[None] * np.float32(scale) for row in logits], indices


@pytest.mark.parametrize("scale", [0.5, 2.5])
def test_the_temperature_compensates_a_known_scaling(scale: float) -> None:
    logits, indices = drawn(3000, scale)
    found = calibrate(logits, indices)
    assert found.temperature == pytest.approx(scale, rel=0.15)
    assert found.error < 0.03
    assert (found.rejection_threshold, found.no_key_rejected) == (0.0, None)


def test_a_recording_without_a_key_is_rejected() -> None:
    logits, indices = drawn(500, 3.0)
    quiet = [np.random.default_rng(seed).normal(0.0, 0.3, (2, 24)).astype(np.float32) for seed in range(50)]
    found = calibrate([*logits, *quiet], [*indices, *[None] * 50])
    assert found.no_key_rejected == pytest.approx(MAX_NO_KEY_REJECTED, abs=0.02)
    assert 1 / 24 < found.rejection_threshold < 0.1


def test_sound_without_a_key_does_not_raise_the_threshold() -> None:
    logits, indices = drawn(500, 3.0)
    loud = [np.random.default_rng(seed).normal(0.0, 6.0, (2, 24)).astype(np.float32) for seed in range(50)]
    found = calibrate([*logits, *loud], [*indices, *[None] * 50])
    assert found.no_key_rejected is not None
    assert found.no_key_rejected < 0.5
    confidence, _ = confidences(logits, found.temperature)
    assert (confidence < found.rejection_threshold).mean() <= 1 / 500


def test_nearly_all_recordings_stay_above_the_threshold() -> None:
    logits, indices = drawn(500, 3.0)
    sure = [rows * 3 for rows in logits]  # as renderings are
    no_key = [np.random.default_rng(seed).normal(0.0, 1.5, (2, 24)).astype(np.float32) for seed in range(50)]
    unsure = [np.random.default_rng(seed).normal(0.0, 1.5, (1, 24)).astype(np.float32) for seed in range(100, 300)]
    labels = [*indices, *[None] * 50]
    alone, both = (calibrate([*sure, *no_key], labels, 1.0, recordings) for recordings in ([], unsure))
    rejected = [(confidences(unsure, 1.0)[0] < found.rejection_threshold).mean() for found in (alone, both)]
    assert rejected[0] > 0.5
    assert rejected[1] <= 0.01
    assert 1.2 / 24 <= both.rejection_threshold < alone.rejection_threshold


def test_probabilities_near_chance_are_always_rejected() -> None:
    logits, indices = drawn(500, 3.0)
    flat = [np.random.default_rng(seed).normal(0.0, 0.1, (2, 24)).astype(np.float32) for seed in range(50)]
    found = calibrate([*logits, *flat], [*indices, *[None] * 50])
    assert found.rejection_threshold == pytest.approx(1.2 / 24)
    assert found.no_key_rejected == 1.0


def test_a_given_temperature_is_used() -> None:
    logits, indices = drawn(300, 1.0)
    found, other = calibrate(logits, indices), calibrate(logits, indices, 2.0)
    assert other.temperature == 2.0
    assert other.error > found.error


def test_without_any_key() -> None:
    with pytest.raises(StoneError, match="no track with a key"):
        calibrate([np.zeros((1, 24), dtype=np.float32)], [None])


def recordings(count: int, spread: float, seed: int = 0) -> list[np.ndarray]:
    """Logits of twelve windows per recording: those of its key, plus noise per window with deviation ``spread``."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        logits = rng.normal(0.0, spread, (12, 24))
        logits[:, rng.integers(24)] += 3.0
        made.append(logits.astype(np.float32))
    return made


def test_windows_that_agree_give_more_confidence() -> None:
    clear, wandering = (fit_exponents(recordings(150, spread), 1.0) for spread in (1.5, 2.0))
    assert clear.agreement > wandering.agreement
    assert clear.exponent > wandering.exponent
    assert all(found.per_doubling > 0 for found in (clear, wandering))
    assert all(found.error < 0.06 for found in (clear, wandering))


def test_the_exponents_are_reproducible() -> None:
    assert fit_exponents(recordings(20, 2.0), 0.7) == fit_exponents(recordings(20, 2.0), 0.7)


def test_recordings_that_are_too_short() -> None:
    with pytest.raises(StoneError, match="no recording has the 5 windows"):
        fit_exponents([np.zeros((4, 24), dtype=np.float32)], 1.0)


def test_calibration_does_not_change_the_weights(
    tiny_config: MakeConfig,
    tiny_checkpoint: Checkpoint,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config, checkpoint = tiny_config("cross_entropy"), tiny_checkpoint
    save_checkpoint(checkpoint, tmp_path / "a.pt")
    rng = np.random.default_rng(0)
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "key"])
        for number in range(6):
            features = rng.integers(0, 256, (config.segment_frames * 2 + 5, config.vqt.n_bins), dtype=np.uint8)
            np.save(tmp_path / f"{number}.npy", features)
            writer.writerow([f"{number}.npy", "none" if number == 5 else Key.from_index(number).name])
    arguments = [str(tmp_path / "a.pt"), "--labels", str(tmp_path / "labels.csv"), "--out", str(tmp_path / "b.pt")]
    assert main([*arguments, "--license", "MIT", "--major-odds", "1.5"]) == 0
    made = load_checkpoint(tmp_path / "b.pt")
    assert (made.license, made.state, made.major_prior_odds) == ("MIT", {}, 1.5)
    assert made.chromanet.temperature != 1.0
    np.testing.assert_allclose(window_logits(made, features), window_logits(checkpoint, features), atol=1e-5)

    assert (made.posterior_exponent, made.exponent_per_doubling) == (1.0, 0.0)

    (tmp_path / "music").mkdir()
    for number in range(2):
        features = rng.integers(0, 256, (config.segment_frames * 9, config.vqt.n_bins), dtype=np.uint8)
        np.save(tmp_path / "music" / f"{number}.npy", features)
    assert main([*arguments, "--recordings", str(tmp_path / "music")]) == 0
    assert load_checkpoint(tmp_path / "b.pt").exponent_per_doubling >= 0.0
    assert "Exponents(" in capsys.readouterr().out
    (tmp_path / "short").mkdir()
    np.save(tmp_path / "short" / "a.npy", features[: config.segment_frames])
    assert main([*arguments, "--recordings", str(tmp_path / "short")]) == 1
    assert "no recording has" in capsys.readouterr().err

    assert main([*arguments, "--dense-blocks", "1"]) == 0
    made = load_checkpoint(tmp_path / "b.pt")
    assert made.chromanet.dense_blocks == 1
    assert np.abs(window_logits(made, features) - window_logits(checkpoint, features)).max() > 1e-4
    assert main([*arguments, "--dense-blocks", "99"]) == 1
    assert "dense_blocks" in capsys.readouterr().err

    assert main([str(tmp_path / "none.pt"), *arguments[1:]]) == 1
    assert "none.pt" in capsys.readouterr().err


# stonecli_train.gate gets the same input and checks it in the same way.
BOTH = pytest.mark.parametrize("command", [stonecli_train.calibrate, stonecli_train.gate], ids=["calibrate", "gate"])


@BOTH
def test_a_file_without_features_is_named_in_the_error(
    command: ModuleType,
    no_features: Path,
    tiny_checkpoint: Checkpoint,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_checkpoint(tiny_checkpoint, tmp_path / "a.pt")
    np.save(tmp_path / "whole.npy", np.full((700, 99), 100, dtype=np.uint8))
    arguments = [str(tmp_path / "a.pt"), "--labels", str(tmp_path / "labels.csv"), "--out", str(tmp_path / "b.pt")]
    for name, more in ((no_features.name, []), ("whole.npy", ["--recordings", str(tmp_path)])):
        (tmp_path / "labels.csv").write_text(f"path,key\n{name},C\n")
        assert command.main([*arguments, *more]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"{no_features}: not features of 99 bins")
    assert not (tmp_path / "b.pt").exists()


@BOTH
def test_a_file_that_is_not_a_checkpoint_is_named(
    command: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.pt").write_text("text")
    assert (
        command.main([str(tmp_path / "a.pt"), "--labels", str(tmp_path / "none.csv"), "--out", str(tmp_path / "b.pt")])
        == 1
    )
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{tmp_path / 'a.pt'}: not a readable checkpoint")


@BOTH
def test_missing_recordings(
    command: ModuleType, tiny_checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_checkpoint(tiny_checkpoint, tmp_path / "a.pt")
    np.save(tmp_path / "whole.npy", np.full((700, 99), 100, dtype=np.uint8))
    (tmp_path / "labels.csv").write_text("path,key\nwhole.npy,C\n")
    (tmp_path / "empty").mkdir()
    arguments = [str(tmp_path / "a.pt"), "--labels", str(tmp_path / "labels.csv"), "--out", str(tmp_path / "b.pt")]
    for name, reason in (
        ("none", "no such folder"),
        ("a.pt", "no such folder"),
        ("empty", "the folder has no .npy files"),
    ):
        assert command.main([*arguments, "--recordings", str(tmp_path / name)]) == 1
        assert capsys.readouterr().err == f"{tmp_path / name}: {reason}\n"


@BOTH
def test_without_the_extra_the_error_tells_how_to_install_it(command: ModuleType, without: Any) -> None:
    name = command.__name__
    done = without("torch", name, "a.pt")
    assert (done.returncode, done.stderr) == (1, f"{name} needs torch: pip install 'stonecli[train]'\n")
