import os
from pathlib import Path
from urllib.parse import unquote_to_bytes
from xml.etree import ElementTree

import pytest

from stonecli.errors import CrateError, OutputError
from stonecli.key import Key
from stonecli.output.playlist import PlaylistEntry
from stonecli.output.rekordbox import save_rekordbox, update_rekordbox
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


SOURCE = """<?xml version="1.0" encoding="UTF-8"?>\r
<!-- made by hand -->\r
<DJ_PLAYLISTS Version="1.0.0" xmlns:x="urn:x">\r
  <PRODUCT Name="rekordbox" Version="6.7.7" Company="AlphaTheta"/>\r
  <COLLECTION Entries="3">\r
    <TRACK TrackID="7" Name="a > b &amp; 'c' Tonality=&quot;x&quot;" Location="file://localhost{folder}/a.mp3"\r
      Tonality = 'Abm' AverageBpm="127.98" Mix='Tonality="no"' x:unknown="1" DateAdded="2020-01-02">\r
      <TEMPO Inizio="0.025" Bpm="127.98" Metro="4/4" Battito="1"/>\r
      <POSITION_MARK Name="Cue" Type="0" Start="1.5" Num="0" Red="40" Green="226" Blue="20"/>\r
      <UNKNOWN>text</UNKNOWN>\r
    </TRACK>\r
    <TRACK TrackID="9" Name="b" Location="file://localhost{folder}/b%20%C3%A9.mp3"/>\r
    <TRACK TrackID="12" Name="c" Location="file://localhosttidal:tracks:5" Tonality="8A"></TRACK>\r
  </COLLECTION>\r
  <PLAYLISTS>\r
    <NODE Type="0" Name="ROOT" Count="1">\r
      <NODE Name="Clubs" Type="0" Count="1"><NODE Name="S" Type="1" KeyType="0" Entries="2">\r
        <TRACK Key="9"/><TRACK Key="7"/></NODE></NODE>\r
    </NODE>\r
  </PLAYLISTS>\r
</DJ_PLAYLISTS>\r
"""


