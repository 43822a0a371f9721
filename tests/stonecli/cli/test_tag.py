import csv
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import mutagen
import numpy as np
import pytest
import soundfile
from mutagen.flac import FLAC
from typer.testing import Result

from stonecli.detection.detect import detect_key
from stonecli.library import walk as library
from stonecli.library.music_file import MusicFile
from stonecli.library.walk import Finding
from stonecli.model import session as model
from stonecli.remote import storage
from stonecli.tags import read_tags
from stonecli.util.text import unescaped
from tests.fixture_types import MakeModel, MakeNoise, Samples

Invoke = Callable[..., Result]
Song = Callable[..., Path]

Music = Callable[..., Samples]
Stone = Callable[..., "subprocess.CompletedProcess[str]"]
Fingerprint = Callable[[Path], dict[str, tuple[int, int, str]]]

TAG_FIELDS = ("status", "detected_key", "tag_key", "relation")
CONTRACT = [
    *("path", "key", "confidence", "alternatives", "tuning_cents", "duration", "segments"),
    *("first_key", "last_key", "other_name", "tuning_confidence", "model", "error"),
]
CONTRACT_CSV = ["path", "camelot", "key", "open_key", "confidence", "old_key", "tuning_cents", "duration", "error"]
RATE = 22050


def rows(result: Result) -> list[list[str]]:
    """The table of a pipe without its header."""
    lines = result.stdout.splitlines()
    assert lines[0].split("\t") == ["file", "old key", "new key", "confidence", "status"]
    return [line.split("\t") for line in lines[1:]]


def statuses(result: Result) -> dict[str, str]:
    return {Path(row[0]).name: row[4] for row in rows(result)}


def key_in(path: Path) -> str | None:
    return read_tags(path).text


@pytest.fixture
def album(songs: Mapping[str, Path], tmp_path: Path) -> Path:
    """A folder with a song in every container."""
    folder = tmp_path / "album"
    folder.mkdir()
    for path in songs.values():
        shutil.copy(path, folder)
    return folder


# What it is for


def test_a_preview_changes_not_one_byte(invoke: Invoke, album: Path, fingerprint: Fingerprint) -> None:
    before = fingerprint(album)
    result = invoke("tag", album)
    assert (result.exit_code, result.stderr) == (0, "")
    assert fingerprint(album) == before
    assert len(rows(result)) == len(list(album.iterdir())) == 13
    for path, old, new, confidence, status in rows(result):
        assert (old, new, status) == ("", "7A", "detected"), path
        assert 0.5 < float(confidence) <= 1


def test_keys_are_written_once(invoke: Invoke, album: Path, fingerprint: Fingerprint) -> None:
    result = invoke("tag", album, "--write-tags")
    assert (result.exit_code, result.stderr) == (0, "")
    assert set(statuses(result).values()) == {"written"}
    for path in album.iterdir():
        assert key_in(path) == "7A", path
        tags = mutagen.File(path).tags  # as any other program reads it
        assert "7A" in repr(dict(tags)), path
    written = fingerprint(album)

    again = invoke("tag", album, "--write-tags")
    assert (again.exit_code, again.stderr) == (0, "")
    assert {(old, new, status) for _, old, new, _, status in rows(again)} == {("7A", "", "kept")}
    assert fingerprint(album) == written

    over = invoke("tag", album, "--write-tags", "--overwrite")
    assert set(statuses(over).values()) == {"unchanged"}
    assert fingerprint(album) == written


@pytest.mark.parametrize(("notation", "text"), [("camelot", "7A"), ("openkey", "12m"), ("musical", "Dm")])
def test_notations(invoke: Invoke, song: Song, notation: str, text: str) -> None:
    path = song("mp3")
    result = invoke("tag", path, "--write-tags", "--notation", notation)
    assert rows(result)[0][2] == text
    assert mutagen.File(path).tags["TKEY"].text == [text]


