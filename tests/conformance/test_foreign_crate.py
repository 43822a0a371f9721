"""A crate of 30 recordings with the keys of five programs, in a rekordbox collection: compared, respelled and ordered.

The keys are in the tags and in the collection, or only in the collection. The collection and the playlist that come out
are read by pyrekordbox, ElementTree and m3u8; undo restores every byte.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import mutagen
import pytest

from stonecli.key import Key
from stonecli.tags import read_tags
from tests.fixture_types import Encode, MakeMusic, RunStone

CONTAINERS = ("mp3", "flac", "aiff", "wav 16 bit", "m4a aac", "ogg vorbis")
COUNT, WRONG = 30, 5  # tracks; the first ones have the key of another track
PROGRAMS: tuple[Callable[[Key], str], ...] = (
    lambda key: f"{key.musical.removesuffix('m')}{'min' if key.mode == 'minor' else 'maj'}",
    lambda key: key.camelot.zfill(3),
    lambda key: key.open_key,
    lambda key: f"{key.spelled('flats')} ({key.camelot})",
    lambda key: f"{key.spelled('sharps').replace('#', '♯').removesuffix('m')} {key.mode}",
)

TRACK = """\
    <TRACK TrackID="{id}" Name="Track &lt;{number}&gt;" Location="{url}"
      Tonality="{key}" AverageBpm="{bpm}" Unknown="kept" DateAdded="2024-01-01">
      <TEMPO Inizio="0.025" Bpm="{bpm}" Metro="4/4" Battito="1"/>
      <POSITION_MARK Name="Cue {number}" Type="0" Start="1.{number}" Num="0"/>
    </TRACK>
"""
COLLECTION = """<?xml version="1.0" encoding="UTF-8"?>
<DJ_PLAYLISTS Version="1.0.0">
  <PRODUCT Name="rekordbox" Version="6.8.5" Company="AlphaTheta"/>
  <COLLECTION Entries="{count}">
{tracks}  </COLLECTION>
  <PLAYLISTS>
    <NODE Type="0" Name="ROOT" Count="1">
      <NODE Name="Clubs" Type="0" Count="1">
        <NODE Name="Saturday" Type="1" KeyType="0" Entries="{count}">{members}</NODE>
      </NODE>
    </NODE>
  </PLAYLISTS>
