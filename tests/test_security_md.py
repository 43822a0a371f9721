"""Every test that SECURITY.md names exists, and every threat has one."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)


@cache
def functions(path: str) -> frozenset[str]:
    """The names of a test file's functions and methods, without importing it."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize(("path", "name"), NAMED, ids=[name for _, name in NAMED])
def test_it_exists(path: str, name: str) -> None:
    assert name.startswith("test_")
    assert name in functions(path)


def test_every_threat_has_a_test() -> None:
    lines = [line for line in TEXT.splitlines() if line.startswith("| ") and not line.startswith("| threat ")]
    rows = [line.split(" | ") for line in lines]
    assert len(rows) > 30
    assert all(len(row) == 3 and re.search(r"`tests/[\w/]+\.py::\w+`", row[2]) for row in rows)
    assert TEXT.count("tests/") == len(NAMED) + 1  # each with its full path, and this file
