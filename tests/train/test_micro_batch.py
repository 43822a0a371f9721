from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from stonecli_train.config import CONFIGS as FOLDER  # noqa: E402
from stonecli_train.config import TrainConfig, default_config, load_config, override  # noqa: E402
from stonecli_train.loop import Run  # noqa: E402
from stonecli_train.micro_batch import in_chunks, micro_batch_size  # noqa: E402
from tests.train.fixture_types import MakeTracks  # noqa: E402

CPU = torch.device("cpu")
CASES = {
    "stone": ("stone", False, {}),
    "semi_tone without labels": ("semi_tone", False, {}),
    "semi_tone with labels": ("semi_tone", True, {}),
    "skey": ("skey", False, {}),
    "cross_entropy": ("cross_entropy", True, {}),
    "teacher": ("cross_entropy", False, {"loss__unlabeled": "mean_teacher", "loss__min_confidence": 0.0}),
}


@pytest.fixture
def step(tmp_path: Path, make_tracks: MakeTracks, tiny_config: Any) -> Callable[..., Any]:
    """The results of one step: ``step("skey", size)`` returns terms, gradients, batch norm's statistics, the run."""
    unlabeled = make_tracks(tmp_path / "u", 6, labeled=False, frames=200)
    labeled = make_tracks(tmp_path / "l", 6, labeled=True, frames=200, seed=50)

    def make(case: str, size: int) -> tuple[dict[str, float], dict[str, Tensor], dict[str, Tensor]]:
        loss, has_labels, more = CASES[case]
        config: TrainConfig = tiny_config(
            loss, network__drop_path=0.4, data__micro_batch=size, optimizer__clip=1e9, **more
        )
        parts = (unlabeled, labeled if has_labels or loss == "cross_entropy" else [])
        run = Run(config, tmp_path / "run", *parts, *parts, CPU)
        validation = run.validate()
        stream = run.new_stream()
        batch = next(batch for batch in stream if batch.is_labeled == has_labels)
        terms = run.train_step(batch)
        gradients = {name: value.grad for name, value in run.network.named_parameters() if value.grad is not None}
        buffers = {name: value.clone() for name, value in run.network.named_buffers()}
        return terms | {f"validation {name}": value for name, value in validation.items()}, gradients, buffers

    return make


@pytest.mark.parametrize("size", [1, 5, 7])
@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_the_whole_batch(case: str, size: int, step: Any) -> None:
    """Losses, gradients and batch statistics to rounding, dropped branches included; the batch has 8 to 24 windows."""
    terms, gradients, buffers = step(case, 1000)
    micro_terms, micro_gradients, micro_buffers = step(case, size)
    assert micro_terms == pytest.approx(terms, rel=1e-5, abs=1e-6)
    assert micro_gradients.keys() == gradients.keys()
    largest = max(gradient.abs().max().item() for gradient in gradients.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(micro_gradients[name], gradient, rtol=1e-4, atol=5e-5 * largest)
    for name, buffer in buffers.items():
        torch.testing.assert_close(micro_buffers[name], buffer, rtol=1e-5, atol=1e-6)


def test_micro_batches_are_concatenated() -> None:
    rows = torch.arange(7.0)[:, None]
    sizes: list[int] = []

    def double(part: Tensor) -> Tensor:
        sizes.append(len(part))
        return 2 * part

    assert torch.equal(in_chunks(double, rows, 3), 2 * rows)
    assert sizes == [3, 3, 1]


def test_the_size_depends_on_the_length_of_the_windows() -> None:
    published = default_config("ks")
    assert micro_batch_size(published, CPU) == 24
    assert micro_batch_size(load_config(FOLDER / "laptop_ks.toml"), CPU) == 99
    assert micro_batch_size(override(published, data__micro_batch=5), CPU) == 5
    assert micro_batch_size(override(published, input__window_seconds=600.0), CPU) == 1


MEMORY = """
import re, sys
from pathlib import Path
import numpy as np
import torch
from stonecli_train.config import default_config, override
from stonecli_train.data import Track
from stonecli_train.loop import Run
torch.set_num_threads(1)
folder, micro = Path(sys.argv[1]), int(sys.argv[2])
np.save(folder / "a.npy", np.random.default_rng(0).integers(0, 256, (2000, 99), dtype=np.uint8))
config = override(default_config("skey"), data__batch_size=12, data__micro_batch=micro, data__workers=0)
run = Run(config, folder / "run", [Track(folder / "a.npy")], [], [], [], torch.device("cpu"))
def peak():  # ru_maxrss would start at the size of the process that started this one
    return int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
before = peak()
run.train_step(next(run.new_stream()))
print((peak() - before) / 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is measured in kilobytes on Linux")
def test_memory_is_that_of_a_micro_batch(tmp_path: Path) -> None:
    """36 windows of the published network take 1.4 GB at once, and 0.3 GB six at a time."""

    def peak(size: int) -> float:
        command = [sys.executable, "-c", MEMORY, str(tmp_path), str(size)]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert peak(6) < 500 < 1000 < peak(36)