def test_fields(invoke: Invoke, song: Song) -> None:
    path = song("flac")
    tags = FLAC(path)
    tags["comment"], tags["title"] = "mine", "Song"
    tags.save()
    fields = ["--field", "key=musical", "--field", "comment", "--field", "grouping=openkey"]
    assert invoke("tag", path, "--write-tags", *fields).exit_code == 0
    written = FLAC(path)
    assert written["initialkey"] == ["Dm"]
    assert written["comment"][0].startswith("7A")
    assert written["comment"][0].endswith("mine")
    assert written["grouping"] == ["12m"]
    assert written["title"] == ["Song"]
    assert invoke("tag", path, "--write-tags", "--overwrite", "--field", "title", "--mode", "append").exit_code == 0
    assert re.fullmatch(r"Song\b.*7A.*", FLAC(path)["title"][0])


def test_files_with_a_key_are_skipped_and_listed(invoke: Invoke, song: Song, fingerprint: Fingerprint) -> None:
    path = song("flac")
    tags = FLAC(path)
    tags["initialkey"] = "C♯ minor"
    tags.save()
    before = fingerprint(path.parent)
    result = invoke("tag", path, "--write-tags")
    assert rows(result) == [[str(path), "C♯ minor", "", "", "kept"]]
    assert fingerprint(path.parent) == before
    over = invoke("tag", path, "--write-tags", "--overwrite")
    assert rows(over)[0][1:3] == ["C♯ minor", "7A"]
    assert statuses(over) == {path.name: "written"}
    assert key_in(path) == "7A"


def test_a_second_field_on_a_folder_that_has_keys(invoke: Invoke, album: Path, fingerprint: Fingerprint) -> None:
    assert invoke("tag", album, "--write-tags", "--notation", "musical").exit_code == 0
    fields = ["--field", "key", "--field", "comment=camelot"]
    before = fingerprint(album)
    preview = invoke("tag", album, *fields)
    assert {(*row[1:3], row[4]) for row in rows(preview)} == {("Dm", "7A", "incomplete")}
    assert all(float(row[3]) > 0.5 for row in rows(preview))  # the analysis that wrote this key
    assert fingerprint(album) == before
    assert set(statuses(invoke("tag", album, *fields, "--write-tags")).values()) == {"written"}
    assert {key_in(path) for path in album.iterdir()} == {"Dm"}
    written = fingerprint(album)
    assert set(statuses(invoke("tag", album, *fields, "--write-tags")).values()) == {"kept"}
    assert fingerprint(album) == written


