"""Fixtures of the tests of ``export``: a hand-made network that detects keys, and the published checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

from stonecli_export.onnx_file import ExportReport, export_checkpoint  # noqa: E402
from stonecli_train.checkpoint import Checkpoint, save_checkpoint  # noqa: E402
from stonecli_train.chromanet import ChromaNet, ChromaNetConfig  # noqa: E402

SHARED = Path(__file__).resolve().parents[3] / "shared"
PUBLISHED = {
    "semisupervised_ks_mode.pt": "checkpoints",
    "semitone_ks.pt": "checkpoints",
    "skey.pt": "checkpoints",
    "first_default.pt": "model",
}

# How well each degree fits: that of the tonic, the third, the fifth and the leading note most.
PROFILES = (
    (5, 0, 2.5, 0, 4, 3, 0, 4.5, 0, 3, 0, 2.5),  # major
    (5, 0, 2.5, 4.2, 0, 3, 0, 4.5, 2.5, 0, 0.5, 2.5),  # minor
)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the repository that holds published checkpoints; the test is skipped without it."""
    if not (SHARED / "checkpoints" / "golden.npz").exists():
        pytest.skip(f"the published checkpoints and their recorded answers are not here ({SHARED})")
    return SHARED


@pytest.fixture(scope="session")
def golden(shared: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Results of the original code: ``audio``, ``vqt`` and ``prob/CHECKPOINT``."""
    with np.load(shared / "checkpoints" / "golden.npz") as file:
        return {name: file[name] for name in file if name != "names"}


def _hand_made(rows: int = 2, **changes: Any) -> Checkpoint:
    config = ChromaNetConfig(rows=rows, out_channels=(2,), kernels=(23,), temperature=0.1)  # type: ignore[arg-type]
    network = ChromaNet(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        down: Any = network.time_downsampling_blocks[0]
        block: Any = network.convnext_blocks[0]
        down.conv.weight.fill_(1.0)  # only values more than one standard deviation above the mean pass the GELU
        down.conv.bias.fill_(-2.0)
        for mode, degrees in enumerate(PROFILES):
            profile = np.array(degrees) - np.mean(degrees)
            profile /= np.linalg.norm(profile)
            steps = [profile[step % 12] * (1 - abs(step) / 12) for step in range(-11, 12)]
            block.dwconv.weight[mode, 0, :, 11] = torch.tensor(steps)
            # gelu(z) - gelu(-z) = z: the match is not changed.
            block.pwconv1.weight[mode, mode], block.pwconv1.weight[mode + 2, mode] = 1, -1
            block.pwconv2.weight[mode, mode], block.pwconv2.weight[mode, mode + 2] = 1, -1
        block.gamma.fill_(3.0)
        for row in range(rows):
            network.classifier.weight[row, row] = 1
    values: dict[str, Any] = {"window_seconds": 8.0, "license": "MIT", "trained_on": "nothing: made by hand"} | changes
    return Checkpoint(config, network.state_dict(), **values)


@pytest.fixture(scope="session")
def hand_made() -> Callable[..., Checkpoint]:
    """Makes a network of one layer that compares each pitch class's surroundings with a major and a minor profile.

    Its first row is major and its second minor; both begin with A, the VQT's lowest bin. Keywords are the fields of
    ``Checkpoint``, and ``rows``.
    """
    return _hand_made


@pytest.fixture(scope="session")
def hand_made_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint file of the 24-class ``hand_made`` network, which states no class order."""
    path = tmp_path_factory.mktemp("hand made") / "hand.pt"
    save_checkpoint(_hand_made(), path)
    return path


@pytest.fixture(scope="session", params=PUBLISHED)
def published(request: pytest.FixtureRequest, shared: Path) -> Path:
    """Each of the checkpoints that others made."""
    return shared / PUBLISHED[request.param] / str(request.param)


@pytest.fixture(scope="session")
def exported(published: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    """The export of each of them, made once."""
    return export_checkpoint(published, tmp_path_factory.mktemp("exported") / f"{published.stem}.onnx")
