import io
import os
import sys
from pathlib import Path

import pytest
import typer

from stonecli.cli.common import listed


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Sets what stands on standard input."""

    def put(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    return put


def test_lines_in_the_place_of_the_dash(stdin) -> None:  # type: ignore[no-untyped-def]
    stdin(b"b.mp3\n\n c d.mp3\n-\nbytes\xff.mp3\n")
    found = listed([Path("a"), Path("-"), Path("z")], null=False)
    assert [os.fsencode(path) for path in found] == [b"a", b"b.mp3", b" c d.mp3", b"-", b"bytes\xff.mp3", b"z"]


def test_names_with_line_breaks(stdin) -> None:  # type: ignore[no-untyped-def]
    stdin(b"new\nline.mp3\0b\r.mp3\0")
    assert listed([Path("-")], null=True) == [Path("new\nline.mp3"), Path("b\r.mp3")]


def test_without_a_dash() -> None:
    assert listed([Path("/x/-"), Path("a")], null=False) == [Path("/x/-"), Path("a")]
    with pytest.raises(typer.BadParameter):
        listed([Path("a")], null=True)
