"""Values by file, whatever path leads to it."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from stonecli.library.file_index import FileIndex


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "a.mp3").touch()
    (tmp_path / "link").symlink_to(tmp_path / "music")
    (tmp_path / "other.mp3").symlink_to(tmp_path / "music" / "a.mp3")
    return tmp_path


PATHS = ("music/a.mp3", "link/a.mp3", "other.mp3", "link/../music/a.mp3")


@pytest.mark.parametrize("known", PATHS)
@pytest.mark.parametrize("asked", PATHS)
def test_every_path_of_a_file_finds_its_value(folder: Path, known: str, asked: str) -> None:
    index = FileIndex([(folder / "b.mp3", 2), (folder / known, 1), (folder / "nul\0.mp3", 3)])
    for found in (index, pickle.loads(pickle.dumps(index))):
        assert found.get(folder / asked) == 1
        assert found.get(folder / "nul\0.mp3") == 3
        assert found.get(folder / "gone.mp3") is None


def test_the_first_value_of_a_path_counts(folder: Path) -> None:
    index = FileIndex([(folder / "music" / "a.mp3", 1), (folder / "music" / "a.mp3", 2), (folder / "other.mp3", 3)])
    assert [index.get(folder / path) for path in PATHS] == [1, 1, 3, 1]


def test_accents_in_either_spelling_find_the_value(tmp_path: Path) -> None:
    assert FileIndex([(tmp_path / "e\u0301.mp3", 1)]).get(tmp_path / "\u00e9.mp3") == 1


def test_an_empty_index_has_no_values(tmp_path: Path) -> None:
    index: FileIndex[int] = FileIndex()
    assert index.get(tmp_path) is None
