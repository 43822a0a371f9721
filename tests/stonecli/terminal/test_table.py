import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from stonecli.detection.estimate import KeyEstimate
from stonecli.key import Key, Notation
from stonecli.tagging import Status, TagResult
from stonecli.terminal.table import TagTable, error_text

EstimateOf = Callable[..., KeyEstimate]
EVIL = "a\x1b]0;pwn\x07 [red]b[/red] :smile: \x1b[2J.mp3"


def console(*, terminal: bool, width: int = 120) -> Console:
    color = "truecolor" if terminal else None
    return Console(file=io.StringIO(), force_terminal=terminal, width=width, highlight=False, color_system=color)  # type: ignore[arg-type]


def text_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def without_color(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.fixture
def result(estimate_of: EstimateOf) -> Callable[..., TagResult]:
    def make(path: str, status: Status = "detected", old: str | None = None, key: str | None = "F#m") -> TagResult:
        estimated = None if status == "kept" else estimate_of(key)
        new = Key.parse(key) if key else None
        return TagResult(Path(path), status, new, old, None, estimated)

    return make


@pytest.mark.parametrize(("notation", "new"), [("camelot", "11A"), ("openkey", "4m"), ("musical", "F#m")])
def test_a_pipe_gets_plain_tabs_and_whole_paths(result: Callable[..., TagResult], notation: Notation, new: str) -> None:
    out = console(terminal=False, width=20)
    table = TagTable(out, [Path("music")], notation)
    table.header()
    table.row(result("music/" + "x" * 100 + ".mp3"))
    table.row(result("music/b.mp3", "kept", "8A"))
    table.row(result("music/c.mp3", "no key", key=None))
    table.summary(0, write=False)
    assert text_of(out).splitlines() == [
        "file\told key\tnew key\tconfidence\tstatus",
        "music/" + "x" * 100 + f".mp3\t\t{new}\t0.80\tdetected",
        "music/b.mp3\t8A\t\t\tkept",
        "music/c.mp3\t\t\t\tno key",
    ]


@pytest.mark.parametrize("terminal", [False, True])
def test_names_and_tags_are_data(result: Callable[..., TagResult], terminal: bool) -> None:
    out = console(terminal=terminal)
    table = TagTable(out, [Path()], "camelot")
    table.row(result(EVIL, old="[b]\x1b[5m\n\t"))
    shown = without_color(text_of(out))
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert shown.count("\n") == 1
    assert "[red]b[/red] :smile:" in shown
    assert "\\x1b[2J.mp3" in shown


@pytest.mark.parametrize("width", [40, 80, 100, 200])
def test_rows_of_a_terminal_are_in_columns(result: Callable[..., TagResult], width: int) -> None:
    out = console(terminal=True, width=width)
    table = TagTable(out, [Path("/music")], "camelot")
    table.header()
    for name in ("short.mp3", "日本語の歌.mp3", "very long " * 20 + ".mp3", "🎹.flac"):
        table.row(result(f"/music/{name}", old="日本語の調性"))
    header, *rows = without_color(text_of(out)).splitlines()
    status = header.index("status")
    assert [cell_len(row[: row.index("detected")]) for row in rows] == [status] * 4
    if width >= 80:
        assert max(cell_len(row) for row in rows) <= width


NAMES = [
    "Artist One - Some Title (Original Mix).mp3",
    "Émilie Simon & The Collaborators - An Extremely Long Track Title (Extended Club Mix) [2019 Remaster].mp3",
    "坂本龍一 - 戦場のメリークリスマス (Merry Christmas Mr. Lawrence) 2023年リマスター.mp3",
    "Sigur Ro\u0301s - Svefn-g-englar - Ágætis byrjun - 1999 - 320 kbit per second.mp3",
]


@pytest.mark.parametrize(("width", "cells"), [(80, 38), (120, 60), (200, 104)])
def test_names_use_the_width_there_is(result: Callable[..., TagResult], width: int, cells: int, tmp_path: Path) -> None:
    out = console(terminal=True, width=width)
    table = TagTable(out, [tmp_path], "camelot")
    table.header(tmp_path / name for name in NAMES)
    for name in NAMES:
        table.row(result(str(tmp_path / name), old="4A - Energy 6"))
    header, *rows = without_color(text_of(out)).splitlines()
    assert cell_len(header[: header.index(" old")]) >= cells
    for name, row in zip(NAMES, rows, strict=True):
        start = row.split("…")[0] if "…" in row else name
        assert cell_len(row) <= width
        assert name.startswith(start[: len(name)])
        assert cell_len(start) >= min(cell_len(name), cells // 2 - 1)
        assert ".mp3" in row
        if width > 100:
            assert "4A - Energy 6" in row


def test_a_short_name_leaves_no_gap(tmp_path: Path) -> None:
    out = console(terminal=True, width=200)
    table = TagTable(out, [tmp_path], "camelot")
    table.header([tmp_path / "short name of a named file.mp3"])
    assert without_color(text_of(out)).startswith("file" + " " * 27 + "old")


def test_paths_are_relative_to_the_given_folder(result: Callable[..., TagResult], tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    out = console(terminal=True)
    TagTable(out, [tmp_path], "camelot").row(result(str(tmp_path / "a" / "b.mp3")))
    assert without_color(text_of(out)).startswith("a/b.mp3 ")


def test_paths_in_a_crate_are_relative_to_their_folder(result: Callable[..., TagResult], tmp_path: Path) -> None:
    crate, folder = tmp_path / "set.m3u8", tmp_path / "Music" / "Saturday"
    crate.touch()
    files = [folder / "a.mp3", folder / "sub" / "b.mp3"]
    out = console(terminal=True, width=200)
    table = TagTable(out, [crate], "camelot")
    table.header(files)
    for file in files:
        table.row(result(str(file)))
    names = [line.split()[0] for line in without_color(text_of(out)).splitlines()[1:]]
    assert names == ["a.mp3", str(Path("sub", "b.mp3"))]
    for others in ([], [Path("/x/a.mp3"), Path("/y/b.mp3")], [Path("/a/x.mp3"), Path("b.mp3")]):
        table = TagTable(out, [crate], "camelot")
        table.header(others)
        table.row(result("/x/a.mp3"))
        assert without_color(text_of(out)).splitlines()[-1].startswith(str(Path("/x/a.mp3")))


def test_the_summary_has_counts_and_the_next_step(result: Callable[..., TagResult]) -> None:
    out = console(terminal=True)
    table = TagTable(out, [], "camelot")
    for status in ("detected", "detected", "kept"):
        table.row(result("a", status))
    table.summary(2, write=False)
    last = without_color(text_of(out)).splitlines()[-1]
    assert last == "2 detected, 1 kept, 2 failed; no file was changed, add --write-tags to write the keys"


@pytest.mark.parametrize(
    ("tempos", "what"),
    [
        ([("no key", 124.0, None), ("kept", 99.0, "99")], "tempos"),
        ([("unreadable key", 124.0, None)], "tempos"),
        ([("tempo missing", 124.0, "0")], "tempos"),
        ([("incomplete", 124.0, "0")], "keys and tempos"),
        ([("detected", 124.0, None)], "keys and tempos"),
        ([("detected", 99.0, "99.00"), ("no key", None, None)], "keys"),
        ([("incomplete", 99.0, "99")], "keys"),
    ],
)
def test_the_next_step_names_tempos(
    result: Callable[..., TagResult], tempos: list[tuple[Status, float | None, str | None]], what: str
) -> None:
    out = console(terminal=True)
    table = TagTable(out, [], "camelot", bpm=True)
    for status, bpm, old in tempos:
        table.row(replace(result("a", status), bpm=bpm, old_bpm_text=old))
    table.summary(0, write=False)
    last = without_color(text_of(out)).splitlines()[-1]
    assert last.endswith(f"; no file was changed, add --write-tags to write the {what}")


def test_files_with_unreadable_key_texts_are_counted_apart(result: Callable[..., TagResult]) -> None:
    out = console(terminal=True, width=120)
    table = TagTable(out, [], "camelot")
    for status in ("kept", "kept", "unreadable key"):
        table.row(result("a", status, "loud", key=None))
    table.summary(0, write=True)
    lines = without_color(text_of(out)).splitlines()
    assert lines[-1] == "2 kept, 1 with a key text that stone cannot read"
    assert lines[-2].endswith("unreadable key")
    assert "%" not in lines[-2]  # the analysis of an earlier run is not what this run writes


def test_an_empty_run(result: Callable[..., TagResult]) -> None:
    out = console(terminal=True)
    TagTable(out, [], "camelot").summary(0, write=True)
    assert without_color(text_of(out)) == "no new files\n"


def test_an_error_is_one_line() -> None:
    line = error_text(EVIL, "bad\x1b[31m\nthing [/]").plain
    assert line.isprintable()
    assert line.endswith("bad\\x1b[31m\\nthing [/]")
