"""``--bpm``: the tempo beside the key in tags, tables, playlists and mixes; and nothing of it without the option."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import mutagen
import numpy as np
import pytest
import soundfile
from mutagen.flac import FLAC
from mutagen.id3 import TXXX
from mutagen.mp3 import MP3

from stonecli.cache.results import FILE_NAME
from stonecli.errors import OutputError
from stonecli.output.results import results_at
from stonecli.tags import read_tags
from stonecli.util.app_dirs import cache_folder
from tests.fixture_types import CopySong, Encode, Invoke, MakeMusic
from tests.stonecli.tempo.sounds import drum_loop

BPM = 124.0


@pytest.fixture(scope="module")
def grooves(tmp_path_factory: pytest.TempPathFactory, music: MakeMusic, encode: Encode) -> Mapping[str, Path]:
    """16 s in D minor with drums, by container; not to be changed."""
    folder = tmp_path_factory.mktemp("grooves")
    samples = music("D minor", rate=44100)
    samples = 0.4 * samples + 0.6 * drum_loop(BPM, len(samples) / 44100, 44100)[: len(samples)]
    return {name: encode(samples, 44100, name, folder / name.replace(" ", "-")) for name in ("flac", "mp3", "m4a aac")}


@pytest.fixture
def groove(grooves: Mapping[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of such a file."""

    def copy(name: str) -> Path:
        path = tmp_path / "music" / grooves[name].name
        path.parent.mkdir(exist_ok=True)
        return Path(shutil.copy(grooves[name], path))

    return copy


