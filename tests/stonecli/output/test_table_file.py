import csv
import json
import os
import re
import stat
from pathlib import Path
from typing import Any

import pytest

from stonecli.errors import StoneError
from stonecli.key import Key
from stonecli.model.session import KeyModel
from stonecli.output import TABLE_SUFFIXES
from stonecli.output.records import CSV_COLUMNS, tag_record
from stonecli.output.table_file import OutputFile
from stonecli.tagging import TagResult
from stonecli.util.text import unescaped
from tests.fixture_types import LimitFileSize, MakeEstimate

NAMES = ["plain.mp3", 'quo"te, comma;\n=1+1.mp3', "Björk 🎹.mp3", "\udcff.mp3"]


@pytest.fixture
def records(key_model: KeyModel, estimate_of: MakeEstimate) -> list[dict[str, Any]]:
    estimate = estimate_of("Am")
    found = [TagResult(Path(name), "detected", Key.parse("Am"), None, None, estimate) for name in NAMES]
    return [tag_record(result.path, result, None, key_model) for result in found]


def written(path: Path, records: list[dict[str, Any]]) -> str:
    with OutputFile(path) as file:
        for record in records:
            file.write(record)
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["out.csv", "OUT.CSV"])
def test_csv(tmp_path: Path, records: list[dict[str, Any]], name: str) -> None:
    written(tmp_path / name, records)
    with (tmp_path / name).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert [unescaped(row["path"]) for row in rows] == NAMES
    assert {row["camelot"] for row in rows} == {"8A"}
    assert b"\n\\udcff.mp3,8A," in (tmp_path / name).read_bytes()  # no byte that is not UTF-8


def test_json(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    assert json.loads(written(tmp_path / "out.json", records)) == records
    assert json.loads(written(tmp_path / "out.json", records[:1])) == records[:1]
    assert json.loads(written(tmp_path / "out.json", [])) == []


def test_ndjson(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    lines = written(tmp_path / "out.ndjson", records).splitlines()
    assert [json.loads(line) for line in lines] == records
    assert written(tmp_path / "out.ndjson", []) == ""


def test_an_empty_table_has_its_header(tmp_path: Path) -> None:
    assert written(tmp_path / "out.csv", []) == ",".join(CSV_COLUMNS) + "\n"
    assert (tmp_path / "out.csv").read_bytes().endswith(b"\r\n")  # as RFC 4180 has it


@pytest.mark.parametrize("name", ["out.txt", "out", "csv", "out.csv.gz"])
def test_other_endings(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=f"must end in {re.escape(', '.join(TABLE_SUFFIXES))}"):
        OutputFile(tmp_path / name)


def test_the_old_file_stays_until_the_end(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    path = tmp_path / "out.ndjson"
    path.write_text("old")
    with OutputFile(path) as file:
        file.write(records[0])
        assert path.read_text() == "old"
    assert path.read_text() != "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.ndjson"]


def test_an_interrupted_run_keeps_the_finished_rows(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    def run(count: int) -> None:
        with OutputFile(tmp_path / "out.json") as file:
            for record in records[:count]:
                file.write(record)
            raise KeyboardInterrupt

    for count in (2, 1):  # the second run does not replace the file of the first
        with pytest.raises(KeyboardInterrupt):
            run(count)
        assert json.loads((tmp_path / "out.json").read_text()) == records[:2]
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.json"]


@pytest.mark.parametrize("ending", ["csv", "json", "ndjson"])
def test_a_failed_run_without_rows_leaves_no_file(tmp_path: Path, ending: str) -> None:
    with pytest.raises(KeyboardInterrupt), OutputFile(tmp_path / f"x.{ending}"):
        raise KeyboardInterrupt
    assert not [*tmp_path.iterdir()]


def test_it_is_as_readable_as_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "any").touch()
    written(tmp_path / "out.csv", [])
    assert stat.S_IMODE((tmp_path / "out.csv").stat().st_mode) == stat.S_IMODE((tmp_path / "any").stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "out.csv").stat().st_mode) == 0o666 & ~mask


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), OutputFile(tmp_path / "none" / "out.csv"):
        pass


@pytest.mark.parametrize("ending", ["csv", "json", "ndjson"])
def test_a_full_disk_is_named(
    tmp_path: Path, records: list[dict[str, Any]], ending: str, no_room: LimitFileSize
) -> None:
    path = tmp_path / f"x.{ending}"
    path.write_text("the table of last time")
    with pytest.raises(OSError, match="File too large") as caught, no_room():
        written(path, records * 20)
    assert caught.value.filename == str(path)
    assert path.read_text() == "the table of last time"
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize(("ending", "times"), [("csv", 10), ("json", 2), ("ndjson", 2)])
def test_a_failed_run_on_a_full_disk_leaves_no_file(
    tmp_path: Path, records: list[dict[str, Any]], ending: str, times: int, no_room: LimitFileSize
) -> None:
    """The rows are still buffered when the run ends, so that they are written only then."""

    def run() -> None:
        with OutputFile(tmp_path / f"x.{ending}") as file:
            for record in times * records:
                file.write(record)
            raise StoneError("the run has failed")

    with pytest.raises(OSError, match="File too large"), no_room():
        run()
    assert not [*tmp_path.iterdir()]
