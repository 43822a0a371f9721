"""Crates on the command line: every command that takes a PATH takes a playlist or a rekordbox XML."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import quote

import pytest
from mutagen.flac import FLAC

from stonecli.tags import read_key
from tests.fixture_types import CopySong, Fingerprint, Invoke

COMMANDS = {"tag": ["tag", "--json"], "analyze": ["analyze", "--json"], "mix": ["mix", "--json"]}
LISTING = {**COMMANDS, "compare": ["compare", "--json"], "convert": ["convert", "--json"]}


@pytest.fixture
def crate(song: CopySong, tmp_path: Path) -> Path:
    """A playlist of two files, one of them missing, in another order than in their folder; with a third file."""
    song("flac", "a b")
    song("mp3", "c")
    path = tmp_path / "music" / "crate.m3u8"
    path.write_bytes(b"\xef\xbb\xbf#EXTM3U\r\nc.mp3\r\nnone.mp3\r\n./a%20b.flac\r\n")
    song("flac", "other")
    return path


@pytest.fixture
def collection(crate: Path, tmp_path: Path) -> Path:
    """A rekordbox XML with the same files in two playlists."""
    tracks = "".join(
        f'<TRACK TrackID="{number}" Location="file://localhost{quote((crate.parent / name).as_posix())}"'
        ' Tonality="" AverageBpm="99.00"><TEMPO Inizio="0.1" Bpm="99.00"/></TRACK>'
        for number, name in enumerate(("a b.flac", "c.mp3", "none.mp3"), 1)
    )
    path = tmp_path / "rekordbox.xml"
    path.write_text(
        f'<DJ_PLAYLISTS Version="1.0.0"><COLLECTION Entries="3">{tracks}</COLLECTION>'
        '<PLAYLISTS><NODE Type="0" Name="ROOT" Count="1"><NODE Name="Sat" Type="1" KeyType="0" Entries="1">'
        '<TRACK Key="2"/></NODE></NODE></PLAYLISTS></DJ_PLAYLISTS>'
    )
    return path


def paths_in(text: str, command: str) -> list[str]:
    records = [json.loads(line) for line in text.splitlines()]
    if command == "mix":
        records = records[0]["tracks"]
    return [Path(record["path"]).name for record in records if record.get("error") is None]


def locations_in(text: str) -> list[str]:
    """All values of ``path`` in JSON."""
    return re.findall('"path": "([^"]*)"', text)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_takes_a_playlist_and_a_collection(
    invoke: Invoke, crate: Path, collection: Path, command: str
) -> None:
    for path in (crate, collection):
        result = invoke(*COMMANDS[command], path)
        assert sorted(paths_in(result.stdout, command)) == ["a b.flac", "c.mp3"]
        assert f"none.mp3: no such file or folder (named in {path.name})" in result.stderr
        assert result.exit_code == 1
    result = invoke(*COMMANDS[command], collection, "--playlist-name", "sat")
    assert (result.exit_code, paths_in(result.stdout, command)) == (0, ["c.mp3"])


@pytest.mark.parametrize("command", LISTING)
def test_the_url_of_a_stream_is_named_as_it_is(invoke: Invoke, crate: Path, command: str) -> None:
    crate.write_text("c.mp3\nhttp://example.org/radio.mp3\nspotify:track:1")
    result = invoke(*LISTING[command], crate)
    lines = result.stderr.splitlines()
    reason = "not a file but a stream or a track of an online service (named in crate.m3u8)"
    assert lines == [f"http://example.org/radio.mp3: {reason}", f"spotify:track:1: {reason}"]
    assert [location for location in locations_in(result.stdout) if "radio" in location] == [
        "http://example.org/radio.mp3"
    ]


@pytest.mark.parametrize("command", COMMANDS)
def test_many_missing_entries_are_counted(invoke: Invoke, crate: Path, command: str) -> None:
    crate.write_text("c.mp3\n" + "\n".join(f"{number}.mp3" for number in range(2020)))
    result = invoke(*COMMANDS[command], crate)
    lines = result.stderr.splitlines()
    assert (result.exit_code, len(lines)) == (1, 21)
    assert lines[-1] == "stone: 2,000 more entries of playlists or collections cannot be read; is the drive connected?"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_playlist_name_needs_a_collection(invoke: Invoke, crate: Path, command: str) -> None:
    result = invoke(*COMMANDS[command], crate, "--playlist-name", "sat")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--playlist-name needs a rekordbox XML among the paths" in result.stderr


def test_a_crate_on_standard_input(invoke: Invoke, crate: Path, stone_command: list[str], tmp_path: Path) -> None:
    import subprocess

    done = subprocess.run(
        [*stone_command, "tag", "-", "--json"], input=f"{crate}\n", text=True, capture_output=True, check=False
    )
    assert paths_in(done.stdout, "tag") == ["c.mp3", "a b.flac"]


def test_tags_of_a_crate_are_written_and_restored(
    invoke: Invoke, crate: Path, fingerprint: Fingerprint, tmp_path: Path
) -> None:
    before = {path: path.read_bytes() for path in crate.parent.iterdir()}
    invoke("tag", crate, "--write-tags")
    assert [read_key(crate.parent / name) is not None for name in ("c.mp3", "a b.flac", "other.flac")] == [
        True,
        True,
        False,
    ]
    assert invoke("undo").exit_code == 0
    assert {path: path.read_bytes() for path in crate.parent.iterdir()} == before


@pytest.mark.parametrize("command", ["tag", "convert", "compare", "mix"])
@pytest.mark.parametrize("is_link", [False, True])
def test_an_input_playlist_is_never_replaced(
    invoke: Invoke, crate: Path, tmp_path: Path, command: str, is_link: bool
) -> None:
    target = crate
    if is_link:
        target = tmp_path / "link.m3u8"
        target.symlink_to(crate)
    before = crate.read_bytes()
    result = invoke(command, crate, "--playlist", target)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"--playlist {target} is a playlist that is read; choose another name" in result.stderr
    assert crate.read_bytes() == before
    assert target.is_symlink() == is_link


@pytest.mark.parametrize("command", ["tag", "convert", "mix"])
def test_an_export_of_rekordbox_is_not_replaced(
    invoke: Invoke, crate: Path, collection: Path, tmp_path: Path, command: str
) -> None:
    """Its playlists, cues and grids would be lost, because it is not among the paths."""
    before = collection.read_bytes()
    (tmp_path / "any.xml").write_text("<html/>")
    for target in (collection, tmp_path / "any.xml"):
        result = invoke(command, crate, "--rekordbox", target)
        assert (result.exit_code, result.stdout) == (2, "")
        assert f"--rekordbox would replace {target}, which another program wrote" in result.stderr
    assert collection.read_bytes() == before
    out = tmp_path / "out.xml"
    for _ in range(2):  # stone replaces the files that it has written
        invoke(command, crate, "--rekordbox", out)
        assert 'Name="stone"' in out.read_text()
    out.write_text(out.read_text().replace("</COLLECTION>", "<TRACK><POSITION_MARK/></TRACK></COLLECTION>"))
    assert invoke(command, crate, "--rekordbox", out).exit_code == 2  # cues from another program


class TestRekordboxOutput:
    def test_the_collection_comes_out_with_keys_and_tempos(
        self, invoke: Invoke, collection: Path, crate: Path, tmp_path: Path
    ) -> None:
        for name in ("a b.flac",):
            file = FLAC(crate.parent / name)
            file["initialkey"], file["bpm"] = "Abm", "120"
            file.save()
        before = collection.read_text()
        invoke("tag", collection, "--rekordbox", tmp_path / "out.xml")
        expected = before.replace('Tonality=""', 'Tonality="1A"', 1).replace('Tonality=""', 'Tonality="7A"', 1)
        assert (tmp_path / "out.xml").read_text() == expected
        assert collection.read_text() == before
        invoke("tag", collection, "--bpm", "--rekordbox", tmp_path / "out.xml")
        assert (tmp_path / "out.xml").read_text() == expected  # with its tempos
        collection.write_text(before.replace("99.00", ""))
        invoke("tag", collection, "--bpm", "--rekordbox", tmp_path / "out.xml")
        assert 'AverageBpm="120.00"' in (tmp_path / "out.xml").read_text()

    @pytest.mark.parametrize("command", ["tag", "mix", "convert"])
    def test_a_missing_playlist_is_refused_at_once(
        self, invoke: Invoke, collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
    ) -> None:
        monkeypatch.setattr("stonecli.tags.read.snapshot", lambda *_, **__: pytest.fail("no file is read"))
        options = ["--playlist-name", "Sun", "--rekordbox", str(tmp_path / "out.xml")]
        result = invoke(command, collection, collection.parent / "music", *options)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr == f"stone: {collection}: no playlist is named Sun; choose one of Sat\n"

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("<PLAYLISTS>.*</PLAYLISTS>", "", "has no collection or no playlists"),
            ("<DJ_", '<?xml version="1.0" encoding="utf-16"?><DJ_', "is not in UTF-8"),
            ("<DJ_", '<?xml version="1.0" encoding="Shift_JIS"?><DJ_', "is in an encoding that stone cannot read"),
        ],
    )
    @pytest.mark.parametrize("command", ["tag", "mix", "convert"])
    def test_an_unusable_collection_is_refused_at_once(
        self,
        invoke: Invoke,
        collection: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        command: str,
        old: str,
        new: str,
        message: str,
    ) -> None:
        text = re.sub(old, new, collection.read_text())
        collection.write_text(text, "utf-16" if "utf-16" in new else "utf-8")
        monkeypatch.setattr("stonecli.tags.read.snapshot", lambda *_, **__: pytest.fail("no file is read"))
        result = invoke(command, collection, "--rekordbox", tmp_path / "out.xml")
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith(f"stone: {collection}: {message}")
        assert not (tmp_path / "out.xml").exists()

    def test_the_collection_itself_is_refused(self, invoke: Invoke, collection: Path) -> None:
        before = collection.read_bytes()
        result = invoke("tag", collection, "--rekordbox", collection)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "is the collection that is read; choose another name" in result.stderr
        assert collection.read_bytes() == before

    def test_two_collections_are_refused(self, invoke: Invoke, collection: Path, tmp_path: Path) -> None:
        (tmp_path / "two.xml").write_bytes(collection.read_bytes())
        result = invoke("tag", collection, tmp_path / "two.xml", "--rekordbox", tmp_path / "out.xml")
        assert (result.exit_code, "give one XML" in result.stderr) == (2, True)


@pytest.mark.parametrize("command", ["tag", "analyze", "compare"])
def test_a_stream_is_a_failed_row_of_the_page(invoke: Invoke, crate: Path, command: str, tmp_path: Path) -> None:
    crate.write_text("c.mp3\nhttp://example.org/radio.mp3\n")
    invoke(command, crate, "--html", tmp_path / "page.html")
    assert '"path":"http://example.org/radio.mp3","uri":null' in (tmp_path / "page.html").read_text()


def test_a_stream_with_a_label_is_named_as_it_is(invoke: Invoke, crate: Path, tmp_path: Path) -> None:
    collection = tmp_path / "rekordbox.xml"
    collection.write_text(
        '<DJ_PLAYLISTS><COLLECTION><TRACK TrackID="1" Location="http://example.org/radio.mp3" Tonality="Am"/>'
        f'<TRACK TrackID="2" Location="file://localhost{quote((crate.parent / "c.mp3").as_posix())}" Tonality="Dm"/>'
        "</COLLECTION></DJ_PLAYLISTS>"
    )
    result = invoke("evaluate", collection, "--json")
    assert result.stderr.startswith("http://example.org/radio.mp3: ")
    assert locations_in(result.stdout) == ["http://example.org/radio.mp3"]


def test_a_key_in_the_collection_alone_is_not_kept(invoke: Invoke, collection: Path, tmp_path: Path) -> None:
    collection.write_text(collection.read_text().replace('Tonality=""', 'Tonality="1A"'))
    options = ["--playlist-name", "Sat", "--write-tags", "--json"]
    (line,) = invoke("tag", collection, *options, "--rekordbox", tmp_path / "out.xml").stdout.splitlines()
    record = json.loads(line)
    assert (record["status"], record["old_key"], record["key"]["camelot"]) == ("written", None, "7A")
    assert (tmp_path / "out.xml").read_text() == collection.read_text()  # which keeps its own key
    assert json.loads(invoke("tag", collection, *options).stdout)["status"] == "kept"
