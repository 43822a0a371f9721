"""Fixtures of the tests of ``train``: one thread, recorded answers of the original code, a tiny run and its tracks."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

from stonecli.key import Key  # noqa: E402
from stonecli_train.checkpoint import Checkpoint  # noqa: E402
from stonecli_train.chromanet import ChromaNet  # noqa: E402
from stonecli_train.config import TrainConfig, config_from_dict  # noqa: E402
from stonecli_train.data import Track  # noqa: E402
from tests.train.fixture_types import DrawFeatures, MakeConfig, MakeTracks, RunWithout  # noqa: E402

SHARED = Path(__file__).resolve().parents[3] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the repository that holds published checkpoints; the test is skipped without it."""
    if not (SHARED / "checkpoints" / "golden.npz").exists():
        pytest.skip(f"the published checkpoints and their recorded outputs are missing ({SHARED})")
    return SHARED


@pytest.fixture(scope="session")
def golden(shared: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Results of the original code: ``audio``, ``vqt`` and ``prob/CHECKPOINT``."""
    with np.load(shared / "checkpoints" / "golden.npz") as file:
        return {name: file[name] for name in file if name != "names"}


TINY: dict[str, dict[str, Any]] = {
    "network": {"n_bins": 84, "out_channels": [3, 6, 4], "kernels": [5, 5, 3], "drop_path": 0.0},
    "input": {"window_seconds": 1.5, "frames_averaged": 4},
    "data": {"batch_size": 8, "workers": 0, "validation_share": 0.25},
    "optimizer": {"epochs": 2, "train_steps": 5, "val_steps": 2, "lr": 0.01, "warmup_epochs": 0.0},
}


MISSING = """
import runpy
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
_, package, module, *sys.argv[1:] = sys.argv
sys.meta_path.insert(0, Missing())
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="session")
def without() -> RunWithout:
    """Runs ``python -m MODULE`` in a Python without a package: ``without("torch", "stonecli_train.average",
    "a.pt")``."""

    def run(package: str, module: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", MISSING, package, module, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return run


@pytest.fixture(scope="session")
def tiny_config() -> MakeConfig:
    """A configuration that trains in milliseconds: ``tiny_config("skey", data__batch_size=2, optimizer__lr=0.1)``."""

    def make(loss: str = "stone", **changes: Any) -> TrainConfig:
        values = copy.deepcopy(TINY)
        twelve = loss == "stone"
        values["network"] |= {"rows": 1 if twelve else 2, "normalization": "affine" if twelve else "plain"}
        values["loss"] = {"name": loss}
        for name, value in changes.items():
            table, _, key = name.partition("__")
            values.setdefault(table, {})[key] = value
        return config_from_dict(values)

    return make


@pytest.fixture
def tiny_checkpoint(tiny_config: MakeConfig) -> Checkpoint:
    """A checkpoint of 24 keys with the first weights that seed 0 gives."""
    config = tiny_config("cross_entropy")
    torch.manual_seed(0)
    return Checkpoint(
        config.network,
        ChromaNet(config.network).state_dict(),
        config.vqt,
        config.input.frames_averaged,
        window_seconds=config.input.window_seconds,
        classes=tuple(key.name for key in Key.all()),
        state={"step": 1},
    )


def _save_nothing(path: Path) -> None:
    path.write_bytes(b"")


def _save_audio(path: Path) -> None:
    path.write_bytes(b"RIFF$\0\0\0WAVEfmt ")


NO_FEATURES: dict[str, Callable[[Path], None]] = {
    "audio": _save_audio,
    "nothing": _save_nothing,
    "other bins": lambda path: np.save(path, np.zeros((700, 50), dtype=np.uint8)),
    "other numbers": lambda path: np.save(path, np.zeros((700, 99))),
    "no frames": lambda path: np.save(path, np.zeros((0, 99), dtype=np.uint8)),
    "one dimension": lambda path: np.save(path, np.zeros(700, dtype=np.uint8)),
}


@pytest.fixture(params=NO_FEATURES)
def no_features(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file that is called .npy and holds no features, one kind after the other."""
    path = tmp_path / "no features.npy"
    NO_FEATURES[request.param](path)
    return path


@pytest.fixture(scope="session")
def draw_features() -> DrawFeatures:
    """The log-VQT that a track in a key might have: ``draw_features(Key(0, "major"), 700, seed)``, [frames, 99]."""

    def draw(key: Key, frames: int = 700, seed: int = 0) -> npt.NDArray[np.uint8]:
        rng = np.random.default_rng(seed)
        third, sixth, seventh = (4, 9, 11) if key.mode == "major" else (3, 8, 10)
        levels = {0: 1.0, 7: 0.9, third: 0.85, 2: 0.6, 5: 0.7, sixth: 0.6, seventh: 0.55}
        profile = np.array([levels.get((9 + bin_ - key.tonic) % 12, 0.2) for bin_ in range(99)])  # bin 0 is A
        on = rng.random((frames // 25 + 1, 99)) < 0.8
        level = profile * np.repeat(on, 25, axis=0)[:frames] + 0.08 * rng.standard_normal((frames, 99))
        return np.clip(np.rint(level * 230.0), 0, 255).astype(np.uint8)

    return draw


@pytest.fixture(scope="session")
def make_tracks(draw_features: DrawFeatures) -> MakeTracks:
    """Tracks with drawn features: ``make_tracks(folder, 24, labeled=True, frames=700)``, in all the keys in turn."""

    def make(folder: Path, count: int, *, labeled: bool, frames: int = 700, seed: int = 0) -> list[Track]:
        folder.mkdir(parents=True, exist_ok=True)
        tracks = []
        for number in range(count):
            key = Key.from_index(7 * number % 24)
            path = folder / f"{number}.npy"
            np.save(path, draw_features(key, frames, seed + number))
            tracks.append(Track(path, key if labeled else None))
        return tracks

    return make
