import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stonecli.errors import OutputError
from stonecli.output.resumable import ResumableLog
from tests.fixture_types import LimitFileSize

RECORDS: list[dict[str, Any]] = [
    {"path": "/a.mp3", "error": None},
    {"path": "/ü\udcff\n.mp3", "old_key": "8A\u2028"},
    {"path": "s3://b/c.mp3", "segments": [{"start": 0.0}]},
]


def written(path: Path, records: list[dict[str, Any]] = RECORDS) -> bytes:
    with ResumableLog(path) as log:
        for record in records:
            log.write(record)
    return path.read_bytes()


def test_an_object_a_line(tmp_path: Path) -> None:
    assert [json.loads(line) for line in written(tmp_path / "x.ndjson").splitlines()] == RECORDS


def test_the_file_is_complete_at_all_times(tmp_path: Path) -> None:
    path = tmp_path / "x.ndjson"
    with ResumableLog(path) as log:
        for count, record in enumerate(RECORDS, 1):
            log.write(record)
            assert len(path.read_bytes().splitlines()) == count


def test_a_cut_anywhere_costs_the_line_that_it_cuts(tmp_path: Path) -> None:
    path = tmp_path / "x.ndjson"
    whole = written(path)
    ends = [at for at, byte in enumerate(whole) if byte == 10]
    for length in {0, 1, 5, 8, 20, *ends, *(end + 1 for end in ends), *(end + 3 for end in ends[:-1])}:
        path.write_bytes(whole[:length])
        with ResumableLog(path) as log:
            kept = whole[:length].count(b"\n")
            assert len(log.seen) == kept
            assert all(not log.seen.add(record["path"]) for record in RECORDS[:kept])
            for record in RECORDS[kept:]:
                log.write(record)
        assert path.read_bytes() == whole


def test_blocks_that_a_power_cut_left_empty(tmp_path: Path) -> None:
    path = tmp_path / "x.ndjson"
    whole = written(path)
    path.write_bytes(whole + bytes(4096))
    with ResumableLog(path) as log:
        assert len(log.seen) == len(RECORDS)
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "content", [b"hello\n", b"hello", b"[1, 2]\n", b'{"path": 3}\n', b'{"path": "a"}\nnull\n', b"\xff\n", b"[" * 9999]
)
def test_foreign_files_stay_unchanged(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.ndjson"
    path.write_bytes(content)
    with pytest.raises(OutputError, match="move"), ResumableLog(path):
        pass
    assert path.read_bytes() == content


def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    path = tmp_path / "x.ndjson"
    with ResumableLog(path) as log:
        log.write(RECORDS[0])
        with pytest.raises(OutputError, match="another run"), ResumableLog(path):
            pass
    assert len(path.read_bytes().splitlines()) == 1


@settings(max_examples=20)  # each is flushed to the disk
@given(st.lists(st.dictionaries(st.text(), st.text() | st.none() | st.floats(allow_nan=False)), min_size=1))
def test_any_record_is_read_back(tmp_path_factory: pytest.TempPathFactory, extras: list[dict[str, Any]]) -> None:
    path = tmp_path_factory.mktemp("log") / "x.ndjson"
    records = [
        {"path": str(number)} | {f"x{name}": value for name, value in extra.items()}
        for number, extra in enumerate(extras)
    ]
    written(path, records)
    with ResumableLog(path) as log:
        assert list(log.records()) == records


def test_a_full_disk_is_named_and_leaves_no_part_of_a_line(tmp_path: Path, no_room: LimitFileSize) -> None:
    path = tmp_path / "x.ndjson"
    record = {"path": "/a.mp3", "error": "x" * 400}
    with ResumableLog(path) as log:
        log.write(record)
        log.write(record)
        with pytest.raises(OSError, match="File too large") as caught, no_room():
            log.write(record)
    assert caught.value.filename == str(path)
    assert path.read_bytes().endswith(b"\n")
    with ResumableLog(path) as log:
        assert list(log.records()) == [record] * 2


def test_a_full_disk_leaves_no_empty_file(tmp_path: Path, no_room: LimitFileSize) -> None:
    new, old = tmp_path / "new.ndjson", tmp_path / "old.ndjson"
    old.touch()
    for path in (new, old):
        with ResumableLog(path) as log, pytest.raises(OSError, match="File too large"), no_room(0):
            log.write({"path": "/a.mp3"})
    assert [(path.name, path.stat().st_size) for path in tmp_path.iterdir()] == [("old.ndjson", 0)]


def test_a_run_without_records_leaves_no_file(tmp_path: Path) -> None:
    with ResumableLog(tmp_path / "x.ndjson"):
        pass
    assert not [*tmp_path.iterdir()]
