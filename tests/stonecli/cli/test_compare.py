"""``stone compare``: the keys in the tags beside the detected ones."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from mutagen.flac import FLAC
from rich.console import Console

from stonecli import compare_library
from stonecli.jobs import Outcome
from stonecli.key import Key
from stonecli.library.locations import Location
from stonecli.model.session import KeyModel
from stonecli.tagging import ComparisonSummary, TagResult
from stonecli.terminal.compare import ComparisonTable, print_counts
from tests.fixture_types import CopySong, Fingerprint, Invoke, MakeEstimate

# All songs are in D minor.
RELATIONS = {"Dm": "same", "F": "relative", "Am": "fifth", "6A": "fifth", "D": "parallel", "8d": "clash"}


@pytest.fixture
def crate(song: CopySong) -> Path:
    """Songs with the keys of ``RELATIONS`` in their tags, one without a key, and one with a text that names none."""
    for number, text in enumerate((*RELATIONS, "", "loud")):
        file = FLAC(song("flac", f"{number} {text}".strip()))
        if text:
            file["initialkey"] = text
        file.save()
    return song("flac", "0 Dm").parent


@pytest.fixture
def tagged_crate(crate: Path) -> Path:
    file = FLAC(crate / "0 Dm.flac")
    file["initialkey"] = "Dm"
    file.save()
    return crate


def rows(stdout: str) -> list[list[str]]:
    return [[Path(cells[0]).stem, *cells[1:]] for line in stdout.splitlines()[1:] if (cells := line.split("\t"))]


def test_both_keys_and_their_relation(invoke: Invoke, tagged_crate: Path, fingerprint: Fingerprint) -> None:
    before = fingerprint(tagged_crate)
    result = invoke("compare", tagged_crate)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines()[0] == "file\ttag key\tdetected key\tconfidence\trelation"
    found = {row[0].partition(" ")[2]: row[1:] for row in rows(result.stdout)}
    assert {name: cells[-1] for name, cells in found.items()} == {**RELATIONS, "": "no tag key", "loud": "unreadable"}
    assert found["Am"][:2] == ["8A", "7A"]
    assert float(found["Am"][2]) > 0.5
    assert fingerprint(tagged_crate) == before


def test_only_some_relations(invoke: Invoke, tagged_crate: Path, tmp_path: Path) -> None:
    files: list[str | Path] = [
        "--output",
        tmp_path / "a.csv",
        "--playlist",
        tmp_path / "a.m3u8",
        "--html",
        tmp_path / "a.html",
    ]
    result = invoke("compare", tagged_crate, "--only", "clash", "--only", "parallel", "--notation", "flats", *files)
    assert [row[0] for row in rows(result.stdout)] == ["4 D", "5 8d"]
    assert [row[1:3] for row in rows(result.stdout)] == [["D", "Dm"], ["Db", "Dm"]]
    found = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert [(row["tag_key"], row["detected_key"], row["relation"]) for row in found] == [
        ("D", "Dm", "parallel"),
        ("Db", "Dm", "clash"),
    ]
    assert [line for line in (tmp_path / "a.m3u8").read_text().splitlines() if line[0] != "#"] == [
        "music/4 D.flac",
        "music/5 8d.flac",
    ]
    records = [
        json.loads(line) for line in invoke("compare", tagged_crate, "--only", "clash", "--json").stdout.splitlines()
    ]
    assert [(record["tag_key"]["musical"], record["relation"]) for record in records] == [("Db", "clash")]


def test_a_minimum_confidence(invoke: Invoke, tagged_crate: Path) -> None:
    assert rows(invoke("compare", tagged_crate, "--min-confidence", "1").stdout) == []
    assert len(rows(invoke("compare", tagged_crate, "--min-confidence", "0.1").stdout)) == 8


def test_wrong_usage(invoke: Invoke, tagged_crate: Path) -> None:
    for arguments, message in (
        (["--only", "near"], "--only must be one of same, relative, fifth, parallel, clash, not 'near'"),
        (["--min-confidence", "2"], "must be a number from 0 to 1"),
        (["--write-tags"], "there is no option --write-tags"),
        (["--quiet", "--json"], "--quiet cannot be combined with --json"),
    ):
        result = invoke("compare", tagged_crate, *arguments)
        assert (result.exit_code, message in result.stderr) == (2, True), result.stderr


def test_python_gets_the_counts_of_all_files(tagged_crate: Path, key_model: KeyModel) -> None:
    (tagged_crate / "broken.mp3").write_text("no music")
    shown: list[Outcome[Location, TagResult]] = []
    found = compare_library([tagged_crate], only=["clash"], model=key_model, on_result=shown.append)
    assert found.relations == {"same": 1, "relative": 1, "fifth": 2, "parallel": 1, "clash": 1}
    assert (found.not_compared, found.files, found.failed, found.run) == (2, 9, 1, None)
    assert sorted(outcome.item.name for outcome in shown) == ["5 8d.flac", "broken.mp3"]


def test_the_table_on_a_terminal(estimate_of: MakeEstimate) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)
    table = ComparisonTable(console, [], "camelot")
    table.header()
    key = Key.parse("9A")
    table.row(TagResult(Path("a.mp3"), "detected", Key.parse("Am"), "Em", key, estimate_of("Am")))
    table.row(TagResult(Path("b.mp3"), "no key", None, "Em", key, estimate_of(None)))
    table.row(TagResult(Path("c.mp3"), "detected", Key.parse("Am"), None, None, estimate_of("Am")))
    foreign = TagResult(Path("d.mp3"), "detected", key, "Em", key, estimate_of("Em"), is_from_collection=True)
    table.row(foreign)
    table.row(foreign)
    other = TagResult(Path("e.mp3"), "detected", key, "Em", key, estimate_of("Em"), differs_from_collection=True)
    table.row(other)
    relations = dict.fromkeys(("same", "relative", "fifth", "parallel", "clash"), 0) | {"fifth": 1, "clash": 3}
    print_counts(console, ComparisonSummary(6, 0, False, None, relations, 2))  # type: ignore[arg-type]
    table.summary(0, write=False)
    lines = [" ".join(line.split()) for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert lines[0] == "file tag detected confidence relation"
    assert lines[1].startswith("a.mp3 9A 8A Am ")
    assert lines[1].endswith("80% fifth")
    assert lines[2].split() == ["b.mp3", "9A", "-", "no", "key"]
    assert lines[3].endswith("no tag key")
    assert lines[8:] == [
        "relation files share",
        "same 0 0%",
        "relative 0 0%",
        "fifth 1 25%",
        "parallel 0 0%",
        "clash 3 75%",
        "not compared 2 no readable key in the tags, or none detected",
        "2 old keys are from the rekordbox XML, not from the tags",
        "1 file has another key than the rekordbox XML; the key in the file counts",
    ]


@pytest.mark.parametrize("text", ["o", "off", "All", "INVALID"])
def test_a_text_for_no_key_is_no_key(invoke: Invoke, song: CopySong, text: str) -> None:
    path = song("flac")
    file = FLAC(path)
    file["initialkey"] = text
    file.save()
    assert rows(invoke("compare", path).stdout)[0][-1] == "no tag key"


@pytest.mark.parametrize("command", ["compare", "convert"])
def test_a_long_key_text_is_cut(invoke: Invoke, song: CopySong, command: str, tmp_path: Path) -> None:
    path = song("flac", "x")
    (tmp_path / "in.xml").write_text(
        f'<DJ_PLAYLISTS><COLLECTION Entries="1"><TRACK TrackID="1" Location="file://localhost{path.as_posix()}"'
        f' Tonality="{"x" * 100_000}"/></COLLECTION><PLAYLISTS/></DJ_PLAYLISTS>'
    )
    assert 100 < len(invoke(command, tmp_path / "in.xml").stdout.splitlines()[1]) < 1000