def test_remove_deletes_the_written_key(
    invoke: Invoke, album: Path, fingerprint: Fingerprint, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = ["--field", "key", "--field", "comment=musical", "--field", "title", "--mode", "append"]
    invoke("tag", album, "--write-tags", *fields)
    monkeypatch.setattr("stonecli.model.session.KeyModel.__init__", lambda *_: pytest.fail("nothing is to be analyzed"))
    before = fingerprint(album)
    preview = invoke("tag", album, "--remove", *fields)
    assert {tuple(row[1:]) for row in rows(preview)} == {("7A", "", "", "removable")}
    assert fingerprint(album) == before
    result = invoke("tag", album, "--remove", "--write-tags", "--json", *fields)
    assert (result.exit_code, result.stderr) == (0, "")
    for record in map(json.loads, result.stdout.splitlines()):
        assert (record["status"], record["key"], record["old_key"], record["model"]) == ("removed", None, "7A", None)
    for path in album.iterdir():
        assert key_in(path) is None
        assert "7A" not in repr(mutagen.File(path).tags)
    assert set(statuses(invoke("tag", album, "--remove", "--write-tags", *fields)).values()) == {"unchanged"}


def test_the_next_writing_run_deletes_files_left_by_a_crash(
    invoke: Invoke, song: Song, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = song("flac")
    left = path.parent / ".stone-abcd1234.tmp"
    left.write_bytes(b"half")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3600)
    assert invoke("tag", path.parent).exit_code == 0
    assert left.exists()  # a preview changes nothing
    assert invoke("tag", path.parent, "--write-tags").exit_code == 0
    assert list(path.parent.iterdir()) == [path]


def test_min_confidence(invoke: Invoke, song: Song, fingerprint: Fingerprint) -> None:
    path = song("flac")
    before = fingerprint(path.parent)
    result = invoke("tag", path, "--write-tags", "--min-confidence", "0.99")
    assert (result.exit_code, statuses(result)) == (0, {path.name: "unsure"})
    assert fingerprint(path.parent) == before
    assert statuses(invoke("tag", path, "--write-tags", "--min-confidence", "0.5")) == {path.name: "written"}


def test_the_modification_time(invoke: Invoke, song: Song) -> None:
    kept, renewed = song("mp3", "kept"), song("mp3", "renewed")
    for path in (kept, renewed):
        os.utime(path, ns=(10**18, 10**18))
    assert invoke("tag", kept, "--write-tags", "--preserve-mtime").exit_code == 0
    assert invoke("tag", renewed, "--write-tags").exit_code == 0
    assert kept.stat().st_mtime_ns == 10**18
    assert renewed.stat().st_mtime_ns > 10**18


@pytest.mark.parametrize("jobs", ["1", "4"])
def test_rows_follow_the_order_of_files_for_any_jobs(invoke: Invoke, album: Path, jobs: str) -> None:
    names = [Path(row[0]).name for row in rows(invoke("tag", album, "--jobs", jobs))]
    assert names == sorted(names, key=library.natural_key)


def test_the_file_extension_does_not_matter(invoke: Invoke, song: Song) -> None:
    flac, m4a = song("flac"), song("m4a aac")
    paths = [flac.rename(flac.with_suffix(".mp3")), m4a.rename(m4a.with_suffix(".wav"))]
    assert statuses(invoke("tag", *paths, "--write-tags")) == {path.name: "written" for path in paths}
    assert FLAC(paths[0])["initialkey"] == ["7A"]
    assert key_in(paths[1]) == "7A"


def test_a_folder_without_music(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "cover.jpg").write_bytes(b"\xff\xd8")
    result = invoke("tag", tmp_path, "--write-tags")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"stone: no music files found in {tmp_path}\n")


@pytest.mark.parametrize("command", ["tag", "convert"])
@pytest.mark.parametrize("has_old", [True, False])
def test_without_music_no_output_is_written(invoke: Invoke, tmp_path: Path, command: str, has_old: bool) -> None:
    outputs = {
        f"--{name}": tmp_path / f"old{ending}"
        for name, ending in (("output", ".csv"), ("html", ".html"), ("playlist", ".m3u8"), ("rekordbox", ".xml"))
    }
    if has_old:
        for path in outputs.values():
            path.write_text('<PRODUCT Name="stone"/>')
    (tmp_path / "empty").mkdir()
    for name in ("nosuch", "empty"):
        result = invoke(command, tmp_path / name, *(text for pair in outputs.items() for text in pair))
        assert result.exit_code == 1
        assert result.stderr.splitlines()[0].endswith("were not saved, because there is no music to process")
        assert len(result.stderr.splitlines()) == 2
        found = {path: path.read_text() for path in outputs.values() if path.exists()}
        assert found == (dict.fromkeys(outputs.values(), '<PRODUCT Name="stone"/>') if has_old else {})


def test_nothing_on_standard_input(stone_command: list[str]) -> None:
    for command in ("tag", "mix", "analyze"):
        done = subprocess.run([*stone_command, command, "-"], input=b"", capture_output=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"stone: no music files found\n"), command


def test_a_model_of_signatures(invoke: Invoke, song: Song, tiny_model: MakeModel, tmp_path: Path) -> None:
    path = song("flac")
    tiny = tiny_model(tmp_path / "ks.onnx", count=12)
    assert invoke("tag", path, "--write-tags", "--model", tiny, "--notation", "musical").exit_code == 0
    assert key_in(path) == "G#m"


