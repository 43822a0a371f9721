"""What the tests of ``train`` share: one thread, and the recorded answers of the original code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

SHARED = Path(__file__).resolve().parents[3] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the repository that holds published checkpoints; the test is skipped without it."""
    if not (SHARED / "checkpoints" / "golden.npz").exists():
        pytest.skip(f"the published checkpoints and their recorded answers are not here ({SHARED})")
    return SHARED


@pytest.fixture(scope="session")
def golden(shared: Path) -> dict[str, npt.NDArray[np.float32]]:
    """What the original code computed: ``audio``, ``vqt`` and ``prob/CHECKPOINT``."""
    with np.load(shared / "checkpoints" / "golden.npz") as file:
        return {name: file[name] for name in file if name != "names"}
