import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from mutagen.flac import FLAC
from typer.testing import Result

from stonecli.tags.track_info import read_info
from tests.fixture_types import MakeMusic

Invoke = Callable[..., Result]
Song = Callable[..., Path]
HEADER = "\t".join(("file", "key", "bpm", "tuning", "move", "cost", "first", "last"))


@pytest.fixture
def crate(song: Song) -> Path:
    """Tracks with keys and tempos in their tags; nothing in it has to be analyzed."""
    tracks = {"a": ("8A", "124"), "b": ("10A", "126"), "c": ("9A", "125"), "d": ("2B", "124"), "e": ("8B", "")}
    for name, (key, bpm) in tracks.items():
        path = song("flac", name)
        file = FLAC(path)
        file["initialkey"], file["bpm"] = key, bpm
        file.save()
    return path.parent


def names(result: Result) -> list[str]:
    return [Path(line.split("\t")[0]).stem for line in result.stdout.splitlines()[1:]]


def test_the_order(invoke: Invoke, crate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stonecli.tagging.tagger.Tagger.__call__", lambda *_: pytest.fail("every key is in the tags"))
    result = invoke("mix", crate, "--start", crate / "e.flac")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines()[0] == HEADER
    assert names(result) == ["e", "a", "c", "b", "d"]
    assert result.stdout.splitlines()[2].split("\t")[1:] == ["8A", "124", "", "relative", "1.0", "8A", "8A"]
    backwards = invoke("mix", crate, "--end", crate / "e.flac")
    assert names(backwards)[-1] == "e"


def test_json(invoke: Invoke, crate: Path) -> None:
    (crate / "bad.flac").write_text("text")
    result = invoke("mix", crate, "--json")
    assert result.exit_code == 1
    record = json.loads(result.stdout)
    assert list(record) == ["tracks", "cost", "bound", "gap", "left_out"]
    assert len(record["tracks"]) == 5
    assert record["tracks"][0]["move"] is None
    assert record["tracks"][1].keys() == {
        *("path", "key", "key_from", "first_key", "last_key", "bpm", "tuning_cents"),
        *("move", "cost", "key_cost", "tuning_cost", "tempo_cost"),
    }
    assert record["cost"] == pytest.approx(sum(track["cost"] or 0 for track in record["tracks"]), abs=0.05)
    assert record["bound"] <= record["cost"]
    assert [Path(left["path"]).name for left in record["left_out"]] == ["bad.flac"]


def test_the_tracks_that_mix_with_one_track(invoke: Invoke, crate: Path) -> None:
    result = invoke("mix", crate, "--compatible", crate / "a.flac")
    assert result.exit_code == 0
    assert names(result) == ["a", "e", "c", "b"]  # the track, then the best first; d clashes
    record = json.loads(invoke("mix", crate, "--compatible", crate / "a.flac", "--json").stdout)
    assert [track["move"] for track in record["compatible"]] == ["relative", "one up", "energy boost"]
    assert Path(record["track"]["path"]).name == "a.flac"


def test_the_playlist_and_the_collection(invoke: Invoke, crate: Path, tmp_path: Path) -> None:
    files = ["--playlist", tmp_path / "set.m3u8", "--rekordbox", tmp_path / "set.xml"]
    result = invoke("mix", crate, "--start", crate / "e.flac", *files)
    assert result.exit_code == 0
    lines = (tmp_path / "set.m3u8").read_text().splitlines()
    assert lines[2::2] == [f"music/{name}.flac" for name in "eacbd"]
    text = (tmp_path / "set.xml").read_text()
    assert 'Tonality="8B"' in text
    assert '<NODE Name="set" Type="1"' in text


def test_a_file_without_a_key_is_analyzed_and_cached(
    invoke: Invoke, song: Song, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, silent = song("mp3"), tmp_path / "silent.wav"
    soundfile.write(silent, [0.0] * 44100, 22050)
    first = invoke("mix", path, silent, "--json")
    record = json.loads(first.stdout)
    assert [(track["key"]["camelot"], track["key_from"]) for track in record["tracks"]] == [("7A", "detected")]
    assert record["tracks"][0]["tuning_cents"] == pytest.approx(0, abs=3)
    assert first.stderr == f"{silent}: no key detected; not in the mix\n"
    assert record["left_out"] == [{"path": str(silent), "error": None}]
    monkeypatch.setattr("stonecli.tagging.tagger.detect_key", lambda *_, **__: pytest.fail("it is in the cache"))
    assert invoke("mix", path, silent).exit_code == 0


def test_the_first_and_the_last_detected_key_are_used(invoke: Invoke, music: MakeMusic, tmp_path: Path) -> None:
    path = tmp_path / "changes.flac"
    soundfile.write(path, np.concatenate([music("C major", seconds=60), music("F# major", seconds=60)]), 22050)
    (track,) = json.loads(invoke("mix", path, "--json").stdout)["tracks"]
    assert [track[name]["musical"] for name in ("first_key", "last_key")] == ["C", "F#"]
    assert invoke("mix", path).stdout.splitlines()[1].split("\t")[-2:] == ["8B", "2B"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--start", "none.mp3"], "--start none.mp3: no such file, and none with this name"),
        (["--playlist", "a.mp3"], "must end in .m3u8 or .m3u"),
        (["--rekordbox", "a.csv"], "must end in .xml"),
        (["--playlist", "none/a.m3u8"], "no such folder"),
        (["--compatible", "{a}", "--start", "{a}"], "cannot be combined with --start, --end"),
        (["--start", "{a}", "--end", "{a}"], "the same"),
    ],
)
def test_wrong_usage(invoke: Invoke, crate: Path, arguments: list[str], message: str) -> None:
    filled = [text.format(a=crate / "a.flac") for text in arguments]
    result = invoke("mix", crate, *filled)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())


