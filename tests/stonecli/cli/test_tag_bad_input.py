"""``stone tag`` on damaged and odd files: a good file beside them is tagged each time."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.testing import Result

from stonecli.detection.detect import detect_key
from stonecli.library import walk as library
from stonecli.library.music_file import MusicFile
from stonecli.library.walk import Finding
from stonecli.remote import storage
from tests.fixture_types import CopySong, Fingerprint, Invoke, MakeMusic, MakeNoise, RunStone, Samples
from tests.stonecli.cli.tag_table import key_in, rows, statuses

RATE = 22050


def write_wav(path: Path, samples: Samples, rate: int = RATE, subtype: str = "PCM_16") -> None:
    soundfile.write(path, samples, rate, subtype=subtype)


def cut(path: Path, share: float = 0.6) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def with_data_size(path: Path, size: int) -> None:
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = size.to_bytes(4, "little")
    path.write_bytes(content)


def beside(invoke: Invoke, song: CopySong, folder: Path) -> Result:
    """Tags the folder, a good song in it, which has to come out well."""
    good = song("flac", "zz good")
    good = good.rename(folder / good.name)
    result = invoke("tag", folder, "--write-tags")
    assert key_in(good) == "7A"
    assert statuses(result)[good.name] == "written"
    assert "Traceback" not in result.output
    return result


def text_file(path: Path, songs: Mapping[str, Path]) -> Path:
    path = path / "letter.mp3"
    path.write_text("Dear Sir or Madam,\n" * 5000)
    return path


def empty_file(path: Path, songs: Mapping[str, Path]) -> Path:
    (path / "empty.mp3").touch()
    return path / "empty.mp3"


def _cut_song(container: str) -> Callable[[Path, Mapping[str, Path]], Path]:
    def make(path: Path, songs: Mapping[str, Path]) -> Path:
        copy = Path(shutil.copy(songs[container], path))
        cut(copy)
        return copy

    return make


def lying_wav(path: Path, songs: Mapping[str, Path]) -> Path:
    copy = Path(shutil.copy(songs["wav 16 bit"], path))
    with_data_size(copy, 100_000_000)
    return copy


def playlist(path: Path, songs: Mapping[str, Path]) -> Path:
    shutil.copy(songs["m4a aac"], path.parent / "secret.m4a")
    (path / "list.m4a").write_text("ffconcat version 1.0\nfile ../secret.m4a\nfile secret.m4a\n")
    return path / "list.m4a"


def zeros(path: Path, songs: Mapping[str, Path]) -> Path:
    (path / "zeros.flac").write_bytes(bytes(200_000))
    return path / "zeros.flac"


def read_only(path: Path, songs: Mapping[str, Path]) -> Path:
    copy = Path(shutil.copy(songs["mp3"], path))
    copy.chmod(0o444)
    return copy


BROKEN = {
    "text": (text_file, "not a music format"),
    "empty": (empty_file, "the file is empty"),
    "truncated mp3": (_cut_song("mp3"), r"truncated \(9.* of 16.* s\); re-rip or re-download it"),
    "truncated flac": (_cut_song("flac"), "truncated"),
    "truncated wav": (_cut_song("wav 16 bit"), "truncated|damaged|ends|end of the file"),
    "truncated aiff": (_cut_song("aiff"), "truncated|damaged|ends|end of the file"),
    "truncated m4a": (_cut_song("m4a aac"), "."),
    "truncated wavpack": (_cut_song("wavpack"), "truncated"),
    "truncated ogg": (_cut_song("ogg vorbis"), "truncated"),
    "truncated opus": (_cut_song("opus"), "truncated"),
    "truncated wma": (_cut_song("wma"), "."),
    "lying wav": (lying_wav, "truncated|ends|chunk"),
    "playlist": (playlist, "not a music format"),
    "zeros": (zeros, "not a music format"),
    "read-only": (read_only, "read-only"),
}


class TestBrokenFiles:
    @pytest.mark.parametrize("kind", BROKEN)
    def test_a_broken_file_gives_one_line_and_is_unchanged(
        self,
        invoke: Invoke,
        song: CopySong,
        songs: Mapping[str, Path],
        folder: Path,
        fingerprint: Fingerprint,
        kind: str,
    ) -> None:
        make, reason = BROKEN[kind]
        path = make(folder, songs)
        before = fingerprint(path)
        result = beside(invoke, song, folder)
        assert result.exit_code == 1
        (line,) = result.stderr.splitlines()
        assert line.startswith(f"{path}: ")
        assert re.search(reason, line.removeprefix(f"{path}: "))
        assert fingerprint(path) == before
        assert path.name not in statuses(result)
        assert sorted(entry.name for entry in folder.iterdir()) == sorted([path.name, "zz good.flac"])

    def test_decoders_print_nothing(self, stone: RunStone, songs: Mapping[str, Path], folder: Path) -> None:
        for name in ("letter.mp3", "cut.mp3", "good.mp3"):
            shutil.copy(songs["mp3"], folder / name)
        (folder / "letter.mp3").write_text("text\n" * 50000)
        cut(folder / "cut.mp3")
        write_wav(folder / "quiet.wav", np.zeros(RATE, dtype=np.float32))
        result = stone("tag", folder)
        assert result.returncode == 1
        assert [line.split(": ")[0] for line in result.stderr.splitlines()] == [
            str(folder / "cut.mp3"),
            str(folder / "letter.mp3"),
        ]
        assert len(result.stdout.splitlines()) == 3


def nan_wav(path: Path, samples: Samples) -> None:
    stereo = np.repeat(samples[:, None], 2, axis=1)
    stereo[5000:5100] = np.nan
    stereo[6000] = np.inf, -np.inf
    write_wav(path, stereo, subtype="FLOAT")


ODD: dict[str, Callable[[Path, MakeMusic], None]] = {
    "8 bit": lambda path, music: write_wav(path, music("Dm"), subtype="PCM_U8"),
    "24 bit": lambda path, music: write_wav(path, music("Dm"), subtype="PCM_24"),
    "float": lambda path, music: write_wav(path, music("Dm") * np.float32(40), subtype="FLOAT"),
    "6 channels": lambda path, music: write_wav(path, np.repeat(music("Dm")[:, None], 6, axis=1)),
    "8 kHz": lambda path, music: write_wav(path, music("Dm", rate=8000), 8000),
    "192 kHz": lambda path, music: write_wav(path, music("Dm", rate=192000), 192000),
    "nan": lambda path, music: nan_wav(path, music("Dm")),
    "3 s": lambda path, music: write_wav(path, music("Dm", seconds=3)),
    "40 cents": lambda path, music: write_wav(path, music("Dm", cents=40)),
    "quiet": lambda path, music: write_wav(path, music("Dm") * np.float32(0.01), subtype="PCM_24"),
}


class TestOddFiles:
    @pytest.mark.parametrize("kind", ODD)
    def test_odd_files_are_tagged(
        self, invoke: Invoke, song: CopySong, folder: Path, music: MakeMusic, kind: str
    ) -> None:
        path = folder / f"{kind}.wav"
        ODD[kind](path, music)
        result = beside(invoke, song, folder)
        assert (result.exit_code, result.stderr) == (0, "")
        assert statuses(result)[path.name] == "written"
        assert key_in(path) == "7A"

    @pytest.mark.parametrize("kind", ["zeros", "dither", "white", "pink", "0.1 s", "short lie"])
    def test_sound_without_a_key_gets_no_key(
        self,
        invoke: Invoke,
        song: CopySong,
        folder: Path,
        music: MakeMusic,
        noise: MakeNoise,
        fingerprint: Fingerprint,
        kind: str,
    ) -> None:
        path = folder / "a.wav"
        kinds: dict[str, Samples] = {
            "zeros": np.zeros(16 * RATE, dtype=np.float32),
            "dither": np.random.default_rng(0).integers(-1, 2, 16 * RATE).astype(np.float32) / np.float32(32768),
            "white": noise(0),
            "pink": noise(1),
            "0.1 s": music("Dm", seconds=0.1),
            "short lie": music("Dm"),
        }
        write_wav(path, kinds[kind])
        if kind == "short lie":
            with_data_size(path, 1000)  # the rest is no audio then
        before = fingerprint(path)
        result = beside(invoke, song, folder)
        assert result.exit_code == 0
        assert [row[1:] for row in rows(result) if row[0] == str(path)] == [["", "", "", "no key"]]
        assert fingerprint(path) == before

    def test_a_pipe_is_not_waited_for(self, invoke: Invoke, song: CopySong, folder: Path) -> None:
        os.mkfifo(folder / "pipe.mp3")
        assert beside(invoke, song, folder).exit_code == 0  # passed over in a folder
        result = invoke("tag", folder / "pipe.mp3", "--write-tags")
        assert result.exit_code == 1
        assert "not a regular file" in result.stderr


class TestVanishingFiles:
    def test_a_folder_that_vanishes(
        self, invoke: Invoke, song: CopySong, songs: Mapping[str, Path], folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (folder / "gone").mkdir()
        for name in ("a.mp3", "b.m4a"):
            shutil.copy(songs["mp3"], folder / "gone" / name)
        walk = library.find_music

        def find_and_lose(paths: Iterable[Path], *rest: Any, **options: Any) -> Iterator[Finding]:
            found = list(walk(paths, *rest, **options))
            shutil.rmtree(folder / "gone", ignore_errors=True)
            return iter(found)

        monkeypatch.setattr(storage, "find_music", find_and_lose)
        result = beside(invoke, song, folder)
        assert result.exit_code == 1
        assert [line.split(": ")[0] for line in result.stderr.splitlines()] == [
            str(folder / "gone" / "a.mp3"),
            str(folder / "gone" / "b.m4a"),
        ]
        assert all("no such file" in line.casefold() for line in result.stderr.splitlines())

    def test_a_file_deleted_during_analysis_is_an_error(
        self, invoke: Invoke, song: CopySong, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = song("mp3")

        def detect_and_delete(music: MusicFile, *arguments: Any, **options: Any) -> Any:
            estimate = detect_key(music, *arguments, **options)
            music.path.unlink()
            return estimate

        monkeypatch.setattr("stonecli.tagging.tagger.detect_key", detect_and_delete)
        result = invoke("tag", path, "--write-tags")
        assert result.exit_code == 1
        assert len(result.stderr.splitlines()) == 1
        assert list(path.parent.iterdir()) == []


class TestPermissions:
    @pytest.mark.skipif(os.name != "posix", reason="permissions")
    def test_no_permission(
        self, stone: RunStone, songs: Mapping[str, Path], folder: Path, fingerprint: Fingerprint
    ) -> None:
        closed, locked, secret = folder / "closed", folder / "locked", folder / "secret.mp3"
        closed.mkdir()
        locked.mkdir()
        for target in (closed / "a.mp3", locked / "b.mp3", secret, folder / "good.mp3"):
            shutil.copy(songs["mp3"], target)
        before = fingerprint(folder)
        secret.chmod(0)
        closed.chmod(0)
        locked.chmod(0o555)
        try:
            result = stone("tag", "--write-tags", folder, weak=True)
        finally:
            closed.chmod(0o755)
            locked.chmod(0o755)
            secret.chmod(0o644)
        assert result.returncode == 1
        assert sorted(line.casefold() for line in result.stderr.splitlines()) == [
            f"{closed}: permission denied",
            f"{locked}/b.mp3: no permission to write in its folder, where stone writes a copy first;"
            " make the folder writable",
            f"{secret}: permission denied",
        ]
        assert key_in(folder / "good.mp3") == "7A"
        after = fingerprint(folder)
        for path in (closed / "a.mp3", locked / "b.mp3", secret):
            assert after[str(path)] == before[str(path)]
        assert sorted(entry.name for entry in locked.iterdir()) == ["b.mp3"]

    @pytest.mark.skipif(os.name != "posix", reason="permissions")
    @pytest.mark.parametrize(
        "command",
        [("convert", "--write-tags", "--notation", "openkey"), ("tag", "--remove", "--write-tags"), ("undo",)],
        ids=lambda command: command[0],
    )
    def test_a_folder_without_permission_is_named(
        self, command: tuple[str, ...], stone: RunStone, songs: Mapping[str, Path], folder: Path
    ) -> None:
        path = folder / "a.mp3"
        shutil.copy(songs["mp3"], path)
        assert stone("tag", "--write-tags", path).returncode == 0
        content = path.read_bytes()
        folder.chmod(0o555)
        try:
            result = stone(*command, *[path] * (command[0] != "undo"), weak=True)
        finally:
            folder.chmod(0o755)
        assert result.returncode == 1
        assert f"{path}: no permission to write in its folder, where stone writes a copy first" in result.stderr
        assert path.read_bytes() == content
