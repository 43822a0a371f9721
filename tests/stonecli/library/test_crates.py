"""Playlists and rekordbox collections as inputs: what a crate names is found, however it is spelled."""

from __future__ import annotations

import tracemalloc
import unicodedata
from pathlib import Path
from urllib.parse import quote

import pytest

from stonecli.errors import CrateError
from stonecli.library.crates import NO_FILE, file_url_path, read_crate
from stonecli.library.rekordbox import read_collection
from stonecli.library.walk import files_and_music, find_music


@pytest.fixture
def crate(tmp_path: Path) -> Path:
    """A folder of empty files with the names of music."""
    for name in ("a.mp3", "b c.flac", "sub/d.wav", "Ä é.mp3", "100%.mp3"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    return tmp_path


def names_in(crate: Path, data: str | bytes, suffix: str = ".m3u8", playlist_name: str | None = None) -> list[str]:
    """The names of the files found in a crate with this content; errors in parentheses."""
    path = crate / f"crate{suffix}"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    found = list(find_music([path], playlist_name=playlist_name))
    names = [one.location.name if isinstance(one.location, Path) else str(one.location) for one in found]
    return [f"{name}{f' ({one.error})' if one.error else ''}" for name, one in zip(names, found, strict=True)]


class TestPlaylists:
    @pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r"])
    @pytest.mark.parametrize("start", ["", "\ufeff", "#EXTM3U\n", "\ufeff#EXTM3U\n#EXTINF:3,x\n\n"])
    def test_m3u(self, crate: Path, start: str, line_break: str) -> None:
        text = f"{start}b c.flac\n# a comment\n sub/d.wav \n\na.mp3".replace("\n", line_break)
        for suffix in (".m3u", ".m3u8", ".M3U8"):
            assert names_in(crate, text, suffix) == ["b c.flac", "d.wav", "a.mp3"]

    def test_pls(self, crate: Path) -> None:
        text = "[playlist]\r\nFile1=a.mp3\r\nTitle1=b c.flac\r\nLength1=3\r\nfile2 = sub/d.wav\r\nNumberOfEntries=2\r\n"
        assert names_in(crate, text, ".pls") == ["a.mp3", "d.wav"]

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "cp1252", "utf-16"])
    def test_encodings(self, crate: Path, encoding: str) -> None:
        assert names_in(crate, "Ä é.mp3\r\na.mp3\r\n".encode(encoding), ".m3u") == ["Ä é.mp3", "a.mp3"]

    def test_accents_of_macos(self, crate: Path) -> None:
        assert names_in(crate, unicodedata.normalize("NFD", "Ä é.mp3")) == ["Ä é.mp3"]

    def test_spellings_of_a_path(self, crate: Path) -> None:
        sub = (crate / "sub" / "d.wav").as_posix()
        for text in (sub, f"file://{quote(sub)}", f"file://localhost{quote(sub)}", f"file:{sub}", "./sub/d.wav"):
            assert names_in(crate, text) == ["d.wav"], text
        for text in ("sub\\d.wav", ".\\sub\\d.wav", "sub/../sub/d.wav", "sub%2Fd.wav"):
            assert names_in(crate, text) == ["d.wav"], text
        assert names_in(crate, "100%.mp3\nb%20c.flac") == ["100%.mp3", "b c.flac"]

    def test_each_file_is_found_once(self, crate: Path) -> None:
        (crate / "link.mp3").symlink_to(crate / "a.mp3")
        assert names_in(crate, "a.mp3\n./a.mp3\nlink.mp3\nnone.mp3\nnone.mp3\n") == [
            "a.mp3",
            "none.mp3 (no such file or folder (named in crate.m3u8))",
        ]

    def test_entries_that_are_not_files_are_reported(self, crate: Path) -> None:
        (crate / "other.m3u").write_text("a.mp3")
        text = "D:\\Music\\x.mp3\nhttp://radio/x.mp3\nspotify:track:1\nsub\nother.m3u\n\0\nb c.flac"
        found = names_in(crate, text)
        assert found[-1] == "b c.flac"
        assert "x.mp3 (no such file or folder (named in crate.m3u8))" in found[0]
        assert found[1:3] == [
            f"http://radio/x.mp3 ({NO_FILE} (named in crate.m3u8))",
            f"spotify:track:1 ({NO_FILE} (named in crate.m3u8))",
        ]
        assert "a folder or device, not a file" in found[3]
        assert "a playlist in a playlist" in found[4]

    def test_a_playlist_in_a_folder_is_not_read(self, crate: Path) -> None:
        (crate / "sub" / "crate.m3u8").write_text("../a.mp3")
        assert [one.path.name for one in find_music([crate / "sub"])] == ["d.wav"]

    def test_a_crate_and_its_folder_yield_each_file_once(self, crate: Path) -> None:
        (crate / "crate.m3u8").write_text("sub/d.wav\na.mp3")
        names = [one.path.name for one in find_music([crate / "crate.m3u8", crate])]
        assert names[:2] == ["d.wav", "a.mp3"]
        assert len(names) == len(set(names)) == 5

    def test_analyze_keeps_the_order_of_paths_and_crates(self, crate: Path) -> None:
        (crate / "crate.m3u8").write_text("sub/d.wav")
        paths = [crate / "a.mp3", crate / "crate.m3u8", crate / "none.m3u8", crate / "a.mp3"]
        assert [one.path.name for one in files_and_music(paths)] == ["a.mp3", "d.wav", "none.m3u8", "a.mp3"]

    def test_a_huge_line_is_ignored(self, crate: Path) -> None:
        assert names_in(crate, "x" * (1 << 20) + "\na.mp3") == ["a.mp3"]


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file://localhost/Users/dj/a%20b.mp3", "/Users/dj/a b.mp3"),
        ("file:///Users/dj/a%23%3F.mp3", "/Users/dj/a#?.mp3"),
        ("file://localhost/C:/Music/a.mp3", "C:/Music/a.mp3"),
        ("file://nas/music/a.mp3", "//nas/music/a.mp3"),
        ("file://localhosttidal:tracks:5", None),
        ("soundcloud:tracks:5", None),
    ],
)
def test_paths_in_urls(url: str, path: str | None) -> None:
    found = file_url_path(url)
    assert (None if found is None else found.as_posix()) == path


