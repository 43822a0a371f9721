"""Packages of game music with more than plain recordings; nothing is downloaded."""

import struct
import subprocess
import sys
import zipfile
from contextlib import nullcontext
from pathlib import Path

import imageio_ffmpeg
import pytest
import soundfile

pytest.importorskip("torch")

from stonecli_train.corpus.game_music import (
    MAX_FAILURES,
    FetchError,
    _is_music,
    _rendered,
    _unpack_music,
    fetch_all,
    main,
)


def tracker_module() -> bytes:
    """A ProTracker module of one pattern (7.7 s) in which one short, looped sample sounds."""
    samples = struct.pack(">22sHBBHH", b"square", 16, 0, 64, 0, 16) + 30 * struct.pack(">22sHBBHH", b"", 0, 0, 0, 0, 1)
    order = bytes([1, 127, *[0] * 128])
    note = struct.pack(">HH", 428, 0x1000)  # C-2 of the first sample
    pattern = b"".join(note + bytes(12) if row % 8 == 0 else bytes(16) for row in range(64))
    return b"made for a test".ljust(20, b"\0") + samples + order + b"M.K." + pattern + bytes([100] * 16 + [156] * 16)


def test_a_tracker_module_is_played(tmp_path: Path) -> None:
    demuxers = subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-demuxers"], capture_output=True, check=False).stdout
    if b"libopenmpt" not in demuxers:
        pytest.skip("this ffmpeg plays no tracker modules")
    module = tmp_path / "song.mod"
    module.write_bytes(tracker_module())
    out = _rendered(module)
    assert out == tmp_path / "song.mod.ogg"
    samples, rate = soundfile.read(out)
    assert 7.0 < len(samples) / rate < 9.0
    assert abs(samples).max() > 0.05
    assert not _is_music(out)  # shorter than music is


def test_a_file_that_is_not_a_module_stays_unchanged(tmp_path: Path) -> None:
    module = tmp_path / "song.mod"
    module.write_bytes(b"module example.org/game\n\ngo 1.22\n")
    assert _rendered(module) == module


def test_music_in_a_zip_is_unpacked_next_to_it(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "public.zip", "w") as archive:
        archive.writestr("audio/music/one.ogg", b"one")
        archive.writestr("../../outside/two.ogg", b"two")
        archive.writestr("art/picture.png", b"no music")
    _unpack_music(tmp_path / "public.zip")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix == ".ogg"} == {
        "0_one.ogg": b"one",
        "1_two.ogg": b"two",
    }
    assert not (tmp_path.parent / "outside").exists()


def test_a_damaged_zip_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04 and no more")
    _unpack_music(tmp_path / "broken.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["broken.zip"]


def test_without_apt_the_command_fails_immediately(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main([str(tmp_path / "games")]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "apt-get and dpkg-deb not found (Debian or Ubuntu); use music of your own"
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="programs of POSIX")
def test_without_a_network_it_gives_up_after_a_few_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("apt-get", "dpkg-deb"):
        (tmp_path / name).write_text('#!/bin/sh\necho "E: Unable to locate package $2" >&2\nexit 100\n')
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main([str(tmp_path / "games")]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == MAX_FAILURES
    (line,) = err.splitlines()
    assert line.startswith(f"{MAX_FAILURES} packages in a row cannot be downloaded (Unable to locate package ")
    assert line.endswith("run apt-get update, or check the network; then run the same command again to resume")


@pytest.mark.skipif(sys.platform == "win32", reason="programs of POSIX")
@pytest.mark.parametrize(
    ("message", "is_error"), [("Failed to fetch", True), ("Unable to locate package", False)], ids=str
)
def test_a_network_that_fails_later_is_an_error_too(
    message: str, is_error: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise, a model would be trained on the few packages that came before; a release may lack some of them."""
    for name in ("apt-get", "dpkg-deb"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "E: {message} $2" >&2\nexit 100\n')
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    games = tmp_path / "games"
    (games / "first").mkdir(parents=True)
    (games / ".fetch-1234").mkdir()
    reported: list[str] = []
    expected = pytest.raises(FetchError, match=f"^{MAX_FAILURES} packages in a row cannot be downloaded")
    with expected if is_error else nullcontext():
        fetch_all(games, ["first", *(f"package-{number}" for number in range(2 * MAX_FAILURES))], reported.append)
    assert len(reported) == 1 + (MAX_FAILURES if is_error else 2 * MAX_FAILURES)
    assert [path.name for path in games.iterdir()] == ["first"]  # a killed process left the other folder