class TestTag:
    @pytest.mark.parametrize("container", ["flac", "mp3", "m4a aac"])
    def test_key_and_tempo_are_written_and_undone(
        self, invoke: Invoke, groove: Callable[[str], Path], container: str
    ) -> None:
        path = groove(container)
        before = path.read_bytes()
        result = invoke("tag", "--bpm", "--write-tags", path)
        header, row = (line.split("\t") for line in result.stdout.splitlines()[:2])
        assert header == ["file", "old key", "new key", "confidence", "bpm", "status"]
        assert (row[2], row[4], row[5]) == ("7A", "124", "written")
        tags = read_tags(path)
        assert (tags.text, tags.bpm_text) == ("7A", "124")
        assert invoke("undo").exit_code == 0
        assert path.read_bytes() == before

    def test_preview_changes_nothing(self, invoke: Invoke, groove: Callable[[str], Path]) -> None:
        path = groove("flac")
        before = path.read_bytes()
        assert "124" in invoke("tag", "--bpm", path).stdout
        assert path.read_bytes() == before

    def test_a_file_with_a_key_gets_the_tempo_and_keeps_the_key(
        self, invoke: Invoke, groove: Callable[[str], Path]
    ) -> None:
        path = groove("flac")
        tags = FLAC(path)
        tags["INITIALKEY"] = "1A"
        tags.save()
        preview = invoke("tag", "--bpm", path).stdout.splitlines()[1].split("\t")
        assert preview[1:3] + preview[4:] == ["1A", "", "124", "tempo missing"]
        assert '"status": "tempo missing"' in invoke("tag", "--bpm", "--json", path).stdout
        fields = ("--field", "key", "--field", "comment")
        assert "incomplete" in invoke("tag", "--bpm", *fields, path).stdout  # the comment lacks the key, too
        assert invoke("tag", "--bpm", "--write-tags", path).exit_code == 0
        assert (read_tags(path).text, read_tags(path).bpm_text) == ("1A", "124")

    def test_an_unreadable_key_does_not_prevent_the_tempo(self, invoke: Invoke, groove: Callable[[str], Path]) -> None:
        path = groove("flac")
        tags = FLAC(path)
        tags["INITIALKEY"] = "who knows"
        tags.save()
        assert "unreadable key" in invoke("tag", "--bpm", path).stdout
        assert invoke("tag", "--bpm", "--write-tags", "--field", "key", "--field", "comment", path).exit_code == 0
        assert (FLAC(path).get("INITIALKEY"), FLAC(path).get("BPM"), FLAC(path).get("COMMENT")) == (
            ["who knows"],
            ["124"],
            None,
        )

    def test_a_tempo_in_the_file_is_kept_until_overwrite(self, invoke: Invoke, groove: Callable[[str], Path]) -> None:
        path = groove("flac")
        tags = FLAC(path)
        tags["BPM"] = "62.00"
        tags.save()
        assert invoke("tag", "--bpm", "--write-tags", path).exit_code == 0
        assert (read_tags(path).text, read_tags(path).bpm_text) == ("7A", "62.00")
        assert invoke("tag", "--bpm", "--overwrite", "--write-tags", path).exit_code == 0
        assert read_tags(path).bpm_text == "124"

    def test_a_tempo_of_zero_does_not_count(self, invoke: Invoke, groove: Callable[[str], Path]) -> None:
        path = groove("m4a aac")
        tags = mutagen.File(path)
        tags["tmpo"] = [0]
        tags.save()
        assert invoke("tag", "--bpm", "--write-tags", path).exit_code == 0
        assert mutagen.File(path)["tmpo"] == [124]

    def test_the_second_run_writes_nothing(self, invoke: Invoke, groove: Callable[[str], Path]) -> None:
        path = groove("mp3")
        invoke("tag", "--bpm", "--write-tags", path)
        before = path.stat()
        result = invoke("tag", "--bpm", "--write-tags", path)
        assert "kept" in result.stdout
        after = path.stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)

    @pytest.mark.parametrize(("limits", "bpm"), [("80-160", "124"), ("60-110", "62"), ("140-280", "248")])
    def test_range(self, invoke: Invoke, groove: Callable[[str], Path], limits: str, bpm: str) -> None:
        path = groove("flac")
        assert invoke("tag", "--bpm", "--bpm-range", limits, "--write-tags", path).exit_code == 0
        assert read_tags(path).bpm_text == bpm

    @pytest.mark.parametrize("limits", ["160-80", "80", "0-100", "80-9000", "a-b", "nan-100", ""])
    def test_wrong_range(self, invoke: Invoke, groove: Callable[[str], Path], limits: str) -> None:
        result = invoke("tag", "--bpm", "--bpm-range", limits, groove("flac"))
        assert result.exit_code == 2
        assert "--bpm-range" in result.stderr

    @pytest.mark.parametrize(
        ("options", "bpm"), [(["--bpm-range", "60-110"], "62"), (["--bpm-range", "60-110", "--no-bpm"], None)]
    )
    def test_a_range_alone_asks_for_the_tempo(
        self, invoke: Invoke, groove: Callable[[str], Path], options: list[str], bpm: str | None
    ) -> None:
        path = groove("flac")
        assert invoke("tag", *options, "--write-tags", path).exit_code == 0
        assert read_tags(path).bpm_text == bpm

    def test_a_configured_range_alone_asks_for_the_tempo(self, invoke: Invoke, groove: Callable[[str], Path]) -> None:
        invoke("config", "set", "tag.bpm-range", "60-110")
        path = groove("flac")
        assert json.loads(invoke("tag", "--json", path).stdout)["bpm"] == 62.0
        assert "bpm" not in json.loads(invoke("tag", "--json", "--no-bpm", path).stdout)
        assert invoke("tag", "--remove", path).exit_code == 0

    def test_a_tempo_in_another_field_is_kept(self, invoke: Invoke, groove: Callable[[str], Path]) -> None:
        path = groove("mp3")
        file = MP3(path)
        file.add_tags()
        file["TXXX:BPM"] = TXXX(desc="BPM", text=["62"])
        file.save()
        assert json.loads(invoke("tag", "--bpm", "--write-tags", "--json", path).stdout)["bpm"] == 62.0
        assert "TBPM" not in MP3(path)

    def test_a_file_without_a_beat_gets_no_tempo(self, invoke: Invoke, song: CopySong) -> None:
        path = song("flac")
        assert invoke("tag", "--bpm", "--write-tags", path).exit_code == 0
        assert read_tags(path).text == "7A"

    def test_remove_does_not_take_it(self, invoke: Invoke, groove: Callable[[str], Path]) -> None:
        result = invoke("tag", "--bpm", "--remove", groove("flac"))
        assert result.exit_code == 2
        assert "stone undo" in result.stderr

    def test_default_in_the_config_file(self, invoke: Invoke, groove: Callable[[str], Path]) -> None:
        assert invoke("config", "set", "tag.bpm", "true").exit_code == 0
        assert invoke("config", "set", "tag.bpm-range", "60-110").exit_code == 0
        path = groove("flac")
        assert invoke("tag", "--write-tags", path).exit_code == 0
        assert read_tags(path).bpm_text == "62"
        assert invoke("config", "set", "tag.bpm-range", "9-1").exit_code == 2


