"""Folders of music to run commands on, and the arguments of a tiny training run."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import soundfile

from stonecli.key import Key
from tests.fixture_types import MakeMusic
from tests.stonecli.cli.train_runs import CONFIGURATION


@pytest.fixture
def album(songs: Mapping[str, Path], tmp_path: Path) -> Path:
    """A folder with a song in every container."""
    folder = tmp_path / "album"
    folder.mkdir()
    for path in songs.values():
        shutil.copy(path, folder)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder."""
    path = tmp_path / "folder"
    path.mkdir()
    return path


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory, music: MakeMusic) -> Path:
    """Eight recordings in ``music``, their keys in ``labels.csv``, tiny configurations, the cache of features."""
    folder = tmp_path_factory.mktemp("train")
    (folder / "music").mkdir()
    rows = ["path,key"]
    for number in range(8):
        key = Key.from_index(5 * number % 24)
        soundfile.write(folder / "music" / f"{number}.wav", music(key.name, seconds=4.0), 22050)
        rows.append(f"music/{number}.wav,{key.musical}")
    (folder / "labels.csv").write_text("\n".join(rows))
    for loss in ("stone", "semi_tone", "skey"):
        rows_, norm = (1, "affine") if loss == "stone" else (2, "plain")
        (folder / f"{loss}.toml").write_text(CONFIGURATION.format(loss=loss, rows=rows_, norm=norm))
    return folder


@pytest.fixture
def train_arguments(recordings: Path, tmp_path: Path) -> Callable[..., list[str | Path]]:
    """Arguments of a tiny run that saves below ``tmp_path``."""

    def make(loss: str = "stone", *more: str | Path) -> list[str | Path]:
        kind = "ks" if loss == "stone" else "ks_mode"
        config = recordings / f"{loss}.toml"
        return [
            "train",
            "--type",
            kind,
            "-g",
            config,
            "-s",
            tmp_path,
            "--cache",
            recordings / "cache",
            "--threads",
            "1",
            *more,
        ]

    return make
