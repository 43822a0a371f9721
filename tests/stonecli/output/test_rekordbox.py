import os
from pathlib import Path
from urllib.parse import unquote_to_bytes
from xml.etree import ElementTree

import pytest

from stonecli.key import Key
from stonecli.output.playlist import PlaylistEntry
from stonecli.output.rekordbox import save_rekordbox
from stonecli.tags.track_info import TrackInfo

rbxml = pytest.importorskip("pyrekordbox.rbxml", reason="needs pyrekordbox (pip install '.[dev]')")

NAMES = ["plain.mp3", "Ünï & <b>\"quoted\" 'x' 50% + #1?.flac", "new\nline\x1b.aiff", "曲🎵.m4a", "bytes\udcff.wav"]


def test_pyrekordbox_reads_it_back(tmp_path: Path) -> None:
    info = TrackInfo("Title", "Me & <You>", "Album", "House", 127.5, 200.4, 320, 44100)
    (tmp_path / NAMES[0]).write_bytes(b"12345")
    entries = [PlaylistEntry(tmp_path / name, Key.parse("F#m"), info, 201.6) for name in NAMES]
    entries.append(PlaylistEntry(tmp_path / "silence.mp3", None, TrackInfo(), None))
    target = tmp_path / "stone.xml"
    save_rekordbox(target, entries, "musical", "my <list>")
    xml = rbxml.RekordboxXml(target)
    assert xml.num_tracks == len(entries)
    tracks = xml.get_tracks()
    first = tracks[0]
    assert (first["Name"], first["Artist"], first["Album"], first["Genre"]) == (
        "Title",
        "Me & <You>",
        "Album",
        "House",
    )
    assert (first["AverageBpm"], first["TotalTime"], first["BitRate"], first["SampleRate"]) == (127.5, 202, 320, 44100)
    assert (first["Tonality"], first["Kind"], first["Size"]) == ("F#m", "MP3 File", 5)
    for track, entry in zip(tracks[:-2], entries, strict=False):
        assert "/" + track["Location"].lstrip("/") == str(entry.path)  # it cuts the prefix with the slash
    assert tracks[-1]["Tonality"] is None
    assert tracks[-1]["Name"] == "silence"
    playlist = xml.get_playlist("my <list>")
    assert playlist.key_type == "TrackID"
    assert playlist.get_tracks() == [track["TrackID"] for track in tracks]


def test_locations_as_rekordbox_writes_them(tmp_path: Path) -> None:
    save_rekordbox(
        tmp_path / "a.xml", [PlaylistEntry(Path("/Music") / name, None, TrackInfo()) for name in NAMES], "camelot", "x"
    )
    locations = [track.get("Location", "") for track in ElementTree.parse(tmp_path / "a.xml").iter("TRACK")][:5]  # noqa: S314
    assert locations[0] == "file://localhost/Music/plain.mp3"
    assert locations[1].startswith("file://localhost/Music/%C3%9Cn%C3%AF%20%26%20%3Cb%3E%22quoted%22")
    prefix = "file://localhost"
    paths = [os.fsdecode(unquote_to_bytes(text.removeprefix(prefix))) for text in locations]
    assert paths == [f"/Music/{name}" for name in NAMES]


def test_texts_that_xml_cannot_hold(tmp_path: Path) -> None:
    info = TrackInfo(title="a\0b\x0bc\ud800d\uffffe]]>\tf", artist='"><TRACK TrackID="9"/>')
    save_rekordbox(tmp_path / "a.xml", [PlaylistEntry(tmp_path / "x.mp3", None, info)], "camelot", "\0")
    xml = rbxml.RekordboxXml(tmp_path / "a.xml")
    assert xml.num_tracks == 1
    assert xml.get_tracks()[0]["Name"] == "a�b�c�d�e]]>\tf"
    assert xml.get_tracks()[0]["Artist"] == info.artist
