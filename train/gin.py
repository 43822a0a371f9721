"""Parses the gin configuration files of the published code, literals only."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from typing import Any


def parse_gin(lines: Iterable[str]) -> dict[str, Any]:
    """``Name.param = literal`` lines as a dictionary; imports, comments and blank lines are skipped, nothing runs.

    Raises:
        ValueError: a value is not a Python literal; the message has the line number.
    """
    values: dict[str, Any] = {}
    for number, line in enumerate(lines, start=1):
        name, equals, literal = line.partition("=")
        if not equals or name.lstrip().startswith("#"):
            continue
        try:
            values[name.strip()] = ast.literal_eval(literal.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
            raise ValueError(f"line {number}: not a Python literal: {literal.strip()[:60]}") from error
    return values
