"""A music file that is opened once and passed on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from stonecli.errors import TagError
from stonecli.key import Key
from stonecli.library.music_file import CHANGED_MEANWHILE, opened
from stonecli.tags import KeyTags, read_tags, write_key

Song = Callable[..., Path]
A_MINOR, D_MINOR = Key.parse("Am"), Key.parse("Dm")


class TestOpened:
    def test_an_open_file_is_passed_through(self, song: Song) -> None:
        with opened(song("flac")) as music:
            with opened(music) as same:
                assert same is music
            assert not music.file.closed
        assert music.file.closed

    def test_a_link_is_resolved_once(self, song: Song, tmp_path: Path) -> None:
        link = tmp_path / "link.flac"
        link.symlink_to(song("flac"))
        with opened(link) as music:
            assert music.path == link
            assert music.target == song("flac").resolve()

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
    def test_a_pipe_is_refused_and_does_not_block(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.mp3")
        with pytest.raises(TagError, match="not a file"), opened(tmp_path / "pipe.mp3"):
            pass

    @pytest.mark.parametrize("name", ["missing.mp3", "null\0character"])
    def test_a_missing_file_is_named_so(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(TagError, match="no such file"), opened(tmp_path / name):
            pass


class TestChangesByAnotherProgram:
    """The file is open while another program changes it."""

    @pytest.fixture
    def flac(self, song: Song) -> Path:
        path = song("flac")
        write_key(path, D_MINOR)
        return path

    def test_a_write_in_place_is_read(self, flac: Path) -> None:
        """The buffered part is read again."""
        with opened(flac) as music:
            assert read_tags(music).key == D_MINOR
            music.file.seek(0)
            music.file.read(64)
            with flac.open("r+b") as other:
                other.seek(flac.read_bytes().index(b"7A"))
                other.write(b"8A")
            assert read_tags(music) == KeyTags("flac", "8A", A_MINOR)
            assert music.is_changed()

    def test_nothing_is_written_to_a_file_that_was_written_in_place(self, flac: Path) -> None:
        with opened(flac) as music:
            with flac.open("ab") as other:
                other.write(b"more")
            before = flac.read_bytes()
            with pytest.raises(TagError, match=CHANGED_MEANWHILE):
                write_key(music, A_MINOR)
        assert flac.read_bytes() == before

    @pytest.mark.skipif(os.name != "posix", reason="Windows does not replace an open file")
    @pytest.mark.parametrize("key", [A_MINOR, D_MINOR])
    def test_a_replaced_file_is_an_error(self, flac: Path, song: Song, key: Key) -> None:
        """Even if the old file had the same key: nobody knows what the new one says."""
        with opened(flac) as music:
            other = song("flac", "other")
            before = other.read_bytes()
            other.replace(flac)
            with pytest.raises(TagError, match=CHANGED_MEANWHILE):
                write_key(music, key)
            assert music.is_changed()
        assert flac.read_bytes() == before

    def test_a_deleted_file_counts_as_changed(self, flac: Path) -> None:
        with opened(flac) as music:
            elsewhere = flac.rename(flac.with_name("elsewhere.flac"))
            assert music.is_changed()
            elsewhere.unlink()


def test_after_its_own_write_a_file_counts_as_unchanged(song: Song) -> None:
    with opened(song("flac")) as music:
        assert write_key(music, A_MINOR)
        assert not music.is_changed()
        with opened(music.path) as again:
            assert music.fingerprint == again.fingerprint
