"""Losses and gradients against numbers that the original code of STONE and S-KEY computed.

``golden_values/golden_losses.npz`` holds for each case NAME/HOW/CIRCLE: ``logits`` float32 [3 * 32, classes] (first
segment, second segment, transposed first segment), ``shift`` [32], for S-KEY ``chroma`` [32, 12] and the weights in
the name, then what the original returned: every term, the total, and the gradient of the total by the logits.
``sharp`` logits are large: most probabilities are near 0 or 1.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from stonecli_train.config import TrainConfig, default_config, override  # noqa: E402
from stonecli_train.data import Batch  # noqa: E402
from stonecli_train.views import batch_loss  # noqa: E402

GOLDEN = np.load(Path(__file__).parent / "golden_values" / "golden_losses.npz")
CASES = sorted({name.rpartition("/")[0] for name in GOLDEN.files})
CONFIGS = {"stone": "ks", "semi_tone": "ks_mode", "skey": "skey"}


def config_of(case: str) -> TrainConfig:
    """The published configuration of the case's model, with its circle and weights."""
    name, _, circle, *weights = case.split("/")
    config = override(default_config(CONFIGS[name]), loss__circle=int(circle))
    if weights:
        config = override(config, loss__skey_weights=tuple(float(weight) for weight in weights[0].split("-")))
    return config


def terms_of(case: str, logits: Tensor) -> dict[str, Tensor]:
    """Our terms of the loss for the inputs of a case."""
    shift = torch.from_numpy(GOLDEN[f"{case}/shift"])
    chroma = torch.from_numpy(GOLDEN[f"{case}/chroma"]) if case.startswith("skey") else None
    segments = torch.zeros(len(shift), 1, 99, dtype=torch.uint8)  # not used: the logits are given
    shifts = torch.stack([torch.zeros_like(shift), shift], dim=1)
    batch = Batch(segments, segments, torch.empty(0, dtype=torch.int64), shifts)
    return batch_loss(logits.reshape(3, len(shift), -1), chroma, batch, config_of(case))


def test_golden_values_exist_for_every_model() -> None:
    assert {case.split("/")[0] for case in CASES} == set(CONFIGS)
    assert "skey/soft/7/1-1.7-1" in CASES


@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_equal_the_originals(case: str) -> None:
    logits = torch.from_numpy(GOLDEN[f"{case}/logits"]).requires_grad_()
    terms = terms_of(case, logits)

    def original(name: str) -> float:
        return float(GOLDEN[f"{case}/{name}"])

    assert terms["key"].item() == pytest.approx(original("loss_pos") + original("loss_equi"), rel=1e-6)
    if "mode" in terms:
        assert terms["mode"].item() == pytest.approx(original("loss_mode"), rel=1e-6)
    if "balance" in terms:
        assert terms["balance"].item() == pytest.approx(original("loss_distribution"), abs=1e-8)
    assert terms["total"].item() == pytest.approx(original("total"), rel=1e-6)
    terms["total"].backward()
    assert logits.grad is not None
    largest = np.abs(GOLDEN[f"{case}/gradient"]).max()
    np.testing.assert_allclose(logits.grad.numpy(), GOLDEN[f"{case}/gradient"], rtol=0, atol=5e-5 * largest)
