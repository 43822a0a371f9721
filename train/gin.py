"""The original's gin files, read as literals only."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from typing import Any


def parse_gin(lines: Iterable[str]) -> dict[str, Any]:
    """``Name.param = literal`` lines as a dictionary; imports, comments and blank lines are skipped, nothing runs.

    Raises:
        ValueError, SyntaxError: a value is no Python literal.
    """
    values: dict[str, Any] = {}
    for line in lines:
        name, equals, literal = line.partition("=")
        if equals and not name.lstrip().startswith("#"):
            values[name.strip()] = ast.literal_eval(literal.strip())
    return values
