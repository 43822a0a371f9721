from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from stonecli_train.chromanet import ChromaNetConfig  # noqa: E402
from stonecli_train.config import (  # noqa: E402
    CONFIGS,
    TrainConfig,
    default_config,
    load_config,
    override,
)
from stonecli_train.loop import Run  # noqa: E402
from stonecli_train.plan import LAPTOP_CONFIGS, Plan, advice, estimate_plan, window_bytes  # noqa: E402
from stonecli_train.views import windows_per_row  # noqa: E402
from tests.train.fixture_types import MakeTracks  # noqa: E402

Config = Callable[..., TrainConfig]


@pytest.fixture
def run(tmp_path: Path, make_tracks: MakeTracks, tiny_config: Config) -> Run:
    tracks = make_tracks(tmp_path / "u", 4, labeled=False, frames=200)
    return Run(tiny_config("skey"), tmp_path / "run", tracks, [], tracks, [], torch.device("cpu"))


def test_steps_and_windows_of_a_run(run: Run) -> None:
    plan = estimate_plan(run)
    assert (plan.steps, plan.windows, plan.device) == (10, 24, "cpu")
    assert estimate_plan(run, steps_done=7).steps == 3
    assert estimate_plan(run, steps_done=10).hours == 0
    assert 0 < plan.hours < 0.1
    assert 0.5 < plan.gigabytes < 1.0
    assert str(plan).startswith("plan: 10 steps of 24 windows, about 0.0 hours and 0.")
    assert advice(plan, run.config) == ""


def test_planning_leaves_the_network_unchanged(run: Run) -> None:
    before = {name: value.clone() for name, value in run.network.state_dict().items()}
    estimate_plan(run)
    assert all(torch.equal(value, before[name]) for name, value in run.network.state_dict().items())
    assert all(parameter.grad is None for parameter in run.network.parameters())


def test_a_smaller_configuration_is_suggested_on_a_cpu() -> None:
    days = Plan(51_200, 384, 300.0, 1.9, "cpu")
    assert str(days) == "plan: 51,200 steps of 384 windows, about 300 hours and 1.9 GB of memory"
    for name in ("ks", "ks_mode", "skey"):
        config = default_config(name)
        assert advice(days, config).endswith(f"--config {LAPTOP_CONFIGS[config.loss.name]}")
        smaller = load_config(CONFIGS / f"{LAPTOP_CONFIGS[config.loss.name]}.toml")
        assert smaller.train_type == config.train_type
        assert advice(days, smaller) == ""
    assert advice(Plan(51_200, 384, 300.0, 9.0, "cuda"), default_config("ks")) == ""


@pytest.mark.parametrize(
    ("loss", "unlabeled", "labeled", "every", "expected"),
    [
        ("stone", True, False, 2, 3),
        ("semi_tone", True, True, 2, 2.5),
        ("semi_tone", False, True, 2, 2),
        ("cross_entropy", True, True, 4, 1.5),
        ("cross_entropy", False, True, 2, 1),
    ],
)
def test_windows_per_row(
    loss: str, unlabeled: bool, labeled: bool, every: int, expected: float, tiny_config: Any
) -> None:
    assert windows_per_row(tiny_config(loss, data__unlabeled_every=every), unlabeled, labeled) == expected


def test_the_estimated_memory_is_near_the_measured_one() -> None:
    """24 windows of 15 s took 1.15 GB: benchmarks/training_step.py."""
    assert 24 * window_bytes(ChromaNetConfig(), 646) / 1e9 == pytest.approx(1.15, rel=0.25)
    assert window_bytes(ChromaNetConfig(), 161) == pytest.approx(window_bytes(ChromaNetConfig(), 646) / 4, rel=0.1)
    config = override(default_config("ks"), data__micro_batch=3)
    assert config.data.micro_batch == 3