class TestNamesOfTracks:
    """``--start``, ``--end`` and ``--compatible`` take the name of one of the files, wherever stone is started."""

    @pytest.mark.parametrize("name", ["e.flac", "e", "music/e.flac", "music/e"])
    def test_a_name_is_looked_up_among_the_files(self, invoke: Invoke, crate: Path, name: str) -> None:
        assert names(invoke("mix", crate, "--start", name))[0] == "e"
        assert names(invoke("mix", crate, "--start", name.upper()))[0] == "e"
        assert names(invoke("mix", crate, "--end", name))[-1] == "e"
        assert names(invoke("mix", crate, "--compatible", name))[0] == "e"

    def test_a_path_comes_first(
        self, invoke: Invoke, crate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = tmp_path / "elsewhere" / "e.flac"
        other.parent.mkdir()
        (crate / "e.flac").rename(other)
        (crate / "a.flac").rename(crate / "e.flac")
        monkeypatch.chdir(other.parent)
        result = invoke("mix", crate, "--start", "e.flac", "--json")
        assert json.loads(result.stdout)["tracks"][0]["path"] == "e.flac"

    def test_a_name_that_several_files_have_is_not_guessed(self, invoke: Invoke, crate: Path) -> None:
        (crate / "live").mkdir()
        (crate / "live" / "e.flac").write_bytes((crate / "e.flac").read_bytes())
        result = invoke("mix", crate, "--start", "e.flac")
        assert (result.exit_code, result.stdout) == (2, "")
        assert "--start e.flac: 2 files have this name; choose one: " in result.stderr
        assert str(crate / "live" / "e.flac") in result.stderr
        assert names(invoke("mix", crate, "--start", "live/e.flac"))[0] == "e"

    def test_accents_count_as_they_are_read(self, invoke: Invoke, crate: Path) -> None:
        (crate / "e.flac").rename(crate / "e\u0301.flac")  # as macOS stores it
        assert names(invoke("mix", crate, "--start", "\xe9.flac"))[0] == "e\u0301"


def test_names_and_tags_are_data(invoke: Invoke, song: Song) -> None:
    path = song("flac", "x\n\x1b[31m[red]")
    file = FLAC(path)
    file["initialkey"], file["title"] = "8A", "t\x1b]0;pwn\x07"
    file.save()
    result = invoke("mix", path, song("flac", "y"))
    assert "\x1b" not in result.stdout
    assert len(result.stdout.splitlines()) == 3
    assert read_info(path).title
    assert os.fspath(path) not in result.stdout


def test_a_folder_without_music(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("mix", tmp_path)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"stone: no music files found in {tmp_path}\n")


def test_only_files_without_a_key(invoke: Invoke, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silent.wav", [0.0] * 44100, 22050)
    result = invoke("mix", tmp_path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"{tmp_path / 'silent.wav'}: no key detected; not in the mix\n"
    assert json.loads(invoke("mix", tmp_path, "--json").stdout)["tracks"] == []