# For programs


def test_playlist_and_collection(invoke: Invoke, song: Song, tmp_path: Path) -> None:
    estimated, kept, bad = song("mp3"), song("flac"), tmp_path / "bad.mp3"
    bad.write_text("text")
    assert invoke("tag", kept, "--write-tags", "--notation", "musical").exit_code == 0
    files = ["--playlist", tmp_path / "list.m3u8", "--rekordbox", tmp_path / "list.xml", "--output", tmp_path / "l.csv"]
    assert invoke("tag", estimated, bad, kept, *files).exit_code == 1
    assert (tmp_path / "list.m3u8").read_text().splitlines()[2::2] == ["music/mp3.mp3", "music/flac.flac"]
    tracks = list(ElementTree.parse(tmp_path / "list.xml").iter("TRACK"))[:2]  # noqa: S314 (our own file)
    assert [(track.get("Tonality"), track.get("TotalTime")) for track in tracks] == [("7A", "16")] * 2
    assert [node.get("Name") for node in ElementTree.parse(tmp_path / "list.xml").iter("NODE")] == ["ROOT", "list"]  # noqa: S314
    assert len((tmp_path / "l.csv").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    "wrong", [["--playlist", "song.mp3"], ["--rekordbox", "song.flac"], ["--playlist", "no/a.m3u8"]]
)
def test_invalid_targets_are_refused(invoke: Invoke, song: Song, wrong: list[str]) -> None:
    result = invoke("tag", song("flac"), *wrong)
    assert (result.exit_code, result.stdout) == (2, "")


def test_json_is_one_object_a_line(invoke: Invoke, song: Song, tmp_path: Path) -> None:
    estimated, kept, bad = song("mp3"), song("flac"), tmp_path / "bad.mp3"
    assert invoke("tag", kept, "--write-tags").exit_code == 0
    bad.write_text("text")
    result = invoke("tag", estimated, kept, bad, tmp_path / "nothing", "--json")
    assert result.exit_code == 1
    records = {Path(record["path"]).name: record for record in map(json.loads, result.stdout.splitlines())}
    assert set(records) == {"mp3.mp3", "flac.flac", "bad.mp3", "nothing"}
    assert all(list(record) == [*CONTRACT, "old_key", *TAG_FIELDS] for record in records.values())
    first = records["mp3.mp3"]
    assert first["key"] == {"musical": "Dm", "camelot": "7A", "open_key": "12m"}
    assert (first["status"], first["error"], first["old_key"]) == ("detected", None, None)
    assert len(first["alternatives"]) == 3
    assert first["segments"][0]["key"] == first["key"]
    assert first["duration"] == pytest.approx(16, abs=0.1)
    second = records["flac.flac"]
    assert (second["status"], second["old_key"]) == ("kept", "7A")
    assert second["confidence"] > 0.5  # of the analysis before it was tagged
    assert second["key"] == second["detected_key"] == first["key"]
    assert (records["bad.mp3"]["status"], records["bad.mp3"]["key"]) == ("error", None)
    assert records["nothing"]["error"] == "no such file or folder"
    assert len(result.stderr.splitlines()) == 2


@pytest.mark.parametrize("name", ["out.csv", "out.json", "out.ndjson"])
def test_tables_in_files(invoke: Invoke, song: Song, tmp_path: Path, name: str) -> None:
    estimated, bad, target = song("mp3"), tmp_path / "bad.mp3", tmp_path / name
    bad.write_text("text")
    result = invoke("tag", estimated, bad, tmp_path / "nothing", "--output", target)
    assert result.exit_code == 1
    text = target.read_text()
    if name == "out.csv":
        found = list(csv.DictReader(text.splitlines()))
        assert list(found[0]) == [*CONTRACT_CSV, *TAG_FIELDS]
        by_name: dict[str, Any] = {Path(row["path"]).name: row for row in found}
        assert (by_name["mp3.mp3"]["camelot"], by_name["mp3.mp3"]["key"]) == ("7A", "Dm")
        assert by_name["mp3.mp3"]["error"] == ""
    else:
        records = json.loads(text) if name == "out.json" else [json.loads(line) for line in text.splitlines()]
        by_name = {Path(record["path"]).name: record for record in records}
        assert list(records[0]) == [*CONTRACT, "old_key", *TAG_FIELDS]
        assert by_name["mp3.mp3"]["key"]["camelot"] == "7A"
    assert set(by_name) == {"mp3.mp3", "bad.mp3", "nothing"}
    assert by_name["bad.mp3"]["error"]
    assert by_name["nothing"]["error"] == "no such file or folder"


