import errno
import itertools
import os
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stonecli.library import walk as library
from stonecli.library.walk import MUSIC_SUFFIXES, Finding, files_and_music, find_music, natural_key

posix = pytest.mark.skipif(os.name == "nt", reason="needs links, pipes or byte names")


def touch(*paths: Path) -> None:
    """Makes files, and the folders they are in."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def found(*paths: Path) -> list[Path]:
    """The files found, where no error is expected."""
    findings = list(find_music(paths))
    assert [finding for finding in findings if finding.error is not None] == []
    return [finding.path for finding in findings]


def names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in found(folder)]


def test_folders_are_searched_in_depth_for_music_files_only(tmp_path: Path) -> None:
    for name in ("b.mp3", "a.FLAC", "cover.jpg", "mp3", "x.mp3.part", "d/e/f/deep.m4a", "c/.x"):
        touch(tmp_path / name)
    assert names(tmp_path) == ["a.FLAC", "b.mp3", "d/e/f/deep.m4a"]


def test_suffixes_are_lower_case_and_include_requested_ones() -> None:
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in MUSIC_SUFFIXES)
    assert {".mp3", ".flac", ".m4a", ".wav", ".aiff", ".aif", ".aac", ".ogg", ".opus", ".wma"} <= MUSIC_SUFFIXES
    assert {".alac", ".ape", ".wv", ".mp4"} <= MUSIC_SUFFIXES
    assert not {"", ".jpg", ".cue", ".m3u", ".txt", ".pdf"} & MUSIC_SUFFIXES


def test_a_named_file_needs_no_music_suffix(tmp_path: Path) -> None:
    touch(tmp_path / "song.xyz", tmp_path / ".hidden")
    assert found(tmp_path / ".hidden", tmp_path / "song.xyz") == [tmp_path / ".hidden", tmp_path / "song.xyz"]
    assert found(tmp_path) == []


def test_no_paths_and_empty_folders_find_nothing(tmp_path: Path) -> None:
    assert found() == []
    assert found(tmp_path) == []


def test_relative_paths_stay_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "a" / "b.mp3")
    monkeypatch.chdir(tmp_path)
    assert found(Path()) == [Path("a/b.mp3")]


def test_files_precede_folders_in_natural_order(tmp_path: Path) -> None:
    order = ["Track 1.mp3", "track 2.mp3", "TRACK 10.mp3", "Zoo.mp3", "cd 2/x.mp3", "CD 9/x.mp3", "cd 10/x.mp3"]
    touch(*(tmp_path / name for name in reversed(order)))
    assert names(tmp_path) == order


def test_hidden_and_system_entries_are_passed_over_unless_named(tmp_path: Path) -> None:
    skipped = [".hidden/a.mp3", "._song.mp3", ".song.mp3.stone-tmp.mp3", "__MACOSX/a.mp3", "$Recycle.Bin/a.mp3"]
    skipped += [
        "System Volume Information/a.mp3",
        "lost+found/a.mp3",
        ".Trashes/a.mp3",
        "@eaDir/a.mp3",
        "deeper/.b/c/a.mp3",
        "deeper/#RECYCLE/a.mp3",
        "#recycle/a.mp3",
    ]
    touch(tmp_path / "song.mp3", *(tmp_path / name for name in skipped))
    assert names(tmp_path) == ["song.mp3"]
    for name in skipped:
        if "/" in name:
            assert found((tmp_path / name).parent) == [tmp_path / name]


def test_windows_hidden_attribute_is_respected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def entry(attributes: int) -> Any:
        status = SimpleNamespace(st_file_attributes=attributes)
        return SimpleNamespace(name="a.mp3", stat=lambda *, follow_symlinks: status)

    monkeypatch.setattr(library, "_HAS_FILE_ATTRIBUTES", True)
    assert library._is_hidden(entry(stat.FILE_ATTRIBUTE_HIDDEN | stat.FILE_ATTRIBUTE_ARCHIVE))
    assert not library._is_hidden(entry(stat.FILE_ATTRIBUTE_ARCHIVE))


def test_a_file_named_twice_or_with_its_folder_is_found_once(tmp_path: Path) -> None:
    song, other = tmp_path / "a" / "song.mp3", tmp_path / "a" / "other.mp3"
    touch(song, other)
    assert found(song, song, tmp_path / "a" / ".." / "a" / "song.mp3") == [song]
    assert found(song, tmp_path) == [song, other]
    assert found(tmp_path, song, tmp_path / "a") == [other, song]


@posix
def test_links_are_followed_and_each_file_comes_once(tmp_path: Path) -> None:
    touch(tmp_path / "store" / "one.mp3", tmp_path / "store" / "two.mp3")
    music = tmp_path / "music"
    music.mkdir()
    (music / "1.mp3").symlink_to(tmp_path / "store" / "one.mp3")
    (music / "2.mp3").symlink_to(music / "1.mp3")
    (music / "folder").symlink_to(tmp_path / "store", target_is_directory=True)
    (music / "folder again").symlink_to(tmp_path / "store", target_is_directory=True)
    assert names(music) == ["1.mp3", "folder/two.mp3"]


@posix
def test_links_in_circles_end(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "b" / "song.mp3")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a", target_is_directory=True)
    (tmp_path / "a" / "self").symlink_to(".", target_is_directory=True)
    assert names(tmp_path) == ["a/b/song.mp3"]


@posix
def test_hard_links_are_one_file(tmp_path: Path) -> None:
    touch(tmp_path / "a.mp3")
    os.link(tmp_path / "a.mp3", tmp_path / "b.mp3")
    assert names(tmp_path) == ["a.mp3"]


def test_inodes_that_are_zero_or_not_unique_leave_no_file_out(tmp_path: Path) -> None:
    def status(inode: int, size: int) -> os.stat_result:
        return os.stat_result((stat.S_IFREG, inode, 1, 1, 0, 0, size, 0, 0, 0))

    seen: set[int | str] = set()
    assert library._is_new(tmp_path / "a.mp3", status(0, 5), seen)
    assert library._is_new(tmp_path / "b.mp3", status(0, 5), seen)
    assert not library._is_new(tmp_path / "x" / ".." / "a.mp3", status(0, 5), seen)
    assert library._is_new(tmp_path / "c.mp3", status(7, 5), seen)
    assert library._is_new(tmp_path / "d.mp3", status(7, 6), seen)
    assert not library._is_new(tmp_path / "c2.mp3", status(7, 5), seen)


@posix
def test_broken_links_with_the_name_of_music_are_errors(tmp_path: Path) -> None:
    touch(tmp_path / "song.mp3")
    for name in ("gone.mp3", "USB", "Vol. 2", "cover.jpg", ".hidden.mp3"):
        (tmp_path / name).symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.mp3").symlink_to(tmp_path / "loop.mp3")
    findings = {finding.path.name: finding.error for finding in find_music([tmp_path, tmp_path / "cover.jpg"])}
    assert findings.pop("loop.mp3") is not None
    broken = "broken link"
    assert findings == {"song.mp3": None, "gone.mp3": broken, "USB": broken, "Vol. 2": broken, "cover.jpg": broken}


def test_a_missing_path_is_an_error_and_the_walk_goes_on(tmp_path: Path) -> None:
    touch(tmp_path / "song.mp3")
    paths = [tmp_path / "none.mp3", Path("a\0b"), tmp_path]
    assert list(find_music(paths)) == [
        Finding(tmp_path / "none.mp3", "no such file or folder"),
        Finding(Path("a\0b"), "not a valid file name"),
        Finding(tmp_path / "song.mp3", None),
    ]


@posix
def test_pipes_and_sockets_are_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp3")  # opening it would block for ever
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(tmp_path)  # socket paths are limited to about 100 bytes
        try:
            server.bind("socket.mp3")
        finally:
            os.chdir(here)
        (tmp_path / "link.mp3").symlink_to("pipe.mp3")
        assert found(tmp_path) == []
        specials = [tmp_path / "pipe.mp3", tmp_path / "socket.mp3", tmp_path / "link.mp3", Path(os.devnull)]
        assert {finding.error for finding in find_music(specials)} == {
            "not a regular file but a pipe, socket or device"
        }


def test_unreadable_and_deleted_folders_do_not_stop_the_walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(*(tmp_path / name / "song.mp3" for name in ("1 fine", "2 locked", "3 breaks", "4 vanishes", "5 fine")))
    scandir = os.scandir

    class Breaking:
        """A listing that fails after its first entry, as on a network drive that goes away."""

        def __init__(self, path: Path) -> None:
            self.entries = scandir(path)

        def __enter__(self) -> Iterator[os.DirEntry[str]]:
            return self.listing()

        def __exit__(self, *_: object) -> None:
            self.entries.close()

        def listing(self) -> Iterator[os.DirEntry[str]]:
            yield next(self.entries)
            raise OSError(errno.EIO, "Input/output error")

    def failing(path: Path) -> Any:
        if path.name == "2 locked":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return Breaking(path) if path.name == "3 breaks" else scandir(path)

    monkeypatch.setattr(os, "scandir", failing)
    findings = []
    for finding in find_music([tmp_path]):
        findings.append((finding.path.relative_to(tmp_path).as_posix(), finding.error))
        if len(findings) == 1:
            (tmp_path / "4 vanishes" / "song.mp3").unlink()
            (tmp_path / "4 vanishes").rmdir()
    assert findings == [
        ("1 fine/song.mp3", None),
        ("2 locked", "permission denied"),
        ("3 breaks", "input/output error"),
        ("3 breaks/song.mp3", None),
        ("4 vanishes", "no such file or folder"),
        ("5 fine/song.mp3", None),
    ]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_permission_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0)
    try:
        assert list(find_music([tmp_path])) == [Finding(tmp_path / "locked", "permission denied")]
    finally:
        (tmp_path / "locked").chmod(0o700)


def test_a_file_that_vanishes_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path / "a.mp3", tmp_path / "b.mp3")
    findings = find_music([tmp_path])
    assert next(findings).error is None
    (tmp_path / "b.mp3").unlink()
    assert list(findings) == [Finding(tmp_path / "b.mp3", "no such file or folder")]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_not_utf8_are_found(tmp_path: Path) -> None:
    name = b"\xffZa\xbf\xf3\xb3\xe6 2.MP3"
    (tmp_path / os.fsdecode(name)).write_bytes(b"x")
    touch(tmp_path / "Zażółć.mp3")
    assert [os.fsencode(path.name) for path in found(tmp_path)] == ["Zażółć.mp3".encode(), name]


def test_the_walk_is_lazy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(*(tmp_path / str(number) / "song.mp3" for number in range(5)))
    opened: list[str] = []
    scandir = os.scandir

    def counting(path: Path) -> Any:
        opened.append(path.name)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counting)
    endless = itertools.chain([tmp_path], itertools.repeat(tmp_path / "none"))
    findings = find_music(endless)
    assert opened == []
    next(findings)
    next(findings)
    assert opened == [tmp_path.name, "0", "1"]


@pytest.mark.skipif(sys.platform != "linux", reason="paths are shorter elsewhere")
def test_a_tree_deeper_than_the_recursion_limit(tmp_path: Path) -> None:
    folders = [tmp_path]
    try:
        for _ in range(sys.getrecursionlimit() + 100):
            folders.append(folders[-1] / "d")
            folders[-1].mkdir()
        touch(folders[-1] / "a.mp3")
        assert found(tmp_path) == [folders[-1] / "a.mp3"]
    finally:  # pytest's own tidying is recursive
        (folders[-1] / "a.mp3").unlink(missing_ok=True)
        for folder in reversed(folders[1:]):
            folder.rmdir()


text = st.text(st.sampled_from("aAbBäéß019٣ .-_\udcff"), max_size=8)


def test_natural_order_by_example() -> None:
    order = ["1", "1a", "01b", "2", "10", "A 2", "a 02 b", "a 10", "Émile", "emily", "Émz", "Z", "Żz"]
    backwards = order[::-1]
    assert sorted(backwards, key=natural_key) == order
    assert natural_key("9" * 5000) < natural_key("1" + "0" * 5000)  # more digits than int() takes


@given(st.lists(text, unique=True), st.randoms())
def test_natural_order_does_not_depend_on_the_order_found(words: list[str], random: Any) -> None:
    shuffled = list(words)
    random.shuffle(shuffled)
    assert sorted(words, key=natural_key) == sorted(shuffled, key=natural_key)


@given(text, st.integers(0, 10**30), st.integers(0, 10**30), st.integers(0, 3), text)
def test_numbers_are_ordered_by_value(before: str, one: int, other: int, zeros: int, after: str) -> None:
    before = before.rstrip("0123456789")
    after = after.lstrip("0123456789")
    padded = f"{before}{'0' * zeros}{one}{after}"
    if one != other:
        assert (natural_key(padded) < natural_key(f"{before}{other}{after}")) == (one < other)


@given(text, text)
def test_the_order_is_without_case_and_total(one: str, other: str) -> None:
    assert natural_key(one.upper())[0] == natural_key(one.lower())[0]
    assert (natural_key(one) == natural_key(other)) == (one == other)


def test_leftovers_of_a_crash_are_reported(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    for name in (".stone-abcd1234.tmp", "below/.stone-abcd1235.tmp", ".stone", "stone-abcd1234.tmp", "a.mp3"):
        (tmp_path / name).touch()
    leftovers: list[Path] = []
    assert [finding.path for finding in find_music([tmp_path], leftovers)] == [tmp_path / "a.mp3"]
    assert leftovers == [tmp_path / ".stone-abcd1234.tmp", tmp_path / "below" / ".stone-abcd1235.tmp"]


@pytest.mark.parametrize("find", [find_music, files_and_music])
def test_playlists_that_stone_cannot_read_are_named(tmp_path: Path, find: Callable[..., Iterator[Finding]]) -> None:
    kinds = {"a.nml": "a Traktor collection or playlist", "b.CRATE": "a Serato crate", "c.xspf": "an XSPF playlist"}
    paths = [tmp_path / name for name in (*kinds, "d.mp3")]
    for path in paths:
        path.write_text("<NML/>")
    errors = [found.error for found in find(paths)]
    assert errors == [
        *(f"{kind}, which stone does not read; export an M3U8 playlist instead" for kind in kinds.values()),
        None,
    ]