def xml(
    crate: Path, tracks: str = "", playlists: str = "", head: str = '<?xml version="1.0" encoding="UTF-8"?>\n'
) -> str:
    names = ("a.mp3", "b c.flac", "sub/d.wav")
    listed = "".join(
        f'<TRACK TrackID="{number}" Name="x" Location="file://localhost{quote((crate / name).as_posix())}"/>\n'
        for number, name in enumerate(names, 1)
    )
    return (
        f'{head}<DJ_PLAYLISTS Version="1.0.0"><PRODUCT Name="rekordbox"/><COLLECTION Entries="3">\n{listed}{tracks}'
        f'</COLLECTION><PLAYLISTS><NODE Type="0" Name="ROOT" Count="1">{playlists}</NODE></PLAYLISTS></DJ_PLAYLISTS>'
    )


PLAYLISTS = """
<NODE Name="Clubs" Type="0" Count="2">
  <NODE Name="Saturday" Type="1" KeyType="0" Entries="3"><TRACK Key="3"/><TRACK Key="1"/><TRACK Key="9"/></NODE>
  <NODE Name="Sunday" Type="1" KeyType="0" Entries="1"><TRACK Key="2"/></NODE>
</NODE>
<NODE Name="Bars" Type="0" Count="1"><NODE Name="Sunday" Type="1" KeyType="0" Entries="0"/></NODE>
"""


