"""``stone tag``: tables, JSON, playlists, collections and the page."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.fixture_types import CopySong, Invoke
from tests.stonecli.cli.tag_table import key_in

TAG_FIELDS = ("status", "detected_key", "tag_key", "relation", "old_key_from", "other_tag_key")


CONTRACT = [
    *("path", "key", "confidence", "alternatives", "tuning_cents", "duration", "segments"),
    *("first_key", "last_key", "other_name", "tuning_confidence", "model", "error"),
]


CONTRACT_CSV = ["path", "camelot", "key", "open_key", "confidence", "old_key", "tuning_cents", "duration", "error"]


class TestJson:
    def test_json_is_one_object_per_line(self, invoke: Invoke, song: CopySong, tmp_path: Path) -> None:
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


class TestTables:
    @pytest.mark.parametrize("name", ["out.csv", "out.json", "out.ndjson"])
    def test_tables_in_files(self, invoke: Invoke, song: CopySong, tmp_path: Path, name: str) -> None:
        estimated, bad, target = song("mp3"), tmp_path / "bad.mp3", tmp_path / name
        bad.write_text("text")
        result = invoke("tag", estimated, bad, tmp_path / "nothing", "--output", target)
        assert result.exit_code == 1
        text = target.read_text()
        if name == "out.csv":
            found = list(csv.DictReader(text.splitlines()))
            assert list(found[0]) == [*CONTRACT_CSV, *TAG_FIELDS[:-2]]  # the last two are only in JSON
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


class TestPlaylistAndCollection:
    def test_playlist_and_collection(self, invoke: Invoke, song: CopySong, tmp_path: Path) -> None:
        estimated, kept, bad = song("mp3"), song("flac"), tmp_path / "bad.mp3"
        bad.write_text("text")
        assert invoke("tag", kept, "--write-tags", "--notation", "musical").exit_code == 0
        files: list[str | Path] = [
            "--playlist",
            tmp_path / "list.m3u8",
            "--rekordbox",
            tmp_path / "list.xml",
            "--output",
            tmp_path / "l.csv",
        ]
        assert invoke("tag", estimated, bad, kept, *files).exit_code == 1
        assert (tmp_path / "list.m3u8").read_text().splitlines()[2::2] == ["music/mp3.mp3", "music/flac.flac"]
        tracks = list(ElementTree.parse(tmp_path / "list.xml").iter("TRACK"))[:2]  # noqa: S314 (our own file)
        assert [(track.get("Tonality"), track.get("TotalTime")) for track in tracks] == [("7A", "16")] * 2
        assert [node.get("Name") for node in ElementTree.parse(tmp_path / "list.xml").iter("NODE")] == ["ROOT", "list"]  # noqa: S314
        assert len((tmp_path / "l.csv").read_text().splitlines()) == 4


class TestPage:
    def test_a_page(self, invoke: Invoke, song: CopySong, tmp_path: Path) -> None:
        bad = tmp_path / "bad.mp3"
        bad.write_text("text")
        assert invoke("tag", song("mp3"), bad, "--html", tmp_path / "a.html").exit_code == 1
        text = (tmp_path / "a.html").read_text(encoding="utf-8")
        tracks = json.loads(text.split('id="data">')[1].split("</script>")[0])["tracks"]
        assert [(track["key"], track["status"]) for track in tracks] == [(14, "detected"), (-1, "error")]
        assert tracks[0]["uri"] == song("mp3").as_uri()
        assert invoke("tag", song("mp3"), "--html", tmp_path / "a.mp3").exit_code == 2


class TestInvalidTargets:
    @pytest.mark.parametrize(
        "wrong", [["--playlist", "song.mp3"], ["--rekordbox", "song.flac"], ["--playlist", "no/a.m3u8"]]
    )
    def test_invalid_targets_are_refused(self, invoke: Invoke, song: CopySong, wrong: list[str]) -> None:
        result = invoke("tag", song("flac"), *wrong)
        assert (result.exit_code, result.stdout) == (2, "")

    def test_an_invalid_target_is_refused_before_the_analysis(
        self, invoke: Invoke, song: CopySong, tmp_path: Path
    ) -> None:
        path = song("mp3")
        (tmp_path / "folder.csv").mkdir()
        for target in ("out.txt", "out", "folder.csv", "none/out.csv"):
            result = invoke("tag", path, "--write-tags", "--output", tmp_path / target)
            assert result.exit_code == 2
            assert result.stdout == ""
        assert key_in(path) is None
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["folder.csv", "music"]


class TestMessages:
    def test_quiet_and_verbose(self, invoke: Invoke, song: CopySong, tmp_path: Path) -> None:
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