class TestCache:
    def test_the_second_run_does_not_analyze(
        self, invoke: Invoke, groove: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = groove("flac")
        first = json.loads(invoke("tag", "--bpm", "--json", path).stdout)
        with closing(sqlite3.connect(cache_folder() / FILE_NAME)) as database:
            (times,) = database.execute("SELECT count(*) FROM estimates").fetchone()
        assert times == 2  # the key and the tempo
        monkeypatch.setattr("stonecli.tagging.tagger.detect_key", None)  # an analysis would fail
        assert json.loads(invoke("tag", "--bpm", "--json", path).stdout) == first

    def test_a_key_from_an_earlier_run_does_not_hide_the_tempo(
        self, invoke: Invoke, groove: Callable[[str], Path]
    ) -> None:
        path = groove("flac")
        invoke("tag", path)
        assert json.loads(invoke("tag", "--bpm", "--json", path).stdout)["bpm"] == BPM

    def test_tempos_are_not_counted_as_results(self, invoke: Invoke, groove: Callable[[str], Path]) -> None:
        invoke("tag", "--bpm", groove("flac"))
        assert ": 1 results" in invoke("cache").stdout


class TestOutputs:
    def test_json(self, invoke: Invoke, groove: Callable[[str], Path]) -> None:
        record = json.loads(invoke("tag", "--bpm", "--json", groove("flac")).stdout)
        assert (record["bpm"], record["old_bpm"]) == (BPM, None)
        assert set(record["tempo"]) == {"bpm", "confidence", "alternative", "stability", "steady"}
        assert record["tempo"]["steady"] is True
        assert record["tempo"]["alternative"] == pytest.approx(62.0, abs=0.1)

    def test_table_files(self, invoke: Invoke, groove: Callable[[str], Path], tmp_path: Path) -> None:
        path = groove("flac")
        for ending in ("csv", "json", "ndjson"):
            assert invoke("tag", "--bpm", "--output", tmp_path / f"out.{ending}", path).exit_code == 0
        (row,) = csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text()))
        assert (row["bpm"], row["old_bpm"]) == ("124.0", "")
        assert json.loads((tmp_path / "out.json").read_text())[0]["bpm"] == BPM

    def test_parquet(self, invoke: Invoke, groove: Callable[[str], Path], tmp_path: Path) -> None:
        parquet = pytest.importorskip("pyarrow.parquet")
        assert invoke("tag", "--bpm", "--output", tmp_path / "out.parquet", groove("flac")).exit_code == 0
        (row,) = parquet.read_table(tmp_path / "out.parquet").to_pylist()
        assert (row["bpm"], row["tempo"]["steady"]) == (BPM, True)

    def test_rekordbox_and_page_of_a_preview(
        self, invoke: Invoke, groove: Callable[[str], Path], tmp_path: Path
    ) -> None:
        page, collection = tmp_path / "page.html", tmp_path / "collection.xml"
        assert invoke("tag", "--bpm", "--html", page, "--rekordbox", collection, groove("flac")).exit_code == 0
        (track,) = ElementTree.fromstring(collection.read_text(encoding="utf-8")).iterfind("COLLECTION/TRACK")  # noqa: S314
        assert track.get("AverageBpm") == "124.00"
        assert '"bpm":124.0' in page.read_text(encoding="utf-8")

    def test_analyze(self, invoke: Invoke, groove: Callable[[str], Path]) -> None:
        path = groove("flac")
        text = invoke("analyze", "--bpm", path).stdout
        assert "124 BPM (or 62)" in text
        assert "steady" in text
        record = json.loads(invoke("analyze", "--bpm", "--json", path).stdout)
        assert record["tempo"]["bpm"] == pytest.approx(BPM, abs=0.1)

    def test_analyze_with_a_range(self, invoke: Invoke, groove: Callable[[str], Path], tmp_path: Path) -> None:
        path = groove("flac")
        text = invoke("analyze", "--bpm-range", "60-110", "--html", tmp_path / "page.html", path).stdout
        assert "62 BPM (estimated as 124)" in text
        assert '"bpm":62.0' in (tmp_path / "page.html").read_text(encoding="utf-8")
        record = json.loads(invoke("analyze", "--bpm-range", "60-110", "--json", path).stdout)
        assert (record["bpm"], round(record["tempo"]["bpm"])) == (62.0, 124)

    def test_ndjson_without_tempos_is_not_continued_with_bpm(self, tmp_path: Path) -> None:
        path = tmp_path / "out.ndjson"
        for bpm in (True, False):
            with results_at(path, bpm=bpm) as results:
                results.write({"path": "a", **({"bpm": None} if bpm else {})})
        with pytest.raises(OutputError, match="without --bpm; choose another name"), results_at(path, bpm=True):
            pass

    def test_analyze_of_a_sound_without_a_beat(self, invoke: Invoke, tmp_path: Path) -> None:
        soundfile.write(tmp_path / "noise.wav", 0.1 * np.random.default_rng(0).standard_normal(8 * 22050), 22050)
        assert "no tempo" in invoke("analyze", "--bpm", tmp_path / "noise.wav").stdout

    def test_mix_measures_files_without_a_tempo(self, invoke: Invoke, groove: Callable[[str], Path]) -> None:
        path = groove("flac")
        before = path.read_bytes()

        def tempos(*options: str) -> Any:
            result = json.loads(invoke("mix", "--json", *options, path.parent).stdout)
            return [track["bpm"] for track in result["tracks"]]

        assert tempos() == [None]
        assert tempos("--bpm") == [BPM]
        assert tempos("--bpm-range", "60-110") == [62.0]
        assert path.read_bytes() == before


class TestWithoutTheOption:
    def test_outputs_have_no_tempo(self, invoke: Invoke, groove: Callable[[str], Path], tmp_path: Path) -> None:
        path = groove("flac")
        invoke("tag", "--bpm", path)  # a tempo in the cache
        record = json.loads(invoke("tag", "--json", "--output", tmp_path / "out.csv", path).stdout)
        assert not {"tempo", "bpm", "old_bpm"} & set(record)
        assert "bpm" not in (tmp_path / "out.csv").read_text().splitlines()[0]
        assert "bpm" not in invoke("tag", path).stdout.splitlines()[0]
        assert "BPM" not in invoke("analyze", path).stdout

    def test_nothing_of_the_tempo_is_loaded(self, groove: Callable[[str], Path]) -> None:
        script = (
            "import sys; from stonecli.cli.main import run\n"
            "try: run()\nexcept SystemExit: pass\n"
            "print(sorted(name for name in sys.modules if name.startswith('stonecli.tempo.')), file=sys.stderr)"
        )
        run = subprocess.run(
            [sys.executable, "-c", script, "tag", str(groove("flac"))], capture_output=True, text=True, check=True
        )
        assert run.stderr.splitlines()[-1] == "['stonecli.tempo.bpm']"
