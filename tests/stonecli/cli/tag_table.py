"""Reads what ``stone tag`` prints and writes."""

from __future__ import annotations

from pathlib import Path

from typer.testing import Result

from stonecli.tags import read_tags


def rows(result: Result) -> list[list[str]]:
    """The table of a pipe without its header."""
    lines = result.stdout.splitlines()
    assert lines[0].split("\t") == ["file", "old key", "new key", "confidence", "status"]
    return [line.split("\t") for line in lines[1:]]


def statuses(result: Result) -> dict[str, str]:
    """The status of each file by its name."""
    return {Path(row[0]).name: row[4] for row in rows(result)}


def key_in(path: Path) -> str | None:
    """The text of a file's key field."""
    return read_tags(path).text
