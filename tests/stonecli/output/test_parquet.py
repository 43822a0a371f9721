import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stonecli.detection.estimate import KeyEstimate
from stonecli.errors import OutputError
from stonecli.output.parquet import ParquetFolder, schema
from stonecli.output.records import tag_record
from stonecli.tagging import TagResult
from tests.fixture_types import LimitFileSize

parquet = pytest.importorskip("pyarrow.parquet", reason="needs stonecli[parquet]")

Make = Callable[..., KeyEstimate]


@pytest.fixture
def records(estimate_of: Make) -> list[dict[str, Any]]:
    """Ten records as stone tag makes them: detected, without a key, failed, and with names that are no text."""
    found = []
    for number in range(7):
        path = Path(f"/music/{number}.mp3")
        found.append(
            tag_record(
                path, TagResult(path, "written", None, "8A", None, estimate_of("F#m", changes_to="A")), None, None
            )
        )
    odd = Path(os.fsdecode(b"/music/\xff.mp3"))
    found.append(tag_record(odd, TagResult(odd, "no key", None, "x\udcfe", None, estimate_of(None)), None, None))
    found.append(tag_record(Path("/gone.mp3"), None, "no such file", None))
    found.append(tag_record(Path("/kept.mp3"), TagResult(Path("/kept.mp3"), "kept", None, "?", None, None), None, None))
    return found


def write(path: Path, records: list[dict[str, Any]], rows: int = 4) -> None:
    with ParquetFolder(path, rows=rows) as folder:
        for record in records:
            folder.write(record)


def plain(record: dict[str, Any]) -> dict[str, Any]:
    """The record as Parquet has it: no lone surrogates, and not the fields of JSON alone (docs/formats.md)."""
    return {
        name: value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
        for name, value in record.items()
        if name not in ("old_key_from", "other_tag_key")
    }


def test_the_table_is_that_of_the_json(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    path = tmp_path / "keys.parquet"
    write(path, records)
    assert sorted(part.name for part in path.iterdir()) == [f"part-{number:05}.parquet" for number in range(3)]
    table = parquet.read_table(path)
    assert table.schema.equals(schema())
    assert table.to_pylist() == [plain(record) for record in records]


def test_a_second_run_appends(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    path = tmp_path / "keys.parquet"
    write(path, records[:6])
    with ParquetFolder(path) as folder:
        assert len(folder.seen) == 6
        left = [record for record in records if folder.seen.add(record["path"])]
        assert left == records[6:]
        for record in left:
            folder.write(record)
    assert parquet.read_table(path)["path"].to_pylist() == [plain(record)["path"] for record in records]
    with ParquetFolder(path) as folder:
        assert [record for record in records if folder.seen.add(record["path"])] == []
    assert len(list(path.iterdir())) == 3


def test_rows_without_a_tempo_are_not_mixed_with_others(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    path = tmp_path / "keys.parquet"
    write(path, records[:2])
    with pytest.raises(OutputError) as caught, ParquetFolder(path, bpm=True):
        pass
    assert str(caught.value) == f"{path}: its rows were saved without --bpm; choose another name"
    assert parquet.read_table(path).num_rows == 2


def test_a_run_without_bpm_appends_to_rows_with_a_tempo(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    path = tmp_path / "keys.parquet"
    for number, bpm in enumerate((True, False)):
        with ParquetFolder(path, bpm=bpm) as folder:
            folder.write(records[number])
    for part in path.iterdir():
        assert parquet.read_schema(part).equals(schema(bpm=True))


@pytest.mark.parametrize("when", ["nothing", "pending", "half a part", "part, and pending not cleared", "torn line"])
def test_a_program_that_dies(tmp_path: Path, records: list[dict[str, Any]], when: str) -> None:
    path = tmp_path / "keys.parquet"
    folder = ParquetFolder(path, rows=4).__enter__()  # never left
    for record in records[: 0 if when == "nothing" else 7]:
        folder.write(record)
    pending = path / "_pending.ndjson"
    lost = 7
    if when == "half a part":
        whole = (path / "part-00000.parquet").read_bytes()
        (path / ".part-00001.tmp").write_bytes(whole[: len(whole) // 2])
    elif when.startswith("part"):
        folder._log.clear = lambda: None  # type: ignore[method-assign]
        folder._make_part()
    elif when == "torn line":
        pending.write_bytes(pending.read_bytes()[:-20])
        lost = 6
    folder._log._file.close()

    with ParquetFolder(path) as again:
        assert len(again.seen) == (0 if when == "nothing" else lost)
        for record in records:
            if again.seen.add(record["path"]):
                again.write(record)
    assert sorted(parquet.read_table(path)["path"].to_pylist()) == sorted(plain(record)["path"] for record in records)
    assert {part.suffix for part in path.iterdir()} == {".parquet"}


def test_foreign_files_are_not_touched(tmp_path: Path) -> None:
    import pyarrow

    path = tmp_path / "keys.parquet"
    path.mkdir()
    other = path / "other.parquet"
    parquet.write_table(pyarrow.table({"x": [1]}), other)
    for content in (other.read_bytes(), b"PAR1 and no more", b""):
        other.write_bytes(content)
        with pytest.raises(OutputError, match="move it away"), ParquetFolder(path):
            pass
        assert other.read_bytes() == content


def test_a_damaged_part_is_named(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    path = tmp_path / "keys.parquet"
    write(path, records, rows=10)
    part = path / "part-00000.parquet"
    whole = part.read_bytes()
    refused = 0
    for at in range(0, len(whole), 13):
        part.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
        try:
            with ParquetFolder(path):
                pass
        except OutputError as error:
            assert str(error) == f"{part}: not a table of stone tag; move it away"  # noqa: PT017
            refused += 1
    assert refused > 100


def test_the_companion_files_of_macos_are_ignored(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    path = tmp_path / "keys.parquet"
    write(path, records[:5])
    for part in list(path.iterdir()):
        (path / f"._{part.name}").write_bytes(b"\0\5\x16\7")
    write(path, records[5:])
    assert parquet.read_table(path)["path"].to_pylist() == [plain(record)["path"] for record in records]


def test_a_folder_whose_name_is_not_utf_8(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    path = tmp_path / os.fsdecode(b"\xff.parquet")
    try:
        path.mkdir()
    except OSError:
        pytest.skip("no such names here")
    write(path, records)
    with ParquetFolder(path) as folder:
        assert len(folder.seen) == len(records)


def test_a_full_disk_is_named_and_nothing_is_lost(
    tmp_path: Path, records: list[dict[str, Any]], no_room: LimitFileSize
) -> None:
    path = tmp_path / "keys.parquet"
    with ParquetFolder(path) as folder:
        folder.write(records[-1])
        with pytest.raises(OSError, match="File too large") as caught, no_room():
            folder._make_part()
    assert caught.value.filename == str(path / "part-00000.parquet")
    with ParquetFolder(path) as folder:
        assert len(folder.seen) == 1


def test_a_full_disk_leaves_no_empty_folder(
    tmp_path: Path, records: list[dict[str, Any]], no_room: LimitFileSize
) -> None:
    (tmp_path / "old.parquet").mkdir()
    for name in ("new.parquet", "old.parquet"):
        with ParquetFolder(tmp_path / name) as folder, pytest.raises(OSError, match="File too large"), no_room(0):
            folder.write(records[-1])
    assert [*tmp_path.rglob("*")] == [tmp_path / "old.parquet"]


def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    path = tmp_path / "x.parquet"
    with ParquetFolder(path), pytest.raises(OutputError, match="another run"), ParquetFolder(path):
        pass
