"""Rows of CSV that are safe in a spreadsheet for any file names and tags (docs/formats.md)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from stonecli.util.text import escaped

_BARE = re.compile(r"[\w.:/\\-]*")
_FORMULA_SIGNS = "=+\\-@＝＋－＠"
_STARTS_FORMULA = re.compile(rf"\s*[{_FORMULA_SIGNS}]")
_MAY_START_FORMULA = re.compile(rf"(^|;)(?=\s*[{_FORMULA_SIGNS}])")


def csv_line(cells: Iterable[str]) -> str:
    """One line of CSV (RFC 4180) with its line end; cells other than plain words, numbers and paths are quoted."""
    return ",".join(cell if _BARE.fullmatch(cell) else '"' + cell.replace('"', '""') + '"' for cell in cells) + "\r\n"


def csv_cells(row: Mapping[str, object], columns: Iterable[str]) -> list[str]:
    """The cells of ``row`` as text, None as empty.

    Control characters, line breaks and bytes that are not UTF-8 are escaped (:func:`stonecli.util.text.escaped`). A
    spreadsheet interprets text that starts with ``=``, ``+``, ``-`` or ``@`` as a formula: such a path gets ``./`` in
    front, other text an apostrophe. Text other than a path also gets one after a semicolon, because a spreadsheet that
    separates cells by semicolons respects the quotes of the first cell only.
    """
    return [_cell(column, row[column]) for column in columns]


def _cell(column: str, value: object) -> str:
    if not isinstance(value, str):
        return "" if value is None else str(value)
    text = escaped(value)
    if column == "path":
        return f"./{text}" if _STARTS_FORMULA.match(text) else text
    return _MAY_START_FORMULA.sub(r"\1'", text)
