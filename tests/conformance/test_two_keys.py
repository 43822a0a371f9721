"""A file whose tags name two different keys: the first one counts, and every command that reads keys says so."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import pytest
from mutagen.flac import FLAC

from stonecli.cli.running import MAX_ENTRIES
from tests.fixture_types import CopySong, Invoke

COUNTS = "two different keys (8A and 9A); the first one counts"


def with_keys(path: Path, key: str, *other: str, field: str = "key") -> Path:
    """The FLAC file with this key, and others in the same or another key field."""
    file = FLAC(path)
    file["initialkey"] = [key, *(other if field == "initialkey" else ())]
    if field != "initialkey":
        file[field] = list(other)
    file.save()
    return path


@pytest.mark.parametrize("field", ["initialkey", "key", "initial_key"])
@pytest.mark.parametrize("line", [["tag"], ["compare"], ["mix"], ["convert", "--field", "comment"]], ids=" ".join)
def test_two_keys_are_told(invoke: Invoke, song: CopySong, line: list[str], field: str) -> None:
    with_keys(song("flac", "one"), "Am", "8A", "o", field=field)
    path = with_keys(song("flac", "two"), "Am", "Em", "C", field=field)
    before = path.read_bytes()
    result = invoke(*line, path.parent, "--json")
    assert (result.exit_code, result.stderr) == (0, f"{path}: {COUNTS}\n")
    assert '"8A"' in result.stdout
    assert invoke(*line, path.parent, "--quiet").stderr == ""
    assert path.read_bytes() == before


def test_json_and_page_have_both_keys(invoke: Invoke, song: CopySong, tmp_path: Path) -> None:
    path = with_keys(song("flac"), "Am", "Em")
    result = invoke("compare", path, "--json", "--html", tmp_path / "keys.html")
    record = json.loads(result.stdout)
    assert (record["tag_key"]["camelot"], record["other_tag_key"]["camelot"]) == ("8A", "9A")
    assert '"other":"9A",' in (tmp_path / "keys.html").read_text()


def test_an_overwritten_file_is_not_told(invoke: Invoke, song: CopySong) -> None:
    path = with_keys(song("flac"), "Am", "Em")
    assert invoke("tag", path, "--overwrite", "--write-tags").stderr == ""
    assert (FLAC(path)["initialkey"], FLAC(path)["key"]) == (["7A"], ["7A"])
    assert invoke("tag", path).stderr == ""


def test_labels_with_two_keys_are_told(invoke: Invoke, song: CopySong, tmp_path: Path) -> None:
    path = with_keys(song("flac"), "8A", "Em")
    (tmp_path / "set.m3u8").write_text(f"{path}\n")
    result = invoke("evaluate", tmp_path / "set.m3u8")
    assert (result.exit_code, result.stderr) == (0, f"{path}: two different keys (Am and Em); the first one counts\n")


@pytest.mark.parametrize("line", [["compare"], ["mix"], ["convert"], ["evaluate"]], ids=" ".join)
def test_a_collection_with_two_keys_of_a_file_is_told(
    invoke: Invoke, song: CopySong, tmp_path: Path, line: list[str]
) -> None:
    path = song("flac")
    location = f"file://localhost{quote(path.as_posix())}"
    keys = ("Am", "8A", "Em")
    tracks = "".join(f'<TRACK TrackID="{key}" Location="{location}" Tonality="{key}"/>' for key in keys)
    (tmp_path / "in.xml").write_text(
        f'<DJ_PLAYLISTS Version="1.0.0"><COLLECTION Entries="3">{tracks}</COLLECTION>'
        '<PLAYLISTS><NODE Type="0" Name="ROOT" Count="0"/></PLAYLISTS></DJ_PLAYLISTS>'
    )
    result = invoke(*line, tmp_path / "in.xml")
    told = COUNTS.replace("8A", "Am").replace("9A", "Em") if line == ["evaluate"] else COUNTS
    assert (result.exit_code, result.stderr) == (0, f"{path}: {told}\n")


def test_only_the_first_files_with_two_keys_are_named(invoke: Invoke, song: CopySong) -> None:
    for number in range(MAX_ENTRIES + 2):
        path = with_keys(song("flac", f"{number:02}"), "Am", "Em")
    lines = invoke("tag", path.parent).stderr.splitlines()
    assert lines[MAX_ENTRIES:] == ["stone: 2 more files have two different keys"]
