"""Export of the tempo network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from stonecli.errors import StoneError
from stonecli.tempo.model import TempoModel
from stonecli.tempo.periodicity import CHANNELS, TEMPOS
from stonecli_export import tempo_model
from stonecli_export.tempo_model import export_tempo_model
from stonecli_train.tempo.fit import load_networks, save_networks
from stonecli_train.tempo.network import OUTPUT_TEMPOS, TempoNet, TempoNetConfig, pooled


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    networks = [TempoNet(TempoNetConfig(hidden=6)).eval() for _ in range(2)]
    with torch.no_grad():
        for network in networks:
            network.bias.copy_(torch.arange(len(network.bias)) / 10.0)
    save_networks(networks, tmp_path / "tempo.pt")
    return tmp_path / "tempo.pt"


def test_the_file_gives_the_mean_logits_of_the_networks(checkpoint: Path, tmp_path: Path) -> None:
    export_tempo_model(checkpoint, tmp_path / "tempo.onnx")
    model = TempoModel((tmp_path / "tempo.onnx").read_bytes())
    values = np.random.default_rng(1).random((CHANNELS, len(TEMPOS)), dtype=np.float32)
    with torch.no_grad():
        inputs = pooled(torch.tensor(values)[None])
        networks = load_networks(checkpoint)
        expected = torch.stack([network(inputs)[0] for network in networks]).mean(dim=0).numpy()
    assert model.logits(values) == pytest.approx(expected, abs=1e-4)
    assert np.allclose(model.tempos, OUTPUT_TEMPOS)


def test_a_model_that_differs_is_not_written(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempo_model, "TOLERANCE", -1.0)
    with pytest.raises(StoneError, match="PyTorch differ by"):
        export_tempo_model(checkpoint, tmp_path / "tempo.onnx")
    assert not (tmp_path / "tempo.onnx").exists()
