"""The gate on levels and features whose kind is known."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from stonecli.errors import StoneError
from stonecli.key import Key
from stonecli_train.calibrate import window_frames, window_logits
from stonecli_train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from stonecli_train.config import ConfigError, load_config
from stonecli_train.gate import (
    SHORTEST_SECONDS,
    STATISTICS,
    Levels,
    adapted,
    fit,
    main,
    pieces,
    window_levels,
    with_gate,
)


@pytest.fixture(autouse=True)
def _fewer_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """These classes are easier to separate than real ones."""
    monkeypatch.setattr("stonecli_train.gate.STEPS", 500)


def rows(count: int, middle: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(middle, 1.0, (count, 8)).astype(np.float32)


def levels(count: int, middle: float, seed: int) -> Levels:
    return Levels(rows(count, middle, seed), rows(0, 0.0, 0))


def test_the_gate_generalizes_to_held_out_sounds() -> None:
    gate = fit(levels(3000, 2.0, 0), levels(100, -2.0, 1)).gate
    with torch.inference_mode():
        tonal, keyless = (gate(torch.from_numpy(rows(500, middle, 2)))[:, 0] for middle in (2.0, -2.0))
    assert (tonal > 0.5).float().mean() > 0.99
    assert (keyless < 0.5).float().mean() > 0.99


def test_if_both_classes_are_alike_music_passes() -> None:
    found = fit(levels(5000, 0.3, 0), levels(5000, -0.3, 1))
    assert found.passed == pytest.approx(0.999, abs=0.0005)
    assert 0.01 < found.blocked < 0.6


def test_a_gate_is_nearly_binary() -> None:
    gate = fit(levels(3000, 2.0, 0), levels(100, -2.0, 1)).gate
    with torch.inference_mode():
        opened = gate(torch.from_numpy(np.concatenate([rows(500, 2.0, 2), rows(500, -2.0, 3)])))
    assert ((opened < 0.05) | (opened > 0.95)).float().mean() > 0.97


def test_the_gate_learns_from_pieces_and_is_set_by_windows() -> None:
    direction = np.array([1, 1, 1, 1, -1, -1, -1, -1], dtype=np.float32)  # in which the classes of pieces differ
    tonal = Levels(rows(500, 2.0, 0), rows(300, 0.0, 1) + 2 * direction)
    keyless = Levels(rows(100, -2.0, 2), np.concatenate([rows(300, 0.0, 3) - 2 * direction, rows(30, 2.0, 4)]))
    found = fit(tonal, keyless)
    assert found.passed >= 0.998
    assert found.blocked > 0.98
    without = fit(Levels(tonal.windows, rows(0, 0, 0)), Levels(keyless.windows, rows(0, 0, 0))).gate
    with torch.inference_mode():
        passed = found.gate(torch.from_numpy(rows(500, 0.0, 5) + 2 * direction))[:, 0] > 0.5
        opened = found.gate(torch.from_numpy(rows(500, 0.0, 6) - 2 * direction))[:, 0] > 0.5
        guessed = without(torch.from_numpy(rows(500, 0.0, 5) + 2 * direction))[:, 0] > 0.5
    assert passed.float().mean() > 0.98
    assert opened.float().mean() < 0.02
    assert guessed.float().mean() < 0.9


def test_pieces_are_inside_their_track_and_fit_a_window(tiny_checkpoint: Checkpoint) -> None:
    random = np.random.default_rng(0)
    window = window_frames(tiny_checkpoint)
    shortest = window_frames(replace(tiny_checkpoint, window_seconds=SHORTEST_SECONDS))
    for frames in (1, shortest, window, 3 * window):
        track = np.arange(frames, dtype=np.uint8)[:, None].repeat(tiny_checkpoint.vqt.n_bins, axis=1)
        for plain, *changed in [list(pieces(tiny_checkpoint, track, random)) for _ in range(50)]:
            assert all(min(frames, shortest) <= len(piece) <= min(frames, window) for piece in (plain, *changed))
            assert (np.diff(plain[:, 0].astype(int)) % 256 == 1).all()
            assert all(piece.dtype == np.uint8 and piece.shape[1:] == track.shape[1:] for piece in changed)


def test_a_fit_is_reproducible_and_keeps_the_generator_state() -> None:
    torch.manual_seed(5)
    drawn = float(torch.rand(1))
    torch.manual_seed(5)
    first, second = (fit(levels(50, 1.0, 0), levels(50, -1.0, 1)).gate.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert float(torch.rand(1)) == drawn


@pytest.mark.parametrize("kinds", [(0, 5), (5, 0)])
def test_a_single_class_is_an_error(kinds: tuple[int, int]) -> None:
    with pytest.raises(StoneError, match="with a key and tracks without"):
        fit(levels(kinds[0], 0.0, 0), levels(kinds[1], 0.0, 0))


def test_an_adapted_gate_has_the_same_output_for_changed_levels() -> None:
    """Training mixes the channels a little: the old gate confuses the two classes, the adapted one does not."""
    gate = fit(levels(3000, 2.0, 0), levels(100, -2.0, 1)).gate
    mixing = np.eye(8, dtype=np.float32) + np.random.default_rng(2).normal(0.0, 0.5, (8, 8)).astype(np.float32)
    before = np.concatenate([rows(2000, middle, seed) for seed, middle in enumerate((2.0, -2.0, 0.0), 3)])
    after = before @ mixing - 3.0
    new = adapted(gate, before, after)
    others = np.concatenate([rows(500, 1.0, 7), rows(500, -1.0, 8)])
    with torch.inference_mode():
        wanted = gate(torch.from_numpy(others))[:, 0] > 0.5
        as_it_is, found = (each(torch.from_numpy(others @ mixing - 3.0))[:, 0] > 0.5 for each in (gate, new))
    assert (as_it_is == wanted).float().mean() < 0.9
    assert (found == wanted).float().mean() > 0.97


def sound(checkpoint: Checkpoint, tonal: bool, frames: int, seed: int) -> np.ndarray:
    """Lasting pitches, or bursts of noise."""
    rng = np.random.default_rng(seed)
    shape = (frames, checkpoint.vqt.n_bins)
    if not tonal:
        return (rng.integers(0, 256, shape) * (rng.random((frames, 1)) < 0.3)).astype(np.uint8)
    pitches = rng.choice(shape[1], shape[1] // 3, replace=False)
    return np.where(np.isin(np.arange(shape[1]), pitches), 230, 20).astype(np.uint8)[None].repeat(frames, axis=0)


def test_the_command(tiny_checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_checkpoint(tiny_checkpoint, tmp_path / "a.pt")
    frames = 700
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "key"])
        for number in range(40):
            np.save(tmp_path / f"{number}.npy", sound(tiny_checkpoint, number % 2 == 0, frames, number))
            writer.writerow([f"{number}.npy", "none" if number % 2 else Key.from_index(number % 24).name])
    (tmp_path / "music").mkdir()
    np.save(tmp_path / "music" / "a.npy", sound(tiny_checkpoint, True, frames, 99))
    arguments = [str(tmp_path / "a.pt"), "--labels", str(tmp_path / "labels.csv"), "--out", str(tmp_path / "b.pt")]
    assert main([*arguments, "--recordings", str(tmp_path / "music")]) == 0
    assert "recordings counted as music" in capsys.readouterr().out
    made = load_checkpoint(tmp_path / "b.pt")
    assert made.chromanet.gate_channels > 0
    assert made.state == {}
    before, after = (
        [np.ptp(window_logits(each, sound(tiny_checkpoint, tonal, frames, 200))) for tonal in (True, False)]
        for each in (tiny_checkpoint, made)
    )
    kept = np.array(after) / np.array(before)
    assert kept[0] > 0.8
    assert kept[1] < 0.2
    plain = made.without_gate()
    changed = {name: value + 0.01 if name.endswith("pwconv2.bias") else value for name, value in plain.weights.items()}
    save_checkpoint(replace(plain, weights=changed), tmp_path / "later.pt")
    arguments[0], arguments[-1] = str(tmp_path / "later.pt"), str(tmp_path / "adapted.pt")
    assert main([*arguments, "--like", str(tmp_path / "b.pt")]) == 0
    assert "with 40 sounds" in capsys.readouterr().out
    later = [
        np.ptp(window_logits(load_checkpoint(tmp_path / "adapted.pt"), sound(tiny_checkpoint, tonal, frames, 200)))
        for tonal in (True, False)
    ]
    assert later[0] > 0.5 * after[0]
    assert later[1] < 0.3 * later[0]
    assert main([*arguments, "--like", str(tmp_path / "a.pt")]) == 1
    assert "no gate for a network of this architecture" in capsys.readouterr().err
    save_checkpoint(replace(made, window_seconds=made.window_seconds + 1.0), tmp_path / "longer.pt")
    assert main([*arguments, "--like", str(tmp_path / "longer.pt")]) == 1
    assert "longer.pt and later.pt have different window lengths" in capsys.readouterr().err
    assert plain.chromanet == tiny_checkpoint.chromanet
    assert {*plain.weights} == {*tiny_checkpoint.weights}

    # fitted again, not on top of the first
    assert main([str(tmp_path / "b.pt"), *arguments[1:3], "--out", str(tmp_path / "c.pt")]) == 0
    assert {*load_checkpoint(tmp_path / "c.pt").weights} == {*made.weights}

    with (tmp_path / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "key"], ["0.npy", "C"]])
    assert main(arguments) == 1
    assert "without one" in capsys.readouterr().err


def test_levels_have_one_row_per_window(tiny_checkpoint: Checkpoint) -> None:
    network: Any = tiny_checkpoint.network()
    found, most = window_levels(network, tiny_checkpoint, sound(tiny_checkpoint, True, 700, 0))
    assert found.shape[1] == STATISTICS * sum(tiny_checkpoint.chromanet.out_channels)
    assert len(found) == len(window_logits(tiny_checkpoint, sound(tiny_checkpoint, True, 700, 0)))
    assert 1 / 24 <= most <= 1
    gate = fit(Levels(found, found), Levels(found + 1, found[:0])).gate
    assert with_gate(tiny_checkpoint, gate).network().gate is not None


def test_a_gate_in_a_configuration_is_refused(tmp_path: Path) -> None:
    network = '[network]\nrows = 2\nnormalization = "plain"\ngate_channels = 4\n'
    (tmp_path / "a.toml").write_text(network + '[loss]\nname = "skey"\n')
    with pytest.raises(ConfigError, match="gate_channels"):
        load_config(tmp_path / "a.toml")
