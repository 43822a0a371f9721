"""A second run over a tagged library: kept files are shown in full, from the result cache, without decoding them."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mutagen.flac import FLAC
from typer.testing import Result

from stonecli.evaluation.labels import read_labels, read_predictions
from stonecli.key import Key
from tests.fixture_types import MakeModel

Invoke = Callable[..., Result]
Song = Callable[..., Path]
# How the run went, not what the track is.
OF_THE_RUN = ("status", "old_key", "tag_key", "relation", "old_key_from", "old", "tag")


@pytest.fixture
def library(song: Song) -> Path:
    for container in ("flac", "mp3", "m4a aac"):
        song(container)
    return song("wav 16 bit").parent


def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stonecli.tagging.tagger.detect_key", lambda *_, **__: pytest.fail("it was decoded"))


def no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stonecli.cache.results.hash_content", "stonecli.tagging.tagger.hash_content"):
        monkeypatch.setattr(name, lambda *_: pytest.fail("its audio was read"))


def write_key_elsewhere(path: Path, text: str) -> None:
    """Write the key field of a FLAC file, as another program would."""
    tags = FLAC(path)
    tags["initialkey"] = text
    tags.save()


def page_tracks(path: Path) -> list[dict[str, Any]]:
    text = path.read_text(encoding="utf-8")
    tracks: list[dict[str, Any]] = json.loads(text.split('id="data">')[1].split("</script>")[0])["tracks"]
    return tracks


def records(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def without(record: dict[str, Any], names: tuple[str, ...] = OF_THE_RUN) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in names}


def outputs(invoke: Invoke, library: Path, folder: Path, *options: str | Path) -> dict[str, Any]:
    """All outputs of one run of ``stone tag``, read back."""
    pyarrow = pytest.importorskip("pyarrow.parquet")
    folder.mkdir()
    targets = ["--playlist", "list.m3u8", "--rekordbox", "list.xml", "--html", "page.html", "--output", "table.csv"]
    targets[1::2] = [str(folder / name) for name in targets[1::2]]
    result = invoke("tag", library, "--json", *targets, *options)
    assert result.exit_code == 0
    again = invoke("tag", library, "--quiet", "--output", folder / "table.parquet")  # a preview
    assert again.exit_code == 0
    with (folder / "table.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    return {
        "json": records(result),
        "csv": table,
        "parquet": pyarrow.read_table(folder / "table.parquet").to_pylist(),
        "html": page_tracks(folder / "page.html"),
        "playlist": (folder / "list.m3u8").read_text().replace(str(folder), ""),
        "rekordbox": (folder / "list.xml").read_text(),
    }


def test_a_second_run_writes_the_same_files_without_decoding(
    invoke: Invoke, library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = outputs(invoke, library, tmp_path / "first", "--write-tags")
    no_decoding(monkeypatch)
    no_reading(monkeypatch)
    second = outputs(invoke, library, tmp_path / "second")
    assert {record["status"] for record in first["json"]} == {"written"}
    for name in ("json", "csv", "html"):
        assert {record["status"] for record in second[name]} == {"kept"}
        assert [without(record) for record in second[name]] == [without(record) for record in first[name]]
    assert (second["playlist"], second["rekordbox"]) == (first["playlist"], first["rekordbox"])
    by_path = {record["path"]: record for record in second["parquet"]}
    assert by_path == {record["path"]: without(record, ("old_key_from", "other_tag_key")) for record in second["json"]}
    for record in second["json"]:
        assert record["key"] == record["detected_key"] == {"musical": "Dm", "camelot": "7A", "open_key": "12m"}
        assert (record["old_key"], len(record["alternatives"]), len(record["segments"])) == ("7A", 3, 1)
        assert record["confidence"] > 0.5
    for row in second["html"]:
        assert (row["detected"], row["old"], len(row["alternatives"])) == (row["key"], "7A", 3)


def test_the_key_of_the_file_stands_beside_the_detected_one(
    invoke: Invoke, song: Song, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = song("flac")
    (before,) = records(invoke("tag", path, "--json"))
    write_key_elsewhere(path, "8B")
    no_decoding(monkeypatch)
    result = invoke("tag", path, "--json", "--output", tmp_path / "a.csv", "--html", tmp_path / "a.html")
    (record,) = records(result)
    assert (record["status"], record["old_key"], record["key"]["musical"]) == ("kept", "8B", "C")
    assert record["detected_key"] == before["detected_key"] == before["key"]
    assert without(record, (*OF_THE_RUN, "key")) == without(before, (*OF_THE_RUN, "key"))
    (row,) = csv.DictReader((tmp_path / "a.csv").read_text().splitlines())
    assert (row["key"], row["camelot"], row["old_key"], row["detected_key"]) == ("C", "8B", "8B", "Dm")
    assert (record["tag_key"]["musical"], record["relation"]) == (row["tag_key"], row["relation"]) == ("C", "clash")
    (track,) = page_tracks(tmp_path / "a.html")
    assert (track["key"], track["detected"], track["old"]) == (Key.parse("C").index, Key.parse("Dm").index, "8B")
    assert (track["in"], track["out"], track["tag"]) == (track["key"], track["key"], track["key"])


def test_unreadable_key_text_has_its_own_status_in_every_output(
    invoke: Invoke, song: Song, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyarrow = pytest.importorskip("pyarrow.parquet")
    path = song("flac")
    assert invoke("tag", path).exit_code == 0  # the cache knows what stone detects
    write_key_elsewhere(path, "8A/9A")
    no_decoding(monkeypatch)
    content = path.read_bytes()
    options = ["--write-tags", "--field", "key", "--field", "comment=camelot"]
    outputs = ["--output", tmp_path / "a.csv", "--html", tmp_path / "a.html"]
    result = invoke("tag", path, "--json", *options, *outputs)
    assert result.exit_code == 0
    assert path.read_bytes() == content
    (record,) = records(result)
    assert (record["status"], record["old_key"], record["key"]) == ("unreadable key", "8A/9A", None)
    assert record["detected_key"]["musical"] == "Dm"
    (row,) = csv.DictReader((tmp_path / "a.csv").read_text().splitlines())
    assert (row["status"], row["old_key"], row["key"], row["detected_key"]) == ("unreadable key", "8A/9A", "", "Dm")
    (track,) = page_tracks(tmp_path / "a.html")
    assert (track["status"], track["old"], track["key"], track["tag"]) == ("unreadable key", "8A/9A", -1, -1)
    assert invoke("tag", path, *options, "--output", tmp_path / "a.parquet").exit_code == 0
    (stored,) = pyarrow.read_table(tmp_path / "a.parquet").to_pylist()
    assert (stored["status"], stored["old_key"], stored["key"]) == ("unreadable key", "8A/9A", None)
    table = invoke("tag", path, *options).stdout.splitlines()
    assert table[1].split("\t")[1:] == ["8A/9A", "", "", "unreadable key"]


@pytest.mark.parametrize("case", ["never analyzed", "no cache", "another model"])
def test_unknown_fields_stay_empty(
    invoke: Invoke,
    song: Song,
    tiny_model: MakeModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    case: str,
) -> None:
    path = song("flac")
    options: dict[str, list[str]] = {
        "never analyzed": [],
        "no cache": ["--no-cache"],
        "another model": ["--model", str(tiny_model(tmp_path / "tiny.onnx"))],
    }
    if case != "never analyzed":
        assert invoke("tag", path).exit_code == 0
    write_key_elsewhere(path, "8B")
    no_decoding(monkeypatch)
    (record,) = records(invoke("tag", path, "--json", "--html", tmp_path / "a.html", *options[case]))
    assert (record["key"]["musical"], record["old_key"], record["status"]) == ("C", "8B", "kept")
    unknown = ("detected_key", "confidence", "tuning_cents", "duration", "first_key", "last_key")
    assert [record[name] for name in unknown] == [None] * len(unknown)
    assert (record["alternatives"], record["segments"]) == ([], [])
    (track,) = page_tracks(tmp_path / "a.html")
    assert (track["detected"], track["confidence"], track["segments"]) == (None, None, [])


def test_a_moved_file_is_found_by_its_audio_which_is_read_once(
    invoke: Invoke, song: Song, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = song("mp3")
    assert invoke("tag", path, "--write-tags").exit_code == 0
    moved = Path(shutil.move(path, tmp_path / "moved.mp3"))
    no_decoding(monkeypatch)
    (record,) = records(invoke("tag", moved, "--json"))
    assert (record["status"], record["detected_key"]["musical"]) == ("kept", "Dm")
    no_reading(monkeypatch)
    assert records(invoke("tag", moved, "--json")) == [record]


def test_a_plain_table_reads_no_audio_of_kept_files(
    invoke: Invoke, song: Song, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = song("flac")
    assert invoke("tag", song("mp3")).exit_code == 0  # something is in the cache
    write_key_elsewhere(path, "8B")
    no_decoding(monkeypatch)
    no_reading(monkeypatch)
    assert invoke("tag", path).stdout.splitlines()[1].split("\t")[1:] == ["8B", "", "", "kept"]


def test_a_file_that_was_completed_is_still_known(invoke: Invoke, song: Song, monkeypatch: pytest.MonkeyPatch) -> None:
    path = song("flac")
    assert invoke("tag", path, "--write-tags").exit_code == 0
    no_decoding(monkeypatch)
    no_reading(monkeypatch)
    for status in ("written", "kept"):
        (record,) = records(invoke("tag", path, "--write-tags", "--field", "comment", "--json"))
        assert (record["status"], record["detected_key"]["musical"]) == (status, "Dm")


def test_a_mix_knows_tuning_of_moved_files(
    invoke: Invoke, song: Song, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = song("mp3")
    assert invoke("tag", path, "--write-tags").exit_code == 0
    (before,) = json.loads(invoke("mix", path, "--json").stdout)["tracks"]
    assert before["tuning_cents"] is not None
    moved = Path(shutil.move(path, tmp_path / "moved.mp3"))
    no_decoding(monkeypatch)
    (after,) = json.loads(invoke("mix", moved, "--json").stdout)["tracks"]
    assert without(after, ("path",)) == without(before, ("path",))


def test_evaluate_compares_with_the_keys_that_another_tool_wrote(invoke: Invoke, song: Song, tmp_path: Path) -> None:
    path = song("flac")
    assert invoke("tag", path).exit_code == 0  # now the cache knows stone's own answer, too
    write_key_elsewhere(path, "8B")
    assert invoke("tag", path, "--output", tmp_path / "them.csv").exit_code == 0
    (tmp_path / "labels.csv").write_text(f"path,key\n{path},Dm\n")
    labels, _ = read_labels(tmp_path / "labels.csv")
    found = read_predictions(tmp_path / "them.csv", labels, tmp_path)
    assert (found.answers, found.unmatched, found.kept) == ((Key.parse("C").index,), 0, 1)
