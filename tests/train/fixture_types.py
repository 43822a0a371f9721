"""Types of the fixtures in ``conftest.py`` that return functions."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from stonecli.key import Key
from stonecli_train.config import TrainConfig
from stonecli_train.data import Track


class RunWithout(Protocol):
    """``without``"""

    def __call__(self, package: str, module: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]: ...


class MakeConfig(Protocol):
    """``tiny_config``"""

    def __call__(self, loss: str = "stone", **changes: Any) -> TrainConfig: ...


class DrawFeatures(Protocol):
    """``draw_features``"""

    def __call__(self, key: Key, frames: int = 700, seed: int = 0) -> npt.NDArray[np.uint8]: ...


class MakeTracks(Protocol):
    """``make_tracks``"""

    def __call__(self, folder: Path, count: int, *, labeled: bool, frames: int = 700, seed: int = 0) -> list[Track]: ...