class TestCollections:
    def test_the_whole_collection(self, crate: Path) -> None:
        assert names_in(crate, xml(crate), ".xml") == ["a.mp3", "b c.flac", "d.wav"]

    @pytest.mark.parametrize("name", ["Saturday", "saturday", "Clubs/Saturday"])
    def test_one_playlist_in_its_order(self, crate: Path, name: str) -> None:
        missing = "9 (a track without a file in the collection (named in crate.xml))"
        assert names_in(crate, xml(crate, playlists=PLAYLISTS), ".xml", name) == ["d.wav", "a.mp3", missing]

    def test_a_playlist_by_locations(self, crate: Path) -> None:
        key = f"file://localhost{quote((crate / 'b c.flac').as_posix())}"
        node = f'<NODE Name="x" Type="1" KeyType="1" Entries="1"><TRACK Key="{key}"/></NODE>'
        assert names_in(crate, xml(crate, playlists=node), ".xml", "x") == ["b c.flac"]

    def test_a_name_that_is_not_clear(self, crate: Path) -> None:
        text = xml(crate, playlists=PLAYLISTS)
        assert names_in(crate, text, ".xml", "Monday") == [
            "crate.xml (no playlist is named Monday; choose one of Clubs/Saturday, Clubs/Sunday, Bars/Sunday)"
        ]
        assert names_in(crate, text, ".xml", "Sunday") == [
            "crate.xml (2 playlists are named Sunday; choose one of Clubs/Sunday, Bars/Sunday)"
        ]
        assert names_in(crate, text, ".xml", "Clubs/Sunday") == ["b c.flac"]

    def test_the_exact_spelling_of_a_name_counts(self, crate: Path) -> None:
        nodes = "".join(
            f'<NODE Name="{name}" Type="1" KeyType="0" Entries="1"><TRACK Key="{key}"/></NODE>'
            for key, name in enumerate(("P", "p"), 1)
        )
        text = xml(crate, playlists=f'<NODE Name="Bars" Type="0" Count="2">{nodes}</NODE>')
        assert names_in(crate, text, ".xml", "P") == ["a.mp3"]
        assert names_in(crate, text, ".xml", "p") == ["b c.flac"]
        assert names_in(crate, text, ".xml", "Bars/p") == ["b c.flac"]

    def test_tracks_of_online_services_are_named(self, crate: Path) -> None:
        tracks = '<TRACK TrackID="4" Location="file://localhosttidal:tracks:5"/>'
        found = names_in(crate, xml(crate, tracks), ".xml")
        assert found[-1] == f"file://localhosttidal:tracks:5 ({NO_FILE} (named in crate.xml))"

    def test_other_encodings(self, crate: Path) -> None:
        tracks = f'<TRACK TrackID="4" Name="é" Location="file://localhost{crate.as_posix()}/Ä é.mp3"/>'
        for name in ("UTF-8", "ISO-8859-1", "UTF-16"):
            data = xml(crate, tracks, head=f'<?xml version="1.0" encoding="{name}"?>').encode(name)
            assert names_in(crate, data, ".xml")[-1] == "Ä é.mp3"


class TestHostileXml:
    @pytest.mark.parametrize(
        "doctype",
        [
            '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>',
            '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>',
            '<!DOCTYPE x SYSTEM "http://127.0.0.1:9/x.dtd">',
        ],
    )
    def test_entities_are_refused(self, crate: Path, doctype: str) -> None:
        (found,) = names_in(crate, xml(crate, '<TRACK TrackID="4" Location="&b;"/>', head=doctype), ".xml")
        assert "has a document type declaration" in found

    @pytest.mark.parametrize(
        ("data", "error"),
        [
            (b"", "no element found"),
            (b"no xml", "line 1: syntax error"),
            (b"<plist/>", "not a rekordbox XML: its first element is plist"),
            (b"<DJ_PLAYLISTS><COLLECTION>", "line 1: no element found"),
            (b"<DJ_PLAYLISTS>" * 200, "nested too deeply"),
            (b'<DJ_PLAYLISTS x="' + b"x" * (9 << 20), "an element is too long"),
            (b"<DJ_PLAYLISTS>\0</DJ_PLAYLISTS>", "not well-formed"),
        ],
    )
    def test_damaged_files_are_one_error(self, crate: Path, data: bytes, error: str) -> None:
        (found,) = names_in(crate, data, ".xml")
        assert found.startswith("crate.xml (")
        assert error in found

    def test_memory_depends_on_the_tracks_only(self, tmp_path: Path) -> None:
        path = tmp_path / "large.xml"
        with path.open("w") as file:  # 10,000 tracks with 10 cues each, 10 MB
            file.write('<DJ_PLAYLISTS Version="1.0.0"><COLLECTION Entries="10000">\n')
            cues = '<POSITION_MARK Name="" Type="0" Start="0.089" Num="-1"/>\n' * 10
            for number in range(10_000):
                name = f"file://localhost/music/{number}.mp3"
                file.write(f'<TRACK TrackID="{number}" Comments="{"x" * 400}" Location="{name}">{cues}</TRACK>\n')
            file.write("</COLLECTION></DJ_PLAYLISTS>\n")
        tracemalloc.start()
        found = read_collection(path)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(found.tracks) == 10_000
        assert used < 10 << 20  # so 50,000 tracks take less than 50 MB, whatever else is in the file


def test_errors_are_raised_to_python(crate: Path) -> None:
    (crate / "crate.xml").write_text(xml(crate))
    with pytest.raises(CrateError, match="it has none"):
        list(read_crate(crate / "crate.xml", "Saturday"))
