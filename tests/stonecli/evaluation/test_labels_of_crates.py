"""Crates as labels: the keys of a rekordbox collection, or those in the tags of a playlist."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mutagen.flac import FLAC

from stonecli import evaluate
from stonecli.errors import LabelsError
from stonecli.evaluation.labels import read_labels
from stonecli.model.session import KeyModel
from tests.fixture_types import CopySong, Invoke


@pytest.fixture
def crate(song: CopySong) -> Path:
    """A playlist of a track with a key, one without, and one that is missing; with a rekordbox XML of the same."""
    path = song("flac", "a")
    file = FLAC(path)
    file["initialkey"] = "7A"
    file.save()
    song("flac", "b")
    (path.parent / "crate.m3u8").write_text("a.flac\nb.flac\nc.flac\n./a.flac\n")
    keys = {"a": 'Tonality="F" Genre="house"', "b": 'Tonality="x" AverageBpm="120.00"', "c": 'Tonality="Am"'}
    tracks = "".join(
        f'<TRACK TrackID="{number}" Location="file://localhost{path.parent.as_posix()}/{name}.flac" {attributes}/>'
        for number, (name, attributes) in enumerate(keys.items())
    )
    (path.parent / "rekordbox.xml").write_text(
        f'<DJ_PLAYLISTS><COLLECTION Entries="3">{tracks}</COLLECTION><PLAYLISTS><NODE Type="0">'
        '<NODE Name="Checked" Type="1" KeyType="0"><TRACK Key="0"/></NODE>'
        '<NODE Name="Empty" Type="1" KeyType="0"/></NODE></PLAYLISTS></DJ_PLAYLISTS>'
    )
    return path.parent


def test_a_playlist_has_the_keys_of_its_tags(crate: Path) -> None:
    tracks, repeated = read_labels(crate / "crate.m3u8")
    assert [(track.path.name, str(track.key)) for track in tracks] == [("a.flac", "Dm"), ("c.flac", "None")]
    assert repeated == []


def test_a_collection_has_its_own_keys(crate: Path) -> None:
    tracks, _ = read_labels(crate / "rekordbox.xml")
    assert [(track.path.name, str(track.key), track.genre) for track in tracks] == [
        ("a.flac", "F", "house"),
        ("c.flac", "Am", ""),
    ]
    assert [track.path.name for track in read_labels(crate / "rekordbox.xml", "checked")[0]] == ["a.flac"]


@pytest.mark.parametrize(
    ("name", "message"), [("Empty", "no track has a key"), ("Other", "no playlist is named Other")]
)
def test_crates_that_cannot_be_used(crate: Path, name: str, message: str) -> None:
    with pytest.raises(LabelsError, match=message):
        read_labels(crate / "rekordbox.xml", name)


def test_scores_of_a_crate(invoke: Invoke, crate: Path, key_model: KeyModel) -> None:
    result = invoke("evaluate", crate / "crate.m3u8", "--json")
    record = json.loads(result.stdout)
    assert (result.exit_code, record["tracks"], len(record["failed"])) == (1, 2, 1)
    assert "c.flac: no such file or folder" in result.stderr
    found = evaluate(crate / "rekordbox.xml", key_model, playlist_name="Checked", resamples=100)
    assert found.overall.metrics["accuracy"].value == 0.0  # the relative key
    wrong = invoke("evaluate", crate / "crate.m3u8", "--playlist-name", "x")
    assert (wrong.exit_code, "--playlist-name needs a rekordbox XML" in wrong.stderr) == (2, True)
