import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote_to_bytes

import m3u8
import pytest

from stonecli.output.playlist import PlaylistEntry, save_playlist
from stonecli.tags.track_info import TrackInfo

EVIL = [
    "plain.mp3",
    "Ünïcödé – 曲 🎵.mp3",
    "#EXTINF:1,not a comment.mp3",
    "a,b;c&d%20e?f.mp3",
    "new\nline.mp3",
    "carriage\r#EXTM3U.mp3",
    " spaces .mp3",
    "ends in a space ",
    "line\u2028separator.mp3",
    "bytes\udcff.mp3",
    "file:..mp3",
]


def entry(path: Path, title: str = "", artist: str = "", seconds: float | None = 61.6) -> PlaylistEntry:
    return PlaylistEntry(path, None, TrackInfo(title=title, artist=artist), seconds)


def reached(line: str, folder: Path) -> bytes:
    """The file that a player opens for this line."""
    if line.startswith("file://"):
        return unquote_to_bytes(line.removeprefix("file://"))
    return os.fsencode(os.path.normpath(folder / line))


def test_an_independent_reader_finds_every_file(tmp_path: Path) -> None:
    folder = tmp_path / "lists"
    folder.mkdir()
    paths = [tmp_path / "music" / name for name in EVIL]
    save_playlist(folder / "a.m3u8", [entry(path) for path in paths])
    loaded = m3u8.loads((folder / "a.m3u8").read_text(encoding="utf-8"))
    assert [reached(segment.uri, folder) for segment in loaded.segments] == [os.fsencode(path) for path in paths]
    assert {segment.duration for segment in loaded.segments} == {62.0}


def test_the_lines_of_a_common_file(tmp_path: Path) -> None:
    save_playlist(tmp_path / "a.m3u8", [entry(tmp_path / "x" / "Ä.mp3", "Song, one", "Me"), entry(Path("/b.mp3"))])
    up = "../" * len(tmp_path.resolve().parts[1:])
    assert (tmp_path / "a.m3u8").read_bytes().decode() == (
        f"#EXTM3U\n#EXTINF:62,Me - Song, one\nx/Ä.mp3\n#EXTINF:62,b\n{up}b.mp3\n"
    )


def test_titles_are_data(tmp_path: Path) -> None:
    save_playlist(tmp_path / "a.m3u8", [entry(tmp_path / "a.mp3", "x\n/etc/passwd\r\n#EXT\x1b[31m", "\udcff", None)])
    lines = (tmp_path / "a.m3u8").read_text(encoding="utf-8").split("\n")
    assert lines == ["#EXTM3U", "#EXTINF:-1,? - x /etc/passwd  #EXT [31m", "a.mp3", ""]


def test_names_that_begin_like_a_comment(tmp_path: Path) -> None:
    save_playlist(tmp_path / "a.m3u8", [entry(tmp_path / "#1.mp3")])
    assert (tmp_path / "a.m3u8").read_text().splitlines()[2] == "./#1.mp3"


def test_a_linked_folder(tmp_path: Path) -> None:
    real = tmp_path / "deep" / "down"
    real.mkdir(parents=True)
    (tmp_path / "link").symlink_to(real)
    (tmp_path / "a.mp3").touch()
    save_playlist(tmp_path / "link" / "a.m3u8", [entry(tmp_path / "a.mp3"), entry(tmp_path / "link" / "b.mp3")])
    assert (real / "a.m3u8").read_text().splitlines()[2::2] == ["../../a.mp3", "b.mp3"]


def test_a_failure_keeps_the_old_playlist(tmp_path: Path) -> None:
    target = tmp_path / "a.m3u8"
    target.write_text("old")

    def entries() -> Iterator[PlaylistEntry]:
        yield entry(tmp_path / "a.mp3")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_playlist(target, entries())
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
