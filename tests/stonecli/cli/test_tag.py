"""``stone tag`` in this process: what it writes, to which files, and what it leaves unchanged."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import mutagen
import pytest
from mutagen.flac import FLAC

from stonecli.library import walk as library
from tests.fixture_types import CopySong, Fingerprint, Invoke, MakeModel
from tests.stonecli.cli.tag_table import key_in, rows, statuses


class TestPreview:
    def test_a_preview_changes_not_one_byte(self, invoke: Invoke, album: Path, fingerprint: Fingerprint) -> None:
        before = fingerprint(album)
        result = invoke("tag", album)
        assert (result.exit_code, result.stderr) == (0, "")
        assert fingerprint(album) == before
        assert len(rows(result)) == len(list(album.iterdir())) == 13
        for path, old, new, confidence, status in rows(result):
            assert (old, new, status) == ("", "7A", "detected"), path
            assert 0.5 < float(confidence) <= 1

    @pytest.mark.parametrize("jobs", ["1", "4"])
    def test_rows_follow_the_order_of_files_for_any_jobs(self, invoke: Invoke, album: Path, jobs: str) -> None:
        names = [Path(row[0]).name for row in rows(invoke("tag", album, "--jobs", jobs))]
        assert names == sorted(names, key=library.natural_key)

    def test_min_confidence(self, invoke: Invoke, song: CopySong, fingerprint: Fingerprint) -> None:
        path = song("flac")
        before = fingerprint(path.parent)
        result = invoke("tag", path, "--write-tags", "--min-confidence", "0.99")
        assert (result.exit_code, statuses(result)) == (0, {path.name: "unsure"})
        assert fingerprint(path.parent) == before
        assert statuses(invoke("tag", path, "--write-tags", "--min-confidence", "0.5")) == {path.name: "written"}


class TestWriting:
    def test_keys_are_written_once(self, invoke: Invoke, album: Path, fingerprint: Fingerprint) -> None:
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
    def test_notations(self, invoke: Invoke, song: CopySong, notation: str, text: str) -> None:
        path = song("mp3")
        result = invoke("tag", path, "--write-tags", "--notation", notation)
        assert rows(result)[0][2] == text
        assert mutagen.File(path).tags["TKEY"].text == [text]

    def test_fields(self, invoke: Invoke, song: CopySong) -> None:
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

    def test_the_modification_time(self, invoke: Invoke, song: CopySong) -> None:
        kept, renewed = song("mp3", "kept"), song("mp3", "renewed")
        for path in (kept, renewed):
            os.utime(path, ns=(10**18, 10**18))
        assert invoke("tag", kept, "--write-tags", "--preserve-mtime").exit_code == 0
        assert invoke("tag", renewed, "--write-tags").exit_code == 0
        assert kept.stat().st_mtime_ns == 10**18
        assert renewed.stat().st_mtime_ns > 10**18

    def test_the_file_extension_does_not_matter(self, invoke: Invoke, song: CopySong) -> None:
        flac, m4a = song("flac"), song("m4a aac")
        paths = [flac.rename(flac.with_suffix(".mp3")), m4a.rename(m4a.with_suffix(".wav"))]
        assert statuses(invoke("tag", *paths, "--write-tags")) == {path.name: "written" for path in paths}
        assert FLAC(paths[0])["initialkey"] == ["7A"]
        assert key_in(paths[1]) == "7A"

    def test_a_model_of_signatures(self, invoke: Invoke, song: CopySong, tiny_model: MakeModel, tmp_path: Path) -> None:
        path = song("flac")
        tiny = tiny_model(tmp_path / "ks.onnx", count=12)
        assert invoke("tag", path, "--write-tags", "--model", tiny, "--notation", "musical").exit_code == 0
        assert key_in(path) == "G#m"

    def test_the_next_writing_run_deletes_files_left_by_a_crash(
        self, invoke: Invoke, song: CopySong, monkeypatch: pytest.MonkeyPatch
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


class TestFilesWithAKey:
    def test_files_with_a_key_are_skipped_and_listed(
        self, invoke: Invoke, song: CopySong, fingerprint: Fingerprint
    ) -> None:
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

    def test_a_second_field_on_a_folder_that_has_keys(
        self, invoke: Invoke, album: Path, fingerprint: Fingerprint
    ) -> None:
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
        self, invoke: Invoke, album: Path, fingerprint: Fingerprint, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fields = ["--field", "key", "--field", "comment=musical", "--field", "title", "--mode", "append"]
        invoke("tag", album, "--write-tags", *fields)
        monkeypatch.setattr(
            "stonecli.model.session.KeyModel.__init__", lambda *_: pytest.fail("nothing is to be analyzed")
        )
        before = fingerprint(album)
        preview = invoke("tag", album, "--remove", *fields)
        assert {tuple(row[1:]) for row in rows(preview)} == {("7A", "", "", "removable")}
        assert fingerprint(album) == before
        result = invoke("tag", album, "--remove", "--write-tags", "--json", *fields)
        assert (result.exit_code, result.stderr) == (0, "")
        for record in map(json.loads, result.stdout.splitlines()):
            assert (record["status"], record["key"], record["old_key"], record["model"]) == (
                "removed",
                None,
                "7A",
                None,
            )
        for path in album.iterdir():
            assert key_in(path) is None
            assert "7A" not in repr(mutagen.File(path).tags)
        assert set(statuses(invoke("tag", album, "--remove", "--write-tags", *fields)).values()) == {"unchanged"}


class TestNoMusic:
    def test_a_folder_without_music(self, invoke: Invoke, tmp_path: Path) -> None:
        (tmp_path / "cover.jpg").write_bytes(b"\xff\xd8")
        result = invoke("tag", tmp_path, "--write-tags")
        assert (result.exit_code, result.stdout, result.stderr) == (
            1,
            "",
            f"stone: no music files found in {tmp_path}\n",
        )

    @pytest.mark.parametrize("command", ["tag", "convert"])
    @pytest.mark.parametrize("has_old", [True, False])
    def test_without_music_no_output_is_written(
        self, invoke: Invoke, tmp_path: Path, command: str, has_old: bool
    ) -> None:
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

    def test_missing_paths(self, invoke: Invoke, song: CopySong, tmp_path: Path) -> None:
        good = song("flac")
        result = invoke("tag", tmp_path / "none.mp3", good, tmp_path / "[red]\x1b[31m", "--write-tags")
        assert result.exit_code == 1
        assert result.stderr.splitlines() == [
            f"{tmp_path}/none.mp3: no such file or folder",
            f"{tmp_path}/[red]\\x1b[31m: no such file or folder",
        ]
        assert key_in(good) == "7A"
