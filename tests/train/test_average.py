"""The average of checkpoints, through their files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from stonecli_train.average import average, main  # noqa: E402
from stonecli_train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint  # noqa: E402
from stonecli_train.chromanet import ChromaNet, ChromaNetConfig  # noqa: E402
from tests.train.fixture_types import MakeConfig  # noqa: E402


def checkpoint(network: ChromaNetConfig, seed: int) -> Checkpoint:
    torch.manual_seed(seed)
    return Checkpoint(network, ChromaNet(network).state_dict(), state={"step": seed})


def test_the_mean_of_two(tiny_config: MakeConfig, tmp_path: Path) -> None:
    network = tiny_config("cross_entropy").network
    pair = [checkpoint(network, seed) for seed in (1, 2)]
    for each, name in zip(pair, ("a.pt", "b.pt"), strict=True):
        save_checkpoint(each, tmp_path / name)
    assert main([str(tmp_path / "a.pt"), str(tmp_path / "b.pt"), "--out", str(tmp_path / "c.pt")]) == 0
    mean = load_checkpoint(tmp_path / "c.pt")
    assert mean.state == {}
    for name, tensor in mean.weights.items():
        if tensor.dtype.is_floating_point:
            torch.testing.assert_close(tensor, (pair[0].weights[name] + pair[1].weights[name]) / 2)
    mean.network()  # it can be used
    alone = average(pair[:1]).weights
    assert all(torch.equal(alone[name], tensor) for name, tensor in pair[0].weights.items())


def test_the_average_has_the_frame_rate_of_the_last_checkpoint(tiny_config: MakeConfig) -> None:
    network = tiny_config("cross_entropy").network
    mean = average([checkpoint(network, 1), checkpoint(replace(network, dense_blocks=2), 2)])
    assert mean.chromanet.dense_blocks == 2
    mean.network()


def test_checkpoints_that_cannot_be_averaged(
    tiny_config: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = tiny_config("cross_entropy").network, tiny_config("stone").network
    save_checkpoint(checkpoint(one, 1), tmp_path / "a.pt")
    save_checkpoint(checkpoint(other, 1), tmp_path / "b.pt")
    torch.save({"weights": {}}, tmp_path / "foreign.pt")
    for second, reason in (
        ("b.pt", "the checkpoints have different architectures or classes and cannot be averaged\n"),
        ("none.pt", f"{tmp_path / 'none.pt'}: no such file or folder\n"),
        ("foreign.pt", f"{tmp_path / 'foreign.pt'}: not a checkpoint of stone train\n"),
    ):
        assert main([str(tmp_path / "a.pt"), str(tmp_path / second), "--out", str(tmp_path / "c.pt")]) == 1
        assert capsys.readouterr().err == reason
    assert not (tmp_path / "c.pt").exists()


def test_without_the_extra_the_error_tells_how_to_install_it(without: Any) -> None:
    done = without("torch", "stonecli_train.average", "a.pt")
    assert (done.returncode, done.stderr) == (1, "stonecli_train.average needs torch: pip install 'stonecli[train]'\n")
