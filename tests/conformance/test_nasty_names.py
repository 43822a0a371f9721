"""Every output with hostile names and tags: valid UTF-8, and nothing raw that a reader could take for its syntax."""

import csv
import json
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes
from xml.etree import ElementTree

import numpy as np
import pytest

from stonecli.evaluation.labels import Label, Prediction, read_predictions, write_predictions
from stonecli.key import Key
from stonecli.library.locations import Seen
from stonecli.model.session import KeyModel
from stonecli.output import TABLE_SUFFIXES
from stonecli.output.npz import save_npz
from stonecli.output.sinks import Outputs, Targets
from stonecli.tagging import TagResult
from stonecli.tags.track_info import TrackInfo
from stonecli.util.text import unescaped
from tests.fixture_types import MakeEstimate

NAMES = [
    "plain.mp3",
    "=1+2.mp3",
    "y;=1+2.mp3",
    "+a, -b; @c.mp3",
    "quo\"te, and apo'strophe.mp3",
    "new\nline\r\n#EXTM3U\tand tab.mp3",
    "\x01\x1b[31m\x1f\x7f.mp3",
    "next line \x85.mp3",
    "c1 \x80\x9b31m\x9f.mp3",
    "separators \u2028\u2029.mp3",
    "bytes \udcff\udc80.mp3",
    r"literal \udcff \u000a \n.mp3",
    "bidi \u202egpj.mp3",
    "</script><b>&amp;]]>.mp3",
    "Ünïcödé 曲 🎹.mp3",
]
RAW = re.compile("[\0-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029]")  # all but the ends of lines


@pytest.fixture
def written(tmp_path: Path, estimate_of: MakeEstimate, key_model: KeyModel, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with every output of ``stone tag`` for files of these names, whose tags are like them."""
    pytest.importorskip("pyarrow")
    from stonecli.output.parquet import ParquetFolder

    monkeypatch.setattr("stonecli.output.sinks.read_info", lambda path: TrackInfo(path.name, path.name, path.name))
    targets = Targets(None, tmp_path / "a.m3u8", tmp_path / "a.xml", tmp_path / "a.html")
    results = [
        TagResult(Path("/music") / name, "kept", Key.parse("Am"), name, Key.parse("Am"), estimate_of("C"))
        for name in NAMES
    ]
    for name in (f"a{suffix}" for suffix in TABLE_SUFFIXES):
        with Outputs(Targets(tmp_path / name), "camelot", key_model) as outputs:
            for result in results:
                outputs.note(result.path, result, None)
            for name in NAMES:
                outputs.note(Path("/music") / name, None, name)
    with ParquetFolder(tmp_path / "a.parquet") as folder, Outputs(targets, "camelot", key_model, folder) as outputs:
        for result in results:
            outputs.note(result.path, result, None)
    save_npz(tmp_path / "a.npz", [(Path("/music") / name, estimate_of("Am")) for name in NAMES], key_model)
    return tmp_path


def paths() -> list[str]:
    return [f"/music/{name}" for name in NAMES]


@pytest.mark.parametrize("name", [*(f"a{suffix}" for suffix in TABLE_SUFFIXES), "a.m3u8", "a.xml", "a.html"])
def test_every_text_file_is_utf_8_without_raw_control_characters(written: Path, name: str) -> None:
    text = (written / name).read_bytes().decode("utf-8")
    assert RAW.findall(text) == []
    lines = {"a.csv": 1 + 2 * len(NAMES), "a.ndjson": 2 * len(NAMES), "a.json": 2 + 2 * len(NAMES)}
    if name in lines:
        assert len(text.splitlines()) == lines[name]
    if name == "a.m3u8":
        assert len(text.splitlines()) == 1 + 2 * len(NAMES)


def test_csv(written: Path) -> None:
    with (written / "a.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [unescaped(row["path"]) for row in rows] == paths() * 2
    for row in rows:
        assert not any(re.match(r"\s*[=+@\-]", row[column]) for column in ("path", "old_key", "error"))
    with (written / "a.csv").open(encoding="utf-8", newline="") as file:
        assert not any(re.match(r"\s*[=+@]", cell) for row in csv.reader(file, delimiter=";") for cell in row[1:])


@pytest.mark.parametrize("name", ["a.json", "a.ndjson"])
def test_json(written: Path, name: str) -> None:
    text = (written / name).read_text(encoding="utf-8")
    assert text.isascii()
    records = json.loads(text) if name == "a.json" else [json.loads(line) for line in text.splitlines()]
    assert [record["path"] for record in records] == paths() * 2
    assert [record["old_key"] for record in records[: len(NAMES)]] == NAMES


def test_parquet(written: Path) -> None:
    from pyarrow.parquet import read_table

    from stonecli.output.parquet import ParquetFolder

    rows = read_table(written / "a.parquet").to_pylist()
    assert [unescaped(row["path"]) for row in rows] == paths()
    assert [unescaped(row["old_key"]) for row in rows] == NAMES
    assert all(RAW.search(row["path"]) is None for row in rows)
    with ParquetFolder(written / "a.parquet") as folder:  # a later run knows them all
        seen: Seen = folder.seen
        assert not any(seen.add(path) for path in paths())


def test_npz(written: Path) -> None:
    with np.load(written / "a.npz", allow_pickle=False) as arrays:
        found = [name for name in arrays.files if not name.startswith("__")]
    assert [unescaped(name) for name in found] == paths()
    assert all(RAW.search(name) is None and name.isprintable() for name in found if "bidi" not in name)


def test_playlist(written: Path) -> None:
    lines = (written / "a.m3u8").read_text(encoding="utf-8").split("\n")
    reached = [
        unquote_to_bytes(line.removeprefix("file://"))
        if line.startswith("file://")
        else os.fsencode(os.path.normpath(written / line))
        for line in lines[2::2]
    ]
    assert reached == [os.fsencode(path) for path in paths()]


def test_rekordbox(written: Path) -> None:
    tracks = [track for track in ElementTree.parse(written / "a.xml").iter("TRACK") if track.get("Location")]  # noqa: S314
    located = [unquote_to_bytes(track.get("Location", "").removeprefix("file://localhost")) for track in tracks]
    assert located == [os.fsencode(path) for path in paths()]
    kept = [name for name in NAMES if not re.search("[\0-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]", name)]
    assert {Path(name).name for name in kept} <= {track.get("Name") for track in tracks}


def test_page(written: Path) -> None:
    text = (written / "a.html").read_text(encoding="utf-8")
    tracks: list[dict[str, Any]] = json.loads(text.split('id="data">')[1].split("</script>")[0])["tracks"]
    assert all(track[field].isprintable() for track in tracks for field in ("path", "title", "artist", "old"))
    assert [unquote_to_bytes(track["uri"].removeprefix("file://")) for track in tracks] == [
        os.fsencode(path) for path in paths()
    ]


def test_predictions_of_evaluate(tmp_path: Path) -> None:
    labels = [Label(tmp_path / name, name, Key.parse("Am"), name, name, line) for line, name in enumerate(NAMES, 2)]
    predictions = [Prediction(label, Key.from_index(line), 0.5, None) for line, label in enumerate(labels)]
    write_predictions(tmp_path / "a.csv", predictions)
    assert RAW.search((tmp_path / "a.csv").read_bytes().decode("utf-8")) is None
    found = read_predictions(tmp_path / "a.csv", labels, tmp_path)
    assert found.answers == tuple(range(len(NAMES)))
    assert found.unmatched == 0
