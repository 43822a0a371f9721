"""Labels of mirdata's datasets, by its own readers, on annotations in the formats of two of them."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from stonecli.errors import DatasetError
from stonecli.evaluation.datasets import open_dataset, write_labels

mirdata = pytest.importorskip("mirdata")


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


@pytest.fixture
def giantsteps(tmp_path: Path) -> Any:
    """Three recordings of giantsteps_key: one in D major, one in no key, one without audio."""
    home = tmp_path / "home"
    home.mkdir()
    tracks = {}
    for number, key in enumerate(["D major", "-", "F minor"]):
        (home / f"{number}.key").write_text(key)
        if number < 2:
            (home / f"{number}.mp3").write_bytes(b"audio")
        names = {"audio": f"{number}.mp3", "key": f"{number}.key", "meta": None}
        tracks[str(number)] = {kind: [name, None] for kind, name in names.items()}
    return with_index("giantsteps_key", home, tracks)


def with_index(name: str, home: Path, tracks: Mapping[str, object]) -> Any:
    dataset = mirdata.initialize(name, data_home=str(home))
    index = home / "index.json"
    index.write_text(json.dumps({"version": "test", "tracks": tracks}))
    dataset.index_path = str(index)
    return dataset


def test_tracks_without_audio_or_key_are_counted_and_skipped(giantsteps: Any, tmp_path: Path) -> None:
    told: list[str] = []
    assert write_labels(giantsteps, tmp_path / "new" / "labels.csv", told.append) == 1
    assert rows(tmp_path / "new" / "labels.csv") == [["path", "key"], [str(tmp_path / "home" / "0.mp3"), "D major"]]
    assert told == ["giantsteps_key: 1 recordings without audio and 1 without a key are skipped"]


def test_a_dataset_without_audio_is_an_error(giantsteps: Any, tmp_path: Path) -> None:
    for path in (tmp_path / "home").glob("*.mp3"):
        path.unlink()
    with pytest.raises(DatasetError, match="no recording with audio and a key"):
        write_labels(giantsteps, tmp_path / "labels.csv", lambda text: None)
    assert not (tmp_path / "labels.csv").exists()


def test_the_key_that_lasts_longest(tmp_path: Path) -> None:
    """As in the annotations of the Beatles: silence, then E major, then A minor for longer."""
    home = tmp_path / "home"
    home.mkdir()
    lines = ["0.0\t5.0\tSilence", "5.0\t40.0\tKey\tE", "40.0\t60.0\tKey\tA:minor", "60.0\t80.0\tKey\tA:minor"]
    (home / "a.txt").write_text("\n".join(lines) + "\n")
    (home / "a.wav").write_bytes(b"audio")
    names = {"audio": "a.wav", "keys": "a.txt", "beat": None, "chords": None, "sections": "a.txt"}
    dataset = with_index("beatles", home, {"a": {kind: [name, None] for kind, name in names.items()}})
    write_labels(dataset, tmp_path / "labels.csv", lambda text: None)
    assert rows(tmp_path / "labels.csv")[1] == [str(home / "a.wav"), "A minor"]


def test_a_dataset_with_tonic_and_mode_apart(tmp_path: Path) -> None:
    """As the Free Music Archive's keys: without the mode, every minor key would become major."""
    home = tmp_path / "home"
    home.mkdir()
    lines = ["index,key_and_mode,track_id,spotify_uri", "0,C# minor,000002,", "1,Bb Major,000005,spotify:track:x"]
    for name in ("fma_keys_metadata.csv", "fmakv2_metadata.csv"):  # of mirdata's versions of the dataset
        (home / name).write_text("\n".join(lines) + "\n")
    tracks = {}
    for number in ("000002", "000005"):
        (home / f"{number}.mp3").write_bytes(b"audio")
        tracks[number] = {"audio": [f"{number}.mp3", None]}
    write_labels(with_index("fma_keys", home, tracks), tmp_path / "labels.csv", lambda text: None)
    assert [key for _, key in rows(tmp_path / "labels.csv")[1:]] == ["C# minor", "Bb major"]


def test_a_dataset_that_mirdata_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no_such: must be one of .*beatles"):
        open_dataset("no_such", tmp_path, lambda text: None)