def test_an_invalid_target_is_refused_before_the_analysis(invoke: Invoke, song: Song, tmp_path: Path) -> None:
    path = song("mp3")
    (tmp_path / "folder.csv").mkdir()
    for target in ("out.txt", "out", "folder.csv", "none/out.csv"):
        result = invoke("tag", path, "--write-tags", "--output", tmp_path / target)
        assert result.exit_code == 2
        assert result.stdout == ""
    assert key_in(path) is None
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["folder.csv", "music"]


# Bad input: issue 2, item 7. A good file lies next to it each time, and has to be tagged.


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


def beside(invoke: Invoke, song: Song, folder: Path) -> Result:
    """Tags the folder, a good song in it, which has to come out well."""
    good = song("flac", "zz good")
    good = good.rename(folder / good.name)
    result = invoke("tag", folder, "--write-tags")
    assert key_in(good) == "7A"
    assert statuses(result)[good.name] == "written"
    assert "Traceback" not in result.output
    return result


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "folder"
    path.mkdir()
    return path


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


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_gives_one_line_and_is_unchanged(
    invoke: Invoke, song: Song, songs: Mapping[str, Path], folder: Path, fingerprint: Fingerprint, kind: str
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


def nan_wav(path: Path, samples: Samples) -> None:
    stereo = np.repeat(samples[:, None], 2, axis=1)
    stereo[5000:5100] = np.nan
    stereo[6000] = np.inf, -np.inf
    write_wav(path, stereo, subtype="FLOAT")


ODD: dict[str, Callable[[Path, Music], None]] = {
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


@pytest.mark.parametrize("kind", ODD)
def test_odd_files_are_tagged(invoke: Invoke, song: Song, folder: Path, music: Music, kind: str) -> None:
    path = folder / f"{kind}.wav"
    ODD[kind](path, music)
    result = beside(invoke, song, folder)
    assert (result.exit_code, result.stderr) == (0, "")
    assert statuses(result)[path.name] == "written"
    assert key_in(path) == "7A"


@pytest.mark.parametrize("kind", ["zeros", "dither", "white", "pink", "0.1 s", "short lie"])
def test_sound_without_a_key_gets_no_key(
    invoke: Invoke,
    song: Song,
    folder: Path,
    music: Music,
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


NAMES: list[str | bytes] = [
    "two  spaces",
    'it\'s "quoted"',
    "[red]loud[bold]",
    "line\nbreak\tand tab",
    "\x1b[31mred\x1b]0;title\x07",
    "🎹 Ünï ‮rtl",
    "-leading --dashes",
    b"not \xff\xfe UTF-8",
    "http:",
    "concat:a|b",
]


def test_names_are_never_read_as_options_or_urls(stone: Stone, songs: Mapping[str, Path], folder: Path) -> None:
    paths = []
    for name in NAMES:
        for container in ("mp3", "m4a aac"):
            path = folder / (os.fsdecode(name) + songs[container].suffix)
            paths.append(Path(shutil.copy(songs[container], path)))
            path.with_suffix(".flac").write_text("broken, with the same name")
    # Named one by one from within the folder, so that each name comes first in its argument.
    result = stone("tag", "--write-tags", "--", *(os.fsencode(path.name) for path in paths), cwd=folder)
    assert (result.returncode, result.stderr) == (0, "")
    assert all(key_in(path) == "7A" for path in paths)
    assert result.stdout.count("\twritten\n") == len(result.stdout.splitlines()) - 1 == len(paths)
    # And as they come out of a folder, the broken ones too.
    again = stone("tag", "--write-tags", folder)
    assert again.returncode == 1
    assert again.stdout.count("\tkept\n") == len(paths)
    assert len(again.stderr.splitlines()) == len(NAMES)
    for text in (result.stdout, again.stdout, again.stderr):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]", text)
    for text in (again.stdout, again.stderr):
        assert "[red]loud[bold]" in text
        assert "line\\nbreak\\tand tab" in text
        assert "\\x1b[31mred\\x1b]0;title\\x07" in text
        assert "not \\xff\\xfe UTF-8" in text


def test_names_in_json_and_csv_come_back(invoke: Invoke, song: Song, tmp_path: Path) -> None:
    paths = [song("flac", os.fsdecode(name)) for name in NAMES]
    result = invoke("tag", *paths, "--json", "--output", tmp_path / "out.csv")
    assert [json.loads(line)["path"] for line in result.stdout.splitlines()] == [str(path) for path in paths]
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        assert [unescaped(row["path"]) for row in csv.DictReader(file)] == [str(path) for path in paths]


def test_missing_paths(invoke: Invoke, song: Song, tmp_path: Path) -> None:
    good = song("flac")
    result = invoke("tag", tmp_path / "none.mp3", good, tmp_path / "[red]\x1b[31m", "--write-tags")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        f"{tmp_path}/none.mp3: no such file or folder",
        f"{tmp_path}/[red]\\x1b[31m: no such file or folder",
    ]
    assert key_in(good) == "7A"


def test_a_pipe_is_not_waited_for(invoke: Invoke, song: Song, folder: Path) -> None:
    os.mkfifo(folder / "pipe.mp3")
    assert beside(invoke, song, folder).exit_code == 0  # passed over in a folder
    result = invoke("tag", folder / "pipe.mp3", "--write-tags")
    assert result.exit_code == 1
    assert "not a regular file" in result.stderr


@pytest.mark.skipif(os.name != "posix", reason="permissions")
def test_no_permission(stone: Stone, songs: Mapping[str, Path], folder: Path, fingerprint: Fingerprint) -> None:
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
        f"{locked}/b.mp3: permission denied",
        f"{secret}: permission denied",
    ]
    assert key_in(folder / "good.mp3") == "7A"
    after = fingerprint(folder)
    for path in (closed / "a.mp3", locked / "b.mp3", secret):
        assert after[str(path)] == before[str(path)]
    assert sorted(entry.name for entry in locked.iterdir()) == ["b.mp3"]


