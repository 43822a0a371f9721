"""Targets, augmentation and training of the tempo network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from stonecli.errors import StoneError
from stonecli.tempo.periodicity import CHANNELS, TEMPOS
from stonecli_train.tempo.fit import (
    Examples,
    load_networks,
    main,
    read_renderings,
    save_networks,
    shifted,
    targets,
    train,
)
from stonecli_train.tempo.network import FIRST, GRID, LAST, OUTPUT_TEMPOS, TempoNet, TempoNetConfig, pooled
from tests.fixture_types import LimitFileSize

SMALL = TempoNetConfig(hidden=8, dropout=0.0)


def test_a_full_disk_is_named_and_the_old_networks_stay(tmp_path: Path, no_room: LimitFileSize) -> None:
    path = tmp_path / "tempo.pt"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="File too large") as caught, no_room():
        save_networks([TempoNet(SMALL)], path)
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert [*tmp_path.iterdir()] == [path]


class TestTargets:
    def test_they_are_distributions(self) -> None:
        assert targets(np.array([0.0, 60.0, 128.0, 200.0])).sum(dim=1).numpy() == pytest.approx(1.0, abs=1e-5)

    def test_no_tempo_is_the_last_class(self) -> None:
        assert targets(np.array([0.0]))[0, -1] == 1.0

    def test_the_true_tempo_is_the_most_probable_one(self) -> None:
        best = OUTPUT_TEMPOS[targets(np.array([100.0, 128.0]))[:, :-1].argmax(dim=1).numpy()]
        assert best == pytest.approx([100.0, 128.0], rel=0.02)

    def test_double_a_slow_tempo_is_more_probable_than_half_of_it(self) -> None:
        target = targets(np.array([85.0]))[0, :-1].numpy()
        double, half = (target[np.abs(OUTPUT_TEMPOS - bpm).argmin()] for bpm in (170.0, 42.5))
        assert double > 10.0 * half


def test_a_shift_moves_every_value() -> None:
    values = np.tile(np.arange(5.0, dtype=np.float32), (2, 1, 1))
    moved = shifted(values, np.array([2, -1]))
    assert moved[:, 0].tolist() == [[0.0, 0.0, 0.0, 1.0, 2.0], [1.0, 2.0, 3.0, 4.0, 4.0]]


def test_the_network_is_equivariant() -> None:
    """Without its bias over the absolute tempo, a shift of the input shifts the output."""
    torch.manual_seed(0)
    network = TempoNet(SMALL).eval()
    values = torch.zeros(1, CHANNELS, len(GRID))
    values[..., 70:100] = torch.rand(1, CHANNELS, 30)
    with torch.no_grad():
        first, second = network(values)[0, :-1], network(values.roll(3, dims=2))[0, :-1]
    assert torch.allclose(first[:-3], second[3:], atol=1e-5)


def test_training_finds_a_peak_in_the_input() -> None:
    rng = np.random.default_rng(0)
    tempos = 2.0 ** rng.uniform(np.log2(80.0), np.log2(160.0), 200)
    inputs = rng.normal(0.0, 0.1, (len(tempos), CHANNELS, len(GRID))).astype(np.float32)
    for row, bpm in enumerate(tempos):
        inputs[row, :, np.abs(GRID - bpm).argmin()] += 2.0
    network = train(Examples(inputs, tempos), SMALL, epochs=12, seed=0)
    with torch.no_grad():
        found = OUTPUT_TEMPOS[network(torch.tensor(inputs))[:, :-1].argmax(dim=1).numpy()]
    assert (np.abs(found / tempos - 1.0) < 0.04).mean() > 0.9


def test_saved_networks_load_unchanged(tmp_path: Path) -> None:
    networks = [TempoNet(SMALL).eval(), TempoNet(TempoNetConfig(hidden=4)).eval()]
    save_networks(networks, tmp_path / "tempo.pt")
    values = pooled(torch.rand(1, CHANNELS, len(TEMPOS)))
    with torch.no_grad():
        for before, after in zip(networks, load_networks(tmp_path / "tempo.pt"), strict=True):
            assert torch.equal(before(values), after(values))
    assert before(values).shape == (1, LAST - FIRST + 1)


def test_a_folder_without_renderings_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoneError, match="no renderings"):
        read_renderings(tmp_path)


def test_missing_performances_are_reported_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--renderings", str(tmp_path), "--corpus", str(tmp_path), "--out", str(tmp_path / "tempo.pt")]
    assert main(options) == 1
    assert str(tmp_path / "groove.zip") in capsys.readouterr().err
