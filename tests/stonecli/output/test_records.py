import json
from collections.abc import Callable
from pathlib import Path

import pytest

from stonecli.detection.estimate import KeyEstimate
from stonecli.key import Key
from stonecli.model.session import KeyModel
from stonecli.output.records import CSV_COLUMNS, estimate_record, tag_record, tag_row
from stonecli.tagging import TagResult

EstimateOf = Callable[..., KeyEstimate]
CONTRACT = [
    *("path", "key", "confidence", "alternatives", "tuning_cents", "duration", "segments"),
    *("first_key", "last_key", "other_name", "tuning_confidence", "model", "error"),
]
CONTRACT_CSV = ["path", "camelot", "key", "open_key", "confidence", "old_key", "tuning_cents", "duration", "error"]
AM = {"musical": "Am", "camelot": "8A", "open_key": "1m"}


def test_the_record_of_an_estimate(estimate_of: EstimateOf, key_model: KeyModel) -> None:
    record = estimate_record(Path("a/b.mp3"), estimate_of("Am", changes_to="C"), None, key_model)
    assert list(record) == CONTRACT
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["path"] == "a/b.mp3"
    assert record["key"] == AM
    assert record["confidence"] == 0.8
    assert record["tuning_cents"] == -12.3
    assert record["duration"] == 3725.679
    assert len(record["alternatives"]) == 3
    assert record["alternatives"][0].keys() == {"key", "probability"}
    assert AM not in [other["key"] for other in record["alternatives"]]
    assert record["segments"] == [
        {"start": 0.0, "end": 15.0, "key": AM, "confidence": 0.8},
        {"start": 15.0, "end": 30.0, "key": {"musical": "C", "camelot": "8B", "open_key": "1d"}, "confidence": 0.8},
    ]
    assert record["model"] == f"stone_8.onnx@{key_model.sha256[:12]}"
    assert record["error"] is None


def test_windows_come_only_when_asked_for(estimate_of: EstimateOf, key_model: KeyModel) -> None:
    record = estimate_record(Path("a"), estimate_of("Am"), None, key_model, per_window=True)
    assert list(record) == [*CONTRACT[:7], "windows", *CONTRACT[7:]]
    assert record["windows"] == [
        {"start": 0.0, "end": 15.0, "key": AM, "confidence": 0.8},
        {"start": 15.0, "end": 30.0, "key": AM, "confidence": 0.8},
    ]
    silent = estimate_record(Path("a"), estimate_of(None), None, key_model, per_window=True)
    assert silent["windows"] == [{"start": 0.0, "end": 15.0, "key": None, "confidence": 0.0}]


def test_no_key_is_null(estimate_of: EstimateOf, key_model: KeyModel) -> None:
    record = estimate_record(Path("a"), estimate_of(None), None, key_model)
    assert list(record) == CONTRACT
    assert (record["key"], record["confidence"], record["tuning_cents"]) == (None, 0.0, None)
    assert (record["alternatives"], record["segments"]) == ([], [])


def test_an_error_has_the_same_fields(key_model: KeyModel) -> None:
    record = estimate_record(Path("a"), None, "truncated", key_model)
    assert list(record) == CONTRACT
    assert record["error"] == "truncated"
    assert (record["key"], record["confidence"], record["duration"]) == (None, None, None)


def test_the_record_of_a_tagged_file(estimate_of: EstimateOf, key_model: KeyModel) -> None:
    result = TagResult(Path("a"), "written", Key.parse("Am"), "8B", Key.parse("C"), estimate_of("Am"))
    record = tag_record(Path("a"), result, None, key_model)
    added = ["old_key", "status", "detected_key", "tag_key", "relation", "old_key_from", "other_tag_key"]
    assert list(record) == [*CONTRACT, *added]
    assert (record["old_key_from"], record["other_tag_key"]) == ("tag", None)
    assert (record["key"], record["old_key"], record["status"]) == (AM, "8B", "written")


def test_a_skipped_file_has_its_old_key(key_model: KeyModel) -> None:
    record = tag_record(
        Path("a"), TagResult(Path("a"), "kept", Key.parse("Am"), "8a", Key.parse("Am"), None), None, key_model
    )
    assert (record["key"], record["confidence"], record["old_key"], record["status"]) == (AM, None, "8a", "kept")


def test_a_failed_file(key_model: KeyModel) -> None:
    record = tag_record(Path("a"), None, "truncated", key_model)
    assert (record["old_key"], record["status"], record["error"]) == (None, "error", "truncated")
    assert tag_row(record) == dict.fromkeys(CSV_COLUMNS, "") | {"path": "a", "error": "truncated", "status": "error"}


def test_the_row_of_a_table(estimate_of: EstimateOf, key_model: KeyModel) -> None:
    assert list(CSV_COLUMNS) == [*CONTRACT_CSV, "status", "detected_key", "tag_key", "relation"]
    result = TagResult(Path("a"), "detected", Key.parse("Am"), None, None, estimate_of("Am"))
    row = tag_row(tag_record(Path("a"), result, None, key_model))
    assert list(row) == list(CSV_COLUMNS)
    assert list(row.values()) == ["a", "8A", "Am", "1m", 0.8, "", -12.3, 3725.679, "", "detected", "Am", "", ""]


def test_the_relation_of_the_tag_to_the_detected_key(estimate_of: EstimateOf, key_model: KeyModel) -> None:
    result = TagResult(Path("a"), "kept", Key.parse("C"), "C maj", Key.parse("C"), estimate_of("Am"))
    record = tag_record(Path("a"), result, None, key_model)
    assert (record["tag_key"]["musical"], record["detected_key"], record["relation"]) == ("C", AM, "relative")
    assert [tag_row(record)[name] for name in ("tag_key", "relation")] == ["C", "relative"]
    for old, estimate in ((None, estimate_of("Am")), (Key.parse("C"), estimate_of(None)), (Key.parse("C"), None)):
        assert TagResult(Path("a"), "kept", old, None, old, estimate).relation is None


@pytest.mark.parametrize("name", ["[red]\n\x1b", "\udcff", "🎹"])
def test_names_survive_json(key_model: KeyModel, name: str) -> None:
    text = json.dumps(estimate_record(Path(name), None, "x", key_model))
    assert text.isascii()
    assert "\n" not in text
    assert json.loads(text)["path"] == name
