import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from stonecli.cli.common import listed
from tests.fixture_types import CopySong, Invoke


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Sets the content of standard input."""

    def put(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    return put


def test_a_dash_is_replaced_by_the_lines_of_stdin(stdin: Callable[..., Any]) -> None:
    stdin(b"b.mp3\n\n c d.mp3\n-\nbytes\xff.mp3\n")
    found = listed(["a", "-", "z"], null=False, command="mix")
    assert [os.fsencode(path) for path in found] == [b"a", b"b.mp3", b" c d.mp3", b"-", b"bytes\xff.mp3", b"z"]


def test_names_with_line_breaks(stdin: Callable[..., Any]) -> None:
    stdin(b"new\nline.mp3\0b\r.mp3\0")
    assert listed(["-"], null=True, command="mix") == [Path("new\nline.mp3"), Path("b\r.mp3")]


def test_a_list_from_windows_names_the_same_files(
    stdin: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stdin(b"a.mp3\r\n\r\nb.mp3\r\nc.mp3\r")
    assert listed(["-"], null=False, command="mix") == [Path("a.mp3"), Path("b.mp3"), Path("c.mp3")]
    if sys.platform != "win32":
        (tmp_path / "b.mp3\r").touch()
        stdin(b"a.mp3\r\nb.mp3\r\n")
        assert listed(["-"], null=False, command="mix") == [Path("a.mp3"), Path("b.mp3\r")]


def test_without_a_dash() -> None:
    assert listed(["/x/-", "a"], null=False, command="mix") == [Path("/x/-"), Path("a")]
    with pytest.raises(typer.BadParameter):
        listed(["a"], null=True, command="mix")


@pytest.mark.parametrize(
    ("command", "option", "name"),
    [
        *(("tag", "--output", f"x{ending}") for ending in (".csv", ".json", ".ndjson", ".parquet")),
        *((command, "--playlist", "x.m3u8") for command in ("tag", "mix")),
        *((command, "--rekordbox", "x.xml") for command in ("tag", "mix")),
        *((command, "--html", "x.html") for command in ("tag", "analyze")),
        ("analyze", "--npz", "x.npz"),
        ("analyze", "--plot", "x.png"),
        ("evaluate", "--predictions", "x.csv"),
        ("evaluate", "--confusion", "x.png"),
    ],
)
def test_an_output_in_a_missing_folder_is_refused_first(
    invoke: Invoke,
    song: CopySong,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    option: str,
    name: str,
) -> None:
    path = song("flac")
    if command == "evaluate":
        path = tmp_path / "labels.csv"
        path.write_text("path,key\nmusic/flac.flac,Dm\n")
    for detect in ("tagging.tagger.detect_key", "detection.many.detect_key", "evaluation.measure.detect_key"):
        monkeypatch.setattr(f"stonecli.{detect}", lambda *_, **__: pytest.fail("the work has begun"))
    result = invoke(command, path, option, tmp_path / "none" / name)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"stone: {option} {tmp_path / 'none'}: no such folder; create it first\n"
    assert not (tmp_path / "none").exists()