class TestUpdate:
    """A collection that goes in comes out with the keys, and with nothing else changed."""

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        path = tmp_path / "in.xml"
        path.write_bytes(SOURCE.format(folder=tmp_path.as_posix()).encode())
        return path

    @staticmethod
    def entries(folder: Path) -> list[PlaylistEntry]:
        info = TrackInfo(title="é", bpm=125.5)
        keys = {"b é.mp3": "F#m", "a.mp3": "Db"}
        return [PlaylistEntry(folder / name, Key.parse(key), info) for name, key in keys.items()]

    def test_only_the_keys_change(self, source: Path, tmp_path: Path) -> None:
        before = source.read_bytes()
        update_rekordbox(source, tmp_path / "out.xml", self.entries(tmp_path), "openkey", overwrite=True)
        after = before.replace(b"Tonality = 'Abm'", b'Tonality = "8d"')
        after = after.replace(b'b%20%C3%A9.mp3"/>', b'b%20%C3%A9.mp3" Tonality="4m"/>')
        assert (tmp_path / "out.xml").read_bytes() == after != before
        assert source.read_bytes() == before

    def test_the_tempo_changes_if_it_is_asked_for(self, source: Path, tmp_path: Path) -> None:
        update_rekordbox(source, tmp_path / "out.xml", self.entries(tmp_path), "camelot", bpm=True, overwrite=True)
        tracks = rbxml.RekordboxXml(tmp_path / "out.xml").get_tracks()
        assert [track["AverageBpm"] for track in tracks] == [125.5, 125.5, None]
        assert [track["Tonality"] for track in tracks] == ["3B", "11A", "8A"]
        assert tracks[0].tempos[0].Bpm == 127.98  # the grid stays

    def test_tracks_and_a_playlist_are_added(self, source: Path, tmp_path: Path) -> None:
        entries = [PlaylistEntry(tmp_path / "ñ & new.mp3", Key.parse("C"), TrackInfo()), *self.entries(tmp_path)]
        update_rekordbox(source, tmp_path / "out.xml", entries, "camelot", playlist="Set <1> é")
        xml = rbxml.RekordboxXml(tmp_path / "out.xml")
        assert xml.num_tracks == 4
        assert xml.get_playlist("Set <1> é").get_tracks() == [13, 9, 7]
        assert xml.get_playlist("Clubs", "S").get_tracks() == [9, 7]
        root = ElementTree.parse(tmp_path / "out.xml").getroot()  # noqa: S314
        assert root.find("PLAYLISTS/NODE").get("Count") == "2"  # type: ignore[union-attr]
        assert [track.get("Tonality") for track in root.iterfind("COLLECTION/TRACK")] == ["Abm", "11A", "8A", "8B"]

    @pytest.mark.parametrize("closing", ["></{}>", "/>", " />"])
    def test_empty_elements_are_filled(self, closing: str, tmp_path: Path) -> None:
        (tmp_path / "in.xml").write_text(
            f'<DJ_PLAYLISTS><COLLECTION Entries="0"{closing.format("COLLECTION")}'
            f'<PLAYLISTS><NODE Type="0" Name="ROOT" Count="0"{closing.format("NODE")}</PLAYLISTS></DJ_PLAYLISTS>'
        )
        update_rekordbox(tmp_path / "in.xml", tmp_path / "out.xml", self.entries(tmp_path), "camelot", playlist="set")
        root = ElementTree.parse(tmp_path / "out.xml").getroot()  # noqa: S314
        assert [track.get("TrackID") for track in root.iterfind("COLLECTION/TRACK")] == ["1", "2"]
        assert [track.get("Key") for track in root.iterfind("PLAYLISTS/NODE/NODE/TRACK")] == ["1", "2"]
        assert root.find("COLLECTION").attrib == {"Entries": "2"}  # type: ignore[union-attr]

    def test_a_track_that_is_listed_twice_or_linked(self, tmp_path: Path) -> None:
        (tmp_path / "b.mp3").write_bytes(b"")
        (tmp_path / "link.mp3").symlink_to(tmp_path / "b.mp3")
        tracks = "".join(
            f'<TRACK TrackID="{number}" Location="file://localhost{tmp_path.as_posix()}/{name}"/>'
            for number, name in enumerate(("link.mp3", "x/../b.mp3", "B.mp3"))
        )
        (tmp_path / "in.xml").write_text(
            f'<DJ_PLAYLISTS><COLLECTION Entries="3">{tracks}</COLLECTION>'
            '<PLAYLISTS><NODE Type="0"/></PLAYLISTS></DJ_PLAYLISTS>'
        )
        entries = [PlaylistEntry(tmp_path / "b.mp3", Key.parse("C"), TrackInfo())]
        update_rekordbox(tmp_path / "in.xml", tmp_path / "out.xml", entries, "camelot")
        root = ElementTree.parse(tmp_path / "out.xml").getroot()  # noqa: S314
        assert [track.get("Tonality") for track in root.iterfind("COLLECTION/TRACK")] == ["8B", "8B", None]

    def test_the_source_is_never_replaced(self, source: Path, tmp_path: Path) -> None:
        (tmp_path / "link.xml").symlink_to(source)
        for target in (source, tmp_path / "link.xml"):
            with pytest.raises(OutputError, match="choose another name"):
                update_rekordbox(source, target, [], "camelot")

    def test_an_encoding_that_cannot_be_edited_is_refused(self, source: Path, tmp_path: Path) -> None:
        text = source.read_text("utf-8").replace("UTF-8", "UTF-16")
        source.write_bytes(text.encode("utf-16"))
        with pytest.raises(OutputError, match=r"in\.xml: is not in UTF-8"):
            update_rekordbox(source, tmp_path / "out.xml", self.entries(tmp_path), "camelot")
        assert not (tmp_path / "out.xml").exists()

    def test_a_long_tag_is_edited(self, tmp_path: Path) -> None:
        (tmp_path / "in.xml").write_text(
            f'<DJ_PLAYLISTS><COLLECTION Entries="1"><TRACK TrackID="1" Comments="{"x" * 100_000}"'
            f' Location="file://localhost{tmp_path.as_posix()}/a.mp3" Tonality=""/></COLLECTION>'
            '<PLAYLISTS><NODE Type="0"/></PLAYLISTS></DJ_PLAYLISTS>'
        )
        update_rekordbox(tmp_path / "in.xml", tmp_path / "out.xml", self.entries(tmp_path)[1:], "camelot")
        assert 'Tonality="3B"/>' in (tmp_path / "out.xml").read_text()

    def test_keys_and_tempos_of_the_collection_are_kept(self, source: Path, tmp_path: Path) -> None:
        update_rekordbox(source, tmp_path / "out.xml", self.entries(tmp_path), "camelot", bpm=True)
        tracks = rbxml.RekordboxXml(tmp_path / "out.xml").get_tracks()
        assert [track["Tonality"] for track in tracks] == ["Abm", "11A", "8A"]
        assert [track["AverageBpm"] for track in tracks] == [127.98, 125.5, None]

    @pytest.mark.parametrize(("key", "bpm"), [("8A/9A", "about 120"), ("A dorian", "1e999")])
    def test_a_text_that_cannot_be_read_is_kept(self, key: str, bpm: str, source: Path) -> None:
        assert self.texts_of_abm(source, key, bpm) == (key, bpm)

    @pytest.mark.parametrize(("key", "bpm"), [("o", "0.00"), (" ", "")])
    def test_a_text_for_no_key_or_tempo_is_replaced(self, key: str, bpm: str, source: Path) -> None:
        assert self.texts_of_abm(source, key, bpm) == ("1A", "125.50")

    @staticmethod
    def texts_of_abm(source: Path, key: str, bpm: str) -> tuple[str | None, str | None]:
        """The texts that replace two others in a collection, for a track in A flat minor at 125.5 BPM."""
        source.write_text(source.read_text().replace("'Abm'", f"'{key}'").replace('"127.98"', f'"{bpm}"', 1))
        entries = [PlaylistEntry(source.parent / "a.mp3", Key.parse("Abm"), TrackInfo(bpm=125.5))]
        update_rekordbox(source, source.parent / "out.xml", entries, "camelot", bpm=True)
        track = next(ElementTree.parse(source.parent / "out.xml").iter("TRACK"))  # noqa: S314
        return track.get("Tonality"), track.get("AverageBpm")

    def test_a_key_of_the_collection_is_respelled(self, source: Path, tmp_path: Path) -> None:
        entries = [PlaylistEntry(tmp_path / "a.mp3", Key.parse("G#m"), TrackInfo())]
        update_rekordbox(source, tmp_path / "out.xml", entries, "openkey")
        assert b'Tonality = "6m"' in (tmp_path / "out.xml").read_bytes()

    @pytest.mark.parametrize("encoding", ["Shift_JIS", "GB2312", "nonsense"])
    def test_an_encoding_that_cannot_be_read_is_named(self, encoding: str, source: Path, tmp_path: Path) -> None:
        source.write_bytes(source.read_bytes().replace(b'"UTF-8"', f'"{encoding}"'.encode()))
        with pytest.raises(CrateError, match=r"in\.xml: is in an encoding that stone cannot read; export it as UTF-8"):
            update_rekordbox(source, tmp_path / "out.xml", [], "camelot")

    def test_a_location_with_a_null_character(self, source: Path, tmp_path: Path) -> None:
        text = source.read_text("utf-8").replace("localhosttidal:tracks:5", "localhost/a%00b.mp3")
        source.write_text(text, "utf-8")
        update_rekordbox(source, tmp_path / "out.xml", self.entries(tmp_path), "camelot")
        assert "%00" in (tmp_path / "out.xml").read_text("utf-8")

    def test_huge_numbers_are_not_counted_on(self, source: Path, tmp_path: Path) -> None:
        huge = "9" * 5000
        text = source.read_text("utf-8").replace('"12"', f'"{huge}"').replace('Entries="3"', f'Entries="{huge}"')
        source.write_text(text.replace('Count="1">\n      <NODE', f'Count="{huge}">\n      <NODE'), "utf-8")
        entries = [PlaylistEntry(tmp_path / "new.mp3", Key.parse("C"), TrackInfo())]
        update_rekordbox(source, tmp_path / "out.xml", entries, "camelot", playlist="x")
        assert 'TrackID="10"' in (tmp_path / "out.xml").read_text("utf-8")

    def test_a_new_playlist_gets_a_free_name(self, source: Path, tmp_path: Path) -> None:
        names, entries = [], self.entries(tmp_path)
        for number in range(3):
            target = tmp_path / f"{number}.xml"
            names.append(update_rekordbox(source, target, entries, "camelot", playlist="s"))
            source = target
        assert names == ["s (stone)", "s (stone 2)", "s (stone 3)"]
        assert rbxml.RekordboxXml(source).get_playlist("s (stone 2)").get_tracks() == [9, 7]

    def test_the_playlist_keeps_its_own_track_of_a_file(self, source: Path, tmp_path: Path) -> None:
        text = source.read_text("utf-8")
        double = f'<TRACK TrackID="3" Location="file://localhost{tmp_path.as_posix()}/a.mp3"/>'
        source.write_text(text.replace('<TRACK TrackID="7"', f'{double}<TRACK TrackID="7"'), "utf-8")
        entries, numbers = self.entries(tmp_path), []
        for source_playlist in ("S", None):
            target = tmp_path / "out.xml"
            update_rekordbox(source, target, entries, "camelot", playlist="x", source_playlist=source_playlist)
            numbers.append(rbxml.RekordboxXml(target).get_playlist("x").get_tracks())
        assert numbers == [[9, 7], [9, 3]]

    def test_a_track_without_a_number_gets_one(self, source: Path, tmp_path: Path) -> None:
        source.write_bytes(source.read_bytes().replace(b'TRACK TrackID="9"', b"TRACK"))
        update_rekordbox(source, tmp_path / "out.xml", self.entries(tmp_path), "camelot", playlist="x")
        xml = rbxml.RekordboxXml(tmp_path / "out.xml")
        assert xml.get_playlist("x").get_tracks() == [13, 7]
        assert xml.get_track(TrackID=13)["Name"] == "b"
