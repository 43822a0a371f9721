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
HEADER = "\t".join(("file", "key", "bpm", "tuning", "move", "cost", "first", "last", "tempo change", "tuning change"))


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
    lines = [line.split("\t")[1:] for line in result.stdout.splitlines()]
    assert lines[2] == ["8A", "124", "", "relative", "1.0", "8A", "8A", "", ""]
    assert lines[3] == ["9A", "125", "", "one up", "1.4", "9A", "9A", "+0.8", ""]
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
        *("move", "cost", "key_cost", "tuning_cost", "tempo_cost", "tempo_change", "tempo_octave", "tuning_change"),
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
    assert invoke("mix", path).stdout.splitlines()[1].split("\t")[6:8] == ["8B", "2B"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--start", "none.mp3"], "--start none.mp3: no such file, and none with this name"),
        (["--playlist", "a.mp3"], "must end in .m3u8 or .m3u"),
        (["--rekordbox", "a.csv"], "must end in .xml"),
        (["--playlist", "none/a.m3u8"], "no such folder"),
        (["--compatible", "{a}", "--start", "{a}"], "cannot be combined with --start, --end"),
        (["--start", "{a}", "--end", "{a}"], "this track already has a position"),
        (["--at", "0=a"], "--at must be a position and a track, such as 15=peak.mp3"),
        (["--at", "2"], "--at must be a position and a track"),
        (["--at", "2=a", "--at", "02=b"], "--at must not name a position twice"),
        (["--at", "2=none"], "--at 2=none: no such file, and none with this name"),
        (["--at", "6=a"], "there are only 5 files"),
        (["--at", "2=a", "--at", "3=a"], "this track already has a position"),
        (["--at", "1=a", "--start", "b"], "another track has this position"),
        (["--compatible", "a", "--at", "2=b"], "cannot be combined with --start, --end, --at"),
        (["--max-tempo-change", "0"], "must be a number from 0.1 to 100"),
        (["--key-weight", "-1"], "must be a number from 0 to 100"),
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

    def test_a_path_takes_precedence_over_a_name(
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


class TestOrder:
    """Positions, weights and the largest change of tempo."""

    def test_tracks_at_their_positions(self, invoke: Invoke, crate: Path) -> None:
        result = invoke("mix", crate, "--at", "3=D", "--at", "1=b.flac")
        assert result.exit_code == 0
        assert (names(result)[0], names(result)[2]) == ("b", "d")
        assert sorted(names(result)) == ["a", "b", "c", "d", "e"]

    def test_weights(self, invoke: Invoke, song: Song) -> None:
        for name, key, bpm in (("a", "8A", "120"), ("key", "8A", "126"), ("tempo", "2A", "120")):
            file = FLAC(song("flac", name))
            file["initialkey"], file["bpm"] = key, bpm
            file.save()
        folder = song("flac", "a").parent
        file = FLAC(folder / "a.flac")
        file["initialkey"], file["bpm"] = "8A", "120"
        file.save()
        assert names(invoke("mix", folder, "--start", "a")) == ["a", "key", "tempo"]
        assert names(invoke("mix", folder, "--start", "a", "--key-weight", "0")) == ["a", "tempo", "key"]
        record = json.loads(invoke("mix", folder, "--start", "a", "--tempo-weight", "2", "--json").stdout)
        assert record["tracks"][1]["tempo_cost"] == pytest.approx(5.0)
        assert record["tracks"][1]["tempo_change"] == pytest.approx(5.0)

    def test_the_largest_change_of_tempo(self, invoke: Invoke, song: Song) -> None:
        tracks = {"a": ("8A", "100"), "b": ("8A", "112"), "c": ("2B", "106")}
        for name, (key, bpm) in tracks.items():
            file = FLAC(song("flac", name))
            file["initialkey"], file["bpm"] = key, bpm
            file.save()
        folder = song("flac", "x").parent
        (folder / "x.flac").unlink()
        assert names(invoke("mix", folder, "--start", "a")) == ["a", "b", "c"]
        limited = invoke("mix", folder, "--start", "a", "--max-tempo-change", "7")
        assert (names(limited), limited.stderr) == (["a", "c", "b"], "")
        impossible = invoke("mix", folder, "--start", "a", "--max-tempo-change", "1")
        assert impossible.stderr == "stone: 2 transitions change the tempo by more than 1 %\n"
        assert impossible.exit_code == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--at", "99=a"], "--at 99=a: there are only 5 files"),
        (["--start", "a", "--end", "a"], "--end a: this track already has a position (start)"),
        (["--start", "a", "--at", "1=b"], "--at 1=b: another track has this position (start)"),
        (["--end", "a", "--at", "5=b"], "--at 5=b: another track has this position (end)"),
        (["--start", "a", "--at", "2=a"], "--at 2=a: this track already has a position (start)"),
        (["--end", "a", "--at", "2=a"], "--at 2=a: this track already has a position (end)"),
        (["--at", "2=a", "--at", "3=a"], "--at 3=a: this track already has a position (at 2)"),
    ],
)
def test_impossible_positions_are_refused_at_once(
    invoke: Invoke, crate: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    monkeypatch.setattr("stonecli.mixing.mix.read_tags", lambda *_: pytest.fail("no file is read"))
    result = invoke("mix", crate, *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"stone: {message.format(a=crate / 'a.flac', b=crate / 'b.flac')}\n"


def test_the_new_playlist_of_a_collection_is_named(invoke: Invoke, crate: Path, tmp_path: Path) -> None:
    (tmp_path / "in.xml").write_text(
        '<DJ_PLAYLISTS><COLLECTION Entries="0"/><PLAYLISTS><NODE Type="0" Name="ROOT" Count="1">'
        '<NODE Name="Saturday" Type="1" KeyType="0" Entries="0"/></NODE></PLAYLISTS></DJ_PLAYLISTS>'
    )
    result = invoke("mix", tmp_path / "in.xml", crate, "--rekordbox", tmp_path / "Saturday.xml")
    assert result.exit_code == 0
    assert result.stderr == "stone: the collection has a playlist Saturday; the new one is named Saturday (stone)\n"
    assert '<NODE Name="Saturday (stone)" Type="1"' in (tmp_path / "Saturday.xml").read_text()


def test_a_file_that_is_no_music_is_left_out(invoke: Invoke, tmp_path: Path) -> None:
    """Even if a collection has a key for it."""
    for name, content in {"text.mp3": b"not music", "empty.mp3": b""}.items():
        (tmp_path / name).write_bytes(content)
    tracks = "".join(
        f'<TRACK TrackID="{number}" Location="file://localhost{(tmp_path / name).as_posix()}" Tonality="Am"/>'
        for number, name in enumerate(["text.mp3", "empty.mp3"], 1)
    )
    (tmp_path / "in.xml").write_text(
        f'<DJ_PLAYLISTS><COLLECTION Entries="2">{tracks}</COLLECTION><PLAYLISTS/></DJ_PLAYLISTS>'
    )
    result = invoke("mix", tmp_path / "in.xml")
    assert (result.exit_code, names(result)) == (1, [])
    assert "text.mp3: " in result.stderr
    assert "empty.mp3: the file is empty" in result.stderr


def test_a_mix_from_a_collection_to_a_collection(invoke: Invoke, crate: Path, tmp_path: Path) -> None:
    tracks = "".join(
        f'<TRACK TrackID="{number}" Location="file://localhost{(crate / f"{name}.flac").as_posix()}" x="y"/>'
        for number, name in enumerate("abcd", 1)
    )
    (tmp_path / "in.xml").write_text(
        f'<DJ_PLAYLISTS><COLLECTION Entries="4">{tracks}</COLLECTION><PLAYLISTS><NODE Type="0" Name="ROOT" Count="1">'
        '<NODE Name="Crate" Type="1" KeyType="0" Entries="3"><TRACK Key="3"/><TRACK Key="2"/><TRACK Key="1"/></NODE>'
        "</NODE></PLAYLISTS></DJ_PLAYLISTS>"
    )
    arguments = ["--playlist-name", "crate", "--start", "a", "--rekordbox", tmp_path / "Saturday.xml"]
    result = invoke("mix", tmp_path / "in.xml", *arguments)
    assert (result.exit_code, names(result)) == (0, ["a", "c", "b"])
    text = (tmp_path / "Saturday.xml").read_text()
    assert (
        '<NODE Name="Saturday" Type="1" KeyType="0" Entries="3"><TRACK Key="1" /><TRACK Key="3" /><TRACK Key="2" />'
        in text
    )
    assert 'x="y" Tonality="9A"/>' in text
    assert '<TRACK Key="3"/><TRACK Key="2"/><TRACK Key="1"/></NODE>' in text