</DJ_PLAYLISTS>
"""


@dataclass(frozen=True)
class Crate:
    """The files with their real keys and those of the programs, their bytes, the collection, and stone."""

    keys: Mapping[Path, Key]
    named: Mapping[Path, Key]
    before: Mapping[Path, bytes]
    collection: Path
    stone: Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="module")
def stone_at_home(tmp_path_factory: pytest.TempPathFactory, stone: RunStone) -> Callable[..., CompletedProcess[str]]:
    """stone with one home for both crates, so that the recordings are analyzed only once."""
    home = tmp_path_factory.mktemp("home")
    for name in ("data", "config", "state", "cache"):
        (home / name).mkdir(mode=0o700)
    folders: dict[str, Any] = {
        f"STONE_{name.upper()}_DIR": str(home / name) for name in ("data", "config", "state", "cache")
    }
    return functools.partial(stone, **folders)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory, music: MakeMusic, encode: Encode) -> Mapping[Path, Key]:
    """The recordings without keys in their tags."""
    folder, keys = tmp_path_factory.mktemp("recordings"), {}
    for number in range(COUNT):
        key = Key.from_index(7 * number % 24)
        samples = music(key.name, seconds=6, rate=44100)
        path = encode(samples, 44100, CONTAINERS[number % len(CONTAINERS)], folder / f"{number:02} é & #{number}")
        keys[path] = key
    return keys


@pytest.fixture(scope="module", params=["in the tags", "only in the collection"])
def crate(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    recordings: Mapping[Path, Key],
    stone_at_home: Callable[..., CompletedProcess[str]],
) -> Crate:
    folder, keys, texts = tmp_path_factory.mktemp("crate"), {}, []
    for number, (recording, key) in enumerate(recordings.items()):
        path = folder / recording.name
        shutil.copy(recording, path)
        keys[path] = key
        texts.append(PROGRAMS[number % len(PROGRAMS)](key.transposed(6) if number < WRONG else key))
        if request.param == "in the tags":
            write_foreign_key(path, texts[-1])
    tracks = "".join(_track(number, path, text) for number, (path, text) in enumerate(zip(keys, texts, strict=True)))
    members = "".join(f'<TRACK Key="{100 + number}"/>' for number in reversed(range(COUNT)))
    collection = folder / "rekordbox.xml"
    text = COLLECTION.format(count=COUNT, tracks=tracks, members=members)
    collection.write_text(text, encoding="utf-8", newline="\r\n")
    before = {path: path.read_bytes() for path in (*keys, collection)}
    named = {path: key.transposed(6) if number < WRONG else key for number, (path, key) in enumerate(keys.items())}
    return Crate(keys, named, before, collection, stone_at_home)


def _track(number: int, path: Path, key: str) -> str:
    url, bpm = f"file://localhost{quote(str(path))}", 120 + number % 7
    return TRACK.format(id=100 + number, number=number, url=url, key=key, bpm=f"{bpm}.00")


def write_foreign_key(path: Path, text: str) -> None:
    """As another program writes it."""
    file = mutagen.File(path)
    if path.suffix in (".mp3", ".aiff", ".wav"):
        if file.tags is None:
            file.add_tags()
        file.tags.add(mutagen.id3.TKEY(encoding=3, text=text))
    elif path.suffix == ".m4a":
        file["----:com.apple.iTunes:initialkey"] = text.encode()
    else:
        file["initialkey"] = text
    file.save()


def test_the_keys_of_the_programs_are_compared(crate: Crate) -> None:
    found = crate.stone("compare", crate.collection, "--json")
    assert (found.returncode, found.stderr) == (0, "")
    records = {Path(record["path"]): record for record in map(json.loads, found.stdout.splitlines())}
    assert list(records) == list(crate.keys)
    for path, key in crate.named.items():
        assert records[path]["tag_key"]["musical"] == key.musical
    right = sum(records[path]["detected_key"]["musical"] == key.musical for path, key in crate.keys.items())
    assert right > 0.8 * COUNT
    clashes = crate.stone("compare", crate.collection, "--playlist-name", "saturday", "--only", "clash", "--json")
    named = [Path(json.loads(line)["path"]) for line in clashes.stdout.splitlines()]
    assert set(named) >= {path for path in list(crate.keys)[:WRONG] if records[path]["relation"] == "clash"}
    assert 3 <= len(named) <= WRONG + 6
    assert {path: path.read_bytes() for path in crate.before} == crate.before


def test_the_crate_is_respelled_ordered_and_restored(crate: Crate, tmp_path: Path) -> None:
    respelled = tmp_path / "respelled.xml"
    arguments = ["--notation", "openkey", "--write-tags", "--rekordbox", respelled]
    converted = crate.stone("convert", crate.collection, *arguments)
    assert (converted.returncode, converted.stderr) == (0, "")
    open_keys = {path: key.open_key for path, key in crate.named.items()}
    assert {path: read_tags(path).text for path in crate.keys} == open_keys
    check_collection(crate, respelled, None, open_keys)

    outputs = ["--rekordbox", tmp_path / "Set 1.xml", "--playlist", tmp_path / "Set 1.m3u8"]
    options = ["--notation", "openkey", "--start", "07 é & #7", "--at", "15=11 é & #11", *outputs]
    mixed = crate.stone("mix", crate.collection, "--playlist-name", "Clubs/Saturday", *options, "--json")
    assert (mixed.returncode, mixed.stderr) == (0, "")
    record = json.loads(mixed.stdout)
    order = [Path(track["path"]) for track in record["tracks"]]
    assert (len(order), set(order)) == (COUNT, set(crate.keys))
    assert {Path(track["path"]): track["key"]["open_key"] for track in record["tracks"]} == open_keys
    assert {track["bpm"] for track in record["tracks"]} == {float(bpm) for bpm in range(120, 127)}
    assert [order[0].name[:2], order[14].name[:2]] == ["07", "11"]
    assert record["gap"] < 0.1

    check_playlist(tmp_path / "Set 1.m3u8", order)
    check_collection(crate, tmp_path / "Set 1.xml", order, open_keys)

    assert crate.stone("undo").returncode == 0
    assert {path: path.read_bytes() for path in crate.before} == crate.before


def check_playlist(playlist: Path, order: list[Path]) -> None:
    m3u8 = pytest.importorskip("m3u8", reason="needs m3u8")
    names = [segment.uri for segment in m3u8.load(str(playlist)).segments]
    assert [Path(os.path.normpath(playlist.parent / name)) for name in names] == order


def check_collection(crate: Crate, path: Path, order: list[Path] | None, keys: Mapping[Path, str]) -> None:
    """pyrekordbox reads keys and playlists; apart from them and a new one, the tree is the one that went in."""
    rbxml = pytest.importorskip("pyrekordbox.rbxml", reason="needs pyrekordbox")
    read = rbxml.RekordboxXml(path)
    numbers = {track: 100 + number for number, track in enumerate(crate.keys)}
    assert {track["TrackID"]: track["Tonality"] for track in read.get_tracks()} == {
        numbers[track]: key for track, key in keys.items()
    }
    assert read.get_playlist("Clubs", "Saturday").get_tracks() == [*reversed(numbers.values())]
    old, new = (ElementTree.parse(file).getroot() for file in (crate.collection, path))  # noqa: S314 (our own)
    root = new.find("PLAYLISTS/NODE")
    assert root is not None
    if order is not None:
        assert read.get_playlist("Set 1").get_tracks() == [numbers[track] for track in order]
        root.remove(root[-1])
        root.set("Count", "1")
    for tree in (old, new):
        for track in tree.iterfind("COLLECTION/TRACK"):
            del track.attrib["Tonality"]
    assert ElementTree.canonicalize(ElementTree.tostring(new)) == ElementTree.canonicalize(ElementTree.tostring(old))