def test_a_folder_that_vanishes(
    invoke: Invoke, song: Song, songs: Mapping[str, Path], folder: Path, monkeypatch: pytest.MonkeyPatch
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
    invoke: Invoke, song: Song, monkeypatch: pytest.MonkeyPatch
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


# The process


def test_decoders_print_nothing(stone: Stone, songs: Mapping[str, Path], folder: Path) -> None:
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


def test_cuda_on_a_machine_without_a_gpu(stone: Stone, song: Song) -> None:
    if model._why_no_cuda() is None:
        pytest.skip("there is CUDA here")
    path = song("mp3")
    result = stone("tag", "--device", "cuda", path, "--write-tags")
    assert result.returncode == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("stone: CUDA is not available: ")
    assert key_in(path) is None
    assert stone("tag", "--device", "auto", path).stderr == ""


@pytest.mark.parametrize("end", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_ctrl_c_keeps_the_finished_files(
    stone_command: list[str], songs: Mapping[str, Path], folder: Path, tmp_path: Path, end: str
) -> None:
    contents = {}
    for number in range(50):
        for container in ("mp3", "m4a aac"):  # one is decoded in the process, one by ffmpeg
            path = folder / f"{number}{songs[container].suffix}"
            contents[path] = songs[container].read_bytes()
            path.write_bytes(contents[path])
    table, old, new = (tmp_path / name for name in ("out.ndjson", "old.html", "new.m3u8"))
    old.write_text("the page of another library")
    options = [
        "--no-cache",
        "--write-tags",
        "--jobs",
        "2",
        "--json",
        "--output",
        table,
        "--html",
        old,
        "--playlist",
        new,
    ]
    process = subprocess.Popen(
        [*stone_command, "tag", *map(str, options), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    head = [process.stdout.readline() for _ in range(6)]
    os.killpg(process.pid, getattr(signal, end))  # as the terminal does: to all that belong together
    rest, errors = process.stdout.read(), process.stderr.read()  # communicate() would miss what was read ahead
    assert process.wait(timeout=60) == 130
    assert errors.splitlines() == [
        f"stone: {old} was not replaced, because the run did not finish",
        "stone: interrupted; the files shown above are done",
    ]
    assert old.read_text() == "the page of another library"
    records = [json.loads(line) for line in [*head, *rest.splitlines()]]
    assert 6 <= len(records) < len(contents)
    assert {record["status"] for record in records} == {"written"}
    assert [json.loads(line) for line in table.read_text().splitlines()] == records
    assert new.read_text().count("#EXTINF") == len(records)
    finished = {Path(record["path"]) for record in records}
    for path, content in contents.items():
        if path in finished:
            assert key_in(path) == "7A"
        else:
            assert path.read_bytes() == content
    assert set(folder.iterdir()) == set(contents)  # and no temporary file
    assert [*tmp_path.glob(".*.tmp")] == []


def test_a_closed_pipe_prints_no_traceback(stone_command: list[str], songs: Mapping[str, Path], folder: Path) -> None:
    for number in range(4):
        shutil.copy(songs["mp3"], folder / f"{number}.mp3")
    for options in (["--json"], []):
        process = subprocess.Popen(
            [*stone_command, "tag", "--jobs", "1", *options, str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
        process.stderr.close()
        assert process.wait(60) == 1


def in_terminal(command: list[str], columns: int = 120) -> tuple[int, str]:
    """Exit code and all that a terminal gets to see of a command."""
    fcntl, pty, termios = (pytest.importorskip(name) for name in ("fcntl", "pty", "termios"))
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    for name in ("NO_COLOR", "COLUMNS", "LINES"):
        environment.pop(name, None)
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    seen = bytearray()
    try:
        while block := os.read(ours, 65536):
            seen += block
    except OSError:  # EIO: the other end is closed
        pass
    os.close(ours)
    return process.wait(60), seen.decode()


def test_no_name_and_no_tag_reaches_the_terminal_as_it_is(
    stone_command: list[str], songs: Mapping[str, Path], folder: Path
) -> None:
    evil = "a\x1b]0;pwn\x07b\x1b[2J\x1b[5m[blink]x [-bold] :smile:"
    shutil.copy(songs["flac"], folder / f"{evil}.flac")
    (folder / f"{evil}.mp3").write_text("broken")
    tagged = Path(shutil.copy(songs["flac"], folder / "tagged.flac"))
    tags = FLAC(tagged)
    tags["initialkey"] = "\x1b[5m\x07[b]\n"
    tags.save()
    code, seen = in_terminal([*stone_command, "tag", str(folder)])
    assert code == 1
    assert "\x1b[1;30;48;2;" in seen or ";48;2;" in seen  # in color
    for sequence in ("\x07", "\x1b]", "\x1b[2J", "\x1b[5m", "\x1b[5;"):
        assert sequence not in seen
    plain = re.sub(r"\x1b\[[0-9;]*m|\x1b\[\d*[AK]|\x1b\[\?25[lh]|\r", "", seen)
    assert "\x1b" not in plain
    assert "\\x1b]0;pwn\\x07b\\x1b[2J\\x1b[5m[blink]x [-bold] :smile:.flac" in plain
    assert "[blink]x [-bold] :smile:.mp3: cannot be decoded" in plain
    summary = "1 detected, 1 with a key text that stone cannot read, 1 failed"
    assert f"{summary}; no file was changed, add --write-tags to write the keys" in plain


def test_a_terminal_sees_progress_and_a_table(
    stone_command: list[str], songs: Mapping[str, Path], folder: Path
) -> None:
    for number in range(3):
        shutil.copy(songs["mp3"], folder / f"{number}.mp3")
    code, seen = in_terminal([*stone_command, "tag", "--write-tags", str(folder)], columns=90)
    assert code == 0, seen
    assert "3/3" in seen  # the bar, which is gone in the end
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen).replace("\r", "\n")
    for number in range(3):
        assert re.search(rf"^{number}\.mp3 +- +7A +Dm +\d\d%  written *$", plain, re.MULTILINE)
    assert "3 written" in plain


def test_a_page(invoke: Invoke, song: Song, tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp3"
    bad.write_text("text")
    assert invoke("tag", song("mp3"), bad, "--html", tmp_path / "a.html").exit_code == 1
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    tracks = json.loads(text.split('id="data">')[1].split("</script>")[0])["tracks"]
    assert [(track["key"], track["status"]) for track in tracks] == [(14, "detected"), (-1, "error")]
    assert tracks[0]["uri"] == song("mp3").as_uri()
    assert invoke("tag", song("mp3"), "--html", tmp_path / "a.mp3").exit_code == 2


def test_a_list_on_standard_input(stone_command: list[str], song: Song) -> None:
    paths = [song("mp3", "a\nb"), song("flac")]
    listing = b"\0".join(os.fsencode(path) for path in paths)
    process = subprocess.run(
        [*stone_command, "tag", "-0", "--json", "-"], input=listing, capture_output=True, check=True
    )
    assert [json.loads(line)["path"] for line in process.stdout.splitlines()] == [str(path) for path in paths]


def test_quiet_and_verbose(invoke: Invoke, song: Song, tmp_path: Path) -> None:
    path, none = song("flac"), tmp_path / "none.mp3"
    quiet = invoke("tag", path, none, "--write-tags", "--quiet")
    assert (quiet.exit_code, quiet.stdout, quiet.stderr) == (1, "", f"{none}: no such file or folder\n")
    assert key_in(path) == "7A"
    verbose = invoke("tag", path, "--verbose")
    assert verbose.stdout == invoke("tag", path).stdout
    first, last = verbose.stderr.splitlines()
    assert re.fullmatch(r"stone: 1 file, \d+ in parallel, model \S+ \([0-9a-f]{12}\), device cpu", first)
    assert last.endswith(" s, 0 failed")
    assert invoke("tag", path, "--quiet", "--json").exit_code == 2


def test_the_shell_completes(stone_command: list[str]) -> None:
    """As the script does that ``stone --install-completion`` installs."""
    environment = {**os.environ, "_STONE_COMPLETE": "complete_bash", "COMP_WORDS": "stone tag --wri", "COMP_CWORD": "2"}
    command = [stone_command[0], "-c", "from stonecli.cli.main import app; app(prog_name='stone')"]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert process.stdout.strip() == "--write-tags"


def test_no_color_in_a_terminal(stone_command: list[str], song: Song) -> None:
    path = song("flac")
    outputs = []
    for extra in ({}, {"NO_COLOR": "1"}):
        master, slave = pytest.importorskip("pty").openpty()
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", **extra}
        environment = {name: value for name, value in environment.items() if name != "NO_COLOR" or extra}
        subprocess.run([*stone_command, "analyze", str(path)], stdout=slave, stderr=slave, env=environment, check=True)
        os.close(slave)
        outputs.append(os.read(master, 65536).decode())
        os.close(master)
    assert "\x1b[38;2" in outputs[0]
    assert "\x1b[38;2" not in outputs[1]
    assert "|7A-" in outputs[1]
