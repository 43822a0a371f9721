"""Keys and tempos that only a rekordbox XML has: ``stone convert``, ``compare`` and ``mix`` use them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from stonecli.key import Key
from stonecli.tagging import convert_library
from stonecli.tags import read_tags
from tests.fixture_types import CopySong, Invoke
from tests.tag_samples import tagged

SPELLINGS = {"Abm": "G# minor", "4A": "F minor", "1m": "A minor", "F#m": "F# minor", "Gbmin": "F# minor"}


@pytest.fixture
def no_analysis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stonecli.tagging.tagger.detect_key", lambda *_, **__: pytest.fail("nothing is analyzed"))


def key_of(text: str) -> Key:
    return next(key for key in Key.all() if key.name == SPELLINGS[text])


def collection(path: Path, tracks: Mapping[Path, Mapping[str, str]], members: tuple[int, ...] = ()) -> Path:
    """A rekordbox XML with these attributes by file, and a playlist ``Sat`` of some of them."""
    texts = "".join(
        f'<TRACK TrackID="{number}" Location="file://localhost{quote(track.as_posix())}"'
        + "".join(f' {name}="{text}"' for name, text in attributes.items())
        + ' Rating="204"/>\n'
        for number, (track, attributes) in enumerate(tracks.items(), 1)
    )
    keys = "".join(f'<TRACK Key="{number}"/>' for number in members)
    path.write_text(
        f'<DJ_PLAYLISTS Version="1.0.0"><COLLECTION Entries="{len(tracks)}">{texts}</COLLECTION>'
        '<PLAYLISTS><NODE Type="0" Name="ROOT" Count="1">'
        f'<NODE Name="Sat" Type="1" KeyType="0" Entries="{len(members)}">{keys}</NODE>'
        "</NODE></PLAYLISTS></DJ_PLAYLISTS>"
    )
    return path


def tonalities(path: Path) -> list[str]:
    return re.findall('Tonality="([^"]*)"', path.read_text())


def records(text: str) -> dict[str, dict[str, Any]]:
    return {Path(record["path"]).stem: record for record in map(json.loads, text.splitlines())}


@pytest.fixture
def foreign(song: CopySong, tmp_path: Path) -> Path:
    """A collection of files without keys; one of the WAV files is missing."""
    kinds = ("flac", "mp3", "wav 16 bit", "m4a aac", "ogg vorbis")
    files = [song(kind, f"{number} é") for number, kind in enumerate(kinds)]
    tracks = {file: {"Tonality": text, "AverageBpm": "0.00"} for file, text in zip(files, SPELLINGS, strict=True)}
    return collection(tmp_path / "in.xml", tracks)


@pytest.mark.usefixtures("no_analysis")
def test_the_keys_of_the_collection_are_respelled_and_written(invoke: Invoke, foreign: Path, tmp_path: Path) -> None:
    music = tmp_path / "music"
    before = {path: path.read_bytes() for path in music.iterdir()}
    preview = records(invoke("convert", foreign, "--notation", "openkey", "--json").stdout)
    assert {path: path.read_bytes() for path in music.iterdir()} == before
    for record, text in zip(preview.values(), SPELLINGS, strict=True):
        assert record["status"] == "convertible"
        assert (record["old_key"], record["old_key_from"]) == (text, "collection")
        assert record["tag_key"]["musical"] == key_of(text).musical

    written = invoke("convert", foreign, "--notation", "openkey", "--write-tags", "--rekordbox", tmp_path / "out.xml")
    assert (written.exit_code, written.stderr) == (0, "")
    keys = [key_of(text).open_key for text in SPELLINGS]
    assert [read_tags(path).text for path in sorted(music.iterdir())] == keys
    assert tonalities(tmp_path / "out.xml") == keys
    assert (tmp_path / "out.xml").read_text().count('Rating="204"') == len(keys)
    assert invoke("undo").exit_code == 0
    assert {path: path.read_bytes() for path in music.iterdir()} == before


@pytest.mark.usefixtures("no_analysis")
class TestRespelling:
    """Each key in the XML is written in the notation, whatever happens to its file."""

    def test_missing_and_unwritable_files_and_other_keys(self, invoke: Invoke, song: CopySong, tmp_path: Path) -> None:
        other, broken = tagged(song("flac", "other"), initialkey="Am"), tmp_path / "broken.flac"
        broken.write_bytes(b"no music")
        tracks = {
            tmp_path / "missing.wav": {"Tonality": "Abm"},
            broken: {"Tonality": "F#m"},
            other: {"Tonality": "4A"},  # the file has A minor
            song("mp3", "unreadable"): {"Tonality": "loud"},
            song("mp3", "empty"): {"Tonality": ""},
        }
        source = collection(tmp_path / "in.xml", tracks)
        result = invoke("convert", source, "--notation", "flats", "--write-tags", "--rekordbox", tmp_path / "out.xml")
        assert result.exit_code == 1  # a file is missing, another is broken
        assert "unreadable.mp3: not a key: 'loud'; left as it is" in result.stderr
        assert tonalities(tmp_path / "out.xml") == ["Abm", "Gbm", "Fm", "loud", ""]
        assert read_tags(other).text == "Am"

    def test_a_drive_that_is_missing(self, invoke: Invoke, tmp_path: Path) -> None:
        source = collection(tmp_path / "in.xml", {tmp_path / f"{text}.mp3": {"Tonality": text} for text in SPELLINGS})
        outputs: list[str | Path] = ["--rekordbox", tmp_path / "out.xml", "--html", tmp_path / "page.html"]
        result = invoke("convert", source, *outputs)
        assert result.exit_code == 1
        assert f"stone: {tmp_path / 'page.html'} was not saved" in result.stderr
        assert tonalities(tmp_path / "out.xml") == [key_of(text).camelot for text in SPELLINGS]

    def test_only_the_playlist_is_respelled(self, invoke: Invoke, song: CopySong, tmp_path: Path) -> None:
        tracks = {song("mp3", name): {"Tonality": "Abm"} for name in "abc"}
        source = collection(tmp_path / "in.xml", tracks, (2,))
        invoke("convert", source, "--playlist-name", "sat", "--rekordbox", tmp_path / "out.xml")
        assert tonalities(tmp_path / "out.xml") == ["Abm", "1A", "Abm"]


@pytest.mark.usefixtures("no_analysis")
@pytest.mark.parametrize("link", ["link", "Me\u0301lanie"])
def test_links_are_followed_both_ways(invoke: Invoke, song: CopySong, tmp_path: Path, link: str) -> None:
    file = song("flac", "x")
    (tmp_path / link).symlink_to(file.parent)
    linked = tmp_path / link / file.name
    for listed, given in ((linked, file), (file, linked)):
        source = collection(tmp_path / "in.xml", {listed: {"Tonality": "Abm"}, tmp_path / "a\0.mp3": {"Tonality": "C"}})
        assert records(invoke("convert", given, source, "--json").stdout)["x"]["old_key"] == "Abm"


def test_the_key_in_the_file_wins(invoke: Invoke, song: CopySong, tmp_path: Path) -> None:
    file = tagged(song("flac", "own"), initialkey="F", bpm="100")  # all songs are in D minor
    source = collection(tmp_path / "in.xml", {file: {"Tonality": "Abm", "AverageBpm": "128.00"}})
    compared = records(invoke("compare", source, "--json").stdout)["own"]
    assert (compared["old_key"], compared["old_key_from"], compared["relation"]) == ("F", "tag", "relative")
    converted = records(invoke("convert", source, "--json").stdout)["own"]
    assert (converted["old_key"], converted["key"]["camelot"]) == ("F", "7B")
    (track,) = json.loads(invoke("mix", source, "--json").stdout)["tracks"]
    assert (track["key"]["camelot"], track["key_from"], track["bpm"]) == ("7B", "tag", 100.0)


@pytest.mark.usefixtures("no_analysis")
def test_another_key_than_that_of_the_collection_is_counted(song: CopySong, tmp_path: Path) -> None:
    keys = {"a": ("Gm", "6A"), "b": ("Gm", "Abm"), "c": ("Gm", "loud"), "d": ("", "Gm")}
    tracks = {}
    for name, (own, given) in keys.items():
        tracks[tagged(song("flac", name), **({"initialkey": own} if own else {}))] = {"Tonality": given}
    found: list[bool] = []
    convert_library(
        [collection(tmp_path / "in.xml", tracks)],
        on_result=lambda outcome: found.append(bool(outcome.result and outcome.result.differs_from_collection)),
    )
    assert found == [False, True, False, False]


def test_the_keys_of_the_collection_are_compared(invoke: Invoke, foreign: Path, tmp_path: Path) -> None:
    text = foreign.read_text().replace('Tonality="Abm" AverageBpm="0.00"', 'Tonality="Fmaj" AverageBpm="99.50"')
    foreign.write_text(text)
    page = tmp_path / "page.html"
    found = records(invoke("compare", foreign, "--json", "--html", page).stdout)
    assert {record["old_key_from"] for record in found.values()} == {"collection"}
    relations = {record["old_key"]: record["relation"] for record in found.values()}
    assert relations == {"Fmaj": "relative", "4A": "clash", "1m": "fifth", "F#m": "clash", "Gbmin": "clash"}
    assert '"bpm":99.5,' in page.read_text()
    clashes = invoke("compare", foreign, "--only", "clash", "--notation", "musical")
    assert [line.split("\t")[1] for line in clashes.stdout.splitlines()[1:]] == ["Fm", "F#m", "F#m"]


@pytest.mark.usefixtures("no_analysis")
def test_keys_and_tempos_of_the_collection_are_mixed(invoke: Invoke, song: CopySong, tmp_path: Path) -> None:
    keys = {"a": ("Abm", "120.00"), "b": ("1m", "121.00"), "c": ("D#min", "122.50")}
    files = {song("wav 16 bit", name): texts for name, texts in keys.items()}
    tracks = {file: {"Tonality": key, "AverageBpm": bpm} for file, (key, bpm) in files.items()}
    source = collection(tmp_path / "in.xml", tracks, (2, 1, 3))
    (tmp_path / "link").symlink_to(tmp_path / "music")
    options: list[str | Path] = [
        "--bpm",
        "--start",
        tmp_path / "link" / "a.wav",
        "--rekordbox",
        tmp_path / "out.xml",
        "--json",
    ]
    result = invoke("mix", source, "--playlist-name", "Sat", *options)
    assert (result.exit_code, result.stderr) == (0, "")
    found = json.loads(result.stdout)["tracks"]
    assert [(track["key"]["camelot"], track["key_from"], track["bpm"]) for track in found] == [
        ("1A", "collection", 120.0),
        ("2A", "collection", 122.5),
        ("8A", "collection", 121.0),
    ]
    assert tonalities(tmp_path / "out.xml") == ["1A", "8A", "2A"]


@pytest.mark.usefixtures("no_analysis")
def test_a_folder_and_its_collection(invoke: Invoke, song: CopySong, tmp_path: Path) -> None:
    source = collection(tmp_path / "in.xml", {song("mp3", "a"): {"Tonality": "Abm"}})
    converted = records(invoke("convert", tmp_path / "music", source, "--json").stdout)
    assert converted["a"]["key"]["camelot"] == "1A"


def test_the_text_for_no_key_in_a_file_gives_way(invoke: Invoke, song: CopySong, tmp_path: Path) -> None:
    file = tagged(song("flac", "off"), initialkey="o")
    source = collection(tmp_path / "in.xml", {file: {"Tonality": "Dm"}})
    assert records(invoke("compare", source, "--json").stdout)["off"]["relation"] == "same"
    assert invoke("convert", source, "--write-tags").exit_code == 0
    assert read_tags(file).text == "7A"
