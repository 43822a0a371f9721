"""The generated data of a run without --data."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from stonecli.key import Key
from stonecli_train.corpus.plain import plain_excerpt
from stonecli_train.generated import generate
from stonecli_train.vqt import VQTConfig


def test_excerpts_and_their_labels(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    labels = generate(tmp_path, VQTConfig(), count=5, seconds=3.0, progress=lambda *numbers: seen.append(numbers))
    with labels.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [Key.parse(row["key"]) for row in rows] == [plain_excerpt(0, number, 3.0)[0] for number in range(5)]
    features = [np.load(tmp_path / row["path"]) for row in rows]
    assert all(array.dtype == np.uint8 and array.shape == features[0].shape for array in features)
    assert seen == [(done, 5) for done in range(1, 6)]


def test_only_missing_files_are_generated(tmp_path: Path) -> None:
    labels = generate(tmp_path, VQTConfig(), count=4, seconds=2.0)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npy")}
    content = labels.read_text()
    (lost, *_) = tmp_path.glob("00002_*.npy")
    array = np.load(lost)
    lost.unlink()
    generate(tmp_path, VQTConfig(), count=4, seconds=2.0)
    assert np.array_equal(np.load(lost), array)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items() if path != lost)
    assert labels.read_text() == content


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", None], ids=["empty", "header", "cut"])
def test_damaged_files_are_generated_again(tmp_path: Path, damage: bytes | None) -> None:
    generate(tmp_path, VQTConfig(), count=2, seconds=2.0)
    (path,) = tmp_path.glob("00001_*.npy")
    content = path.read_bytes()
    path.write_bytes(content[:-10] if damage is None else damage)
    generate(tmp_path, VQTConfig(), count=2, seconds=2.0)
    assert path.read_bytes() == content
