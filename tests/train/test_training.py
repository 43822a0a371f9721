"""``stonecli_train.train``: the function behind ``stone train``."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile

pytest.importorskip("torch")

import stonecli_train
from stonecli.key import Key
from stonecli.util.locks import LOCK_NAME, folder_lock
from stonecli_train.checkpoint import load_checkpoint
from stonecli_train.errors import ArgumentsError
from stonecli_train.loop import EpochReport, Watcher

SETTINGS = (
    "network.out_channels=[3, 6, 4]", "network.kernels=[5, 5, 3]", "input.window_seconds=1.5",
    "input.frames_averaged=4", "data.batch_size=4", "data.validation_share=0.25", "data.workers=0",
    "optimizer.epochs=2", "optimizer.train_steps=3", "optimizer.val_steps=1",
)  # fmt: skip


class Epochs(Watcher):
    """Collects the numbers of the epochs."""

    def __init__(self) -> None:
        self.epochs: list[int] = []

    def on_epoch(self, report: EpochReport, network: object) -> None:
        """Collect the number."""
        self.epochs.append(report.epoch)


@pytest.fixture
def labels(tmp_path: Path, music: Callable[..., Any]) -> Path:
    rows = [("path", "key")]
    for number in range(8):
        key = Key.from_index(5 * number % 24)
        soundfile.write(tmp_path / f"{number}.wav", music(key.name, seconds=4.0), 22050)
        rows.append((f"{number}.wav", key.name))
    with (tmp_path / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return tmp_path / "labels.csv"


def test_one_call_trains_and_the_next_resumes(labels: Path, tmp_path: Path) -> None:
    config = stonecli_train.choose_config("ks_mode", labels=labels, values=SETTINGS)
    assert config.loss.name == "semi_tone"
    epochs, progress = Epochs(), list[tuple[str, int, int]]()
    where: dict[str, Any] = {"labels": labels, "save_dir": tmp_path / "runs", "threads": 1}
    trained = stonecli_train.train(config, **where, watchers=[epochs], on_progress=lambda *what: progress.append(what))
    assert (trained.step, trained.is_interrupted, epochs.epochs) == (6, False, [1, 2])
    assert progress[-1] == ("decoding", 8, 8)
    assert load_checkpoint(trained.folder / "best.pt").trained_on == "0 unlabeled and 8 labeled tracks"
    longer = stonecli_train.choose_config("ks_mode", labels=labels, values=[*SETTINGS, "optimizer.epochs=3"])
    assert stonecli_train.train(longer, **where, watchers=[epochs]).step == 9
    assert epochs.epochs == [1, 2, 3]


def test_two_runs_of_one_name_do_not_train_at_once(labels: Path, tmp_path: Path) -> None:
    """Otherwise each would replace the other's checkpoints."""
    config = stonecli_train.choose_config("ks_mode", labels=labels, values=SETTINGS)
    folder = tmp_path / "runs" / "models" / "ks_mode" / str(config.loss.circle) / "basic"
    folder.mkdir(parents=True)
    with folder_lock(folder), pytest.raises(ArgumentsError, match="another stone train is running here"):
        stonecli_train.train(config, labels=labels, save_dir=tmp_path / "runs", threads=1)
    assert [path.name for path in folder.iterdir()] == [LOCK_NAME]


@pytest.mark.parametrize(
    ("given", "loss"),
    [
        ({}, "cross_entropy"),
        ({"data": Path("music")}, "skey"),
        ({"labels": Path("keys.csv")}, "semi_tone"),
        ({"loader": "mine:batches"}, "semi_tone"),
        ({"path": Path("laptop_skey")}, "skey"),
    ],
)
def test_the_data_decides_which_configuration_is_the_default(given: dict[str, Any], loss: str) -> None:
    assert stonecli_train.choose_config("ks_mode", **given).loss.name == loss


def test_arguments_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    config = stonecli_train.choose_config("ks", data=tmp_path)
    several: list[dict[str, Any]] = [{"loader": "a:b", "data": tmp_path}, {"teachers": [tmp_path]}, {"name": "a/b"}]
    for wrong in several:
        with pytest.raises(ArgumentsError):
            stonecli_train.train(config, save_dir=tmp_path / "runs", **wrong)
    assert not (tmp_path / "runs").exists()
    with pytest.raises(ArgumentsError, match="is for --type ks, not ks_mode"):
        stonecli_train.choose_config("ks_mode", Path("laptop_ks"))


def test_every_name_of_the_package_can_be_loaded() -> None:
    assert set(stonecli_train.__all__) <= set(dir(stonecli_train))
    assert all(hasattr(stonecli_train, name) for name in stonecli_train.__all__)
    assert not hasattr(stonecli_train, "no_such_name")
