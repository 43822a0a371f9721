"""Results of ``stone tag`` as rows of a table that grows while the run goes on."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from stonecli.errors import concerns_the_run
from stonecli.key import Key, Notation
from stonecli.terminal.colors import key_style
from stonecli.util.text import printable, shortened

if TYPE_CHECKING:  # as in records.py
    from stonecli.remote.locations import Place
    from stonecli.tagging import TagResult

OLD_WIDTH, KEY_WIDTH, MUSICAL_WIDTH, BAR_WIDTH, STATUS_WIDTH = 6, 4, 5, 10, 14
LEAST_FILE_WIDTH = 16
_STATUS_STYLES = {
    "written": "green",
    "detected": "",
    "unchanged": "dim",
    "kept": "dim",
    "unreadable key": "yellow",
    "incomplete": "",
    "no key": "yellow",
    "removed": "green",
    "removable": "",
}
_HEARD_OR_COPIED = ("written", "incomplete")  # what a file without an estimate was given, or would be
_KEPT = ("kept", "unreadable key")  # a cached analysis of these files is not what the run does with them
_COUNTED_AS = {"unreadable key": "with a key text that stone cannot read"}
_EIGHTHS = " ▏▎▍▌▋▊▉█"


class TagTable:
    """Prints a header and a row a file; in a pipe, tab-separated lines without colour and with whole paths."""

    def __init__(self, console: Console, roots: Sequence[Place], notation: Notation) -> None:
        self._console = console
        self._roots = [root if root.is_dir() else root.parent for root in roots if isinstance(root, Path)]
        self._notation = notation
        self._counts: Counter[str] = Counter()
        self._is_terminal = console.is_terminal
        if self._is_terminal:
            fixed = OLD_WIDTH + KEY_WIDTH + MUSICAL_WIDTH + BAR_WIDTH + 5 + STATUS_WIDTH + 6
            self._file_width = max(LEAST_FILE_WIDTH, min(60, console.width - fixed))

    def header(self) -> None:
        """Print the names of the columns."""
        if not self._is_terminal:
            self._plain("file", "old key", "new key", "confidence", "status")
            return
        row = Text(style="bold dim")
        row.append(_padded("file", self._file_width) + " " + _padded("old", OLD_WIDTH) + " ")
        row.append(_padded("new", KEY_WIDTH + MUSICAL_WIDTH) + " " + _padded("confidence", BAR_WIDTH + 5) + "  status")
        self._print(row)

    def row(self, result: TagResult) -> None:
        """Print one file."""
        self._counts[result.status] += 1
        analysis = result.estimate if result.estimate is not None and result.status not in _KEPT else None
        new = result.key if analysis is not None or result.status in _HEARD_OR_COPIED else None
        confidence = analysis.confidence if analysis is not None and new and analysis.key == new else None
        if not self._is_terminal:
            self._plain(
                str(result.path),
                result.old_text or "",
                new.spelled(self._notation) if new else "",
                "" if confidence is None else f"{confidence:.2f}",
                result.status,
            )
            return
        row = Text()
        row.append(_padded(shortened(printable(self._relative(result.path)), self._file_width), self._file_width) + " ")
        old = shortened(printable(result.old_text or "–"), OLD_WIDTH)
        row.append(_padded(old, OLD_WIDTH) + " ", key_style(result.old_key) if result.old_key else "dim")
        row.append_text(self._key_cells(new))
        row.append(" ")
        row.append_text(_blank_bar() if confidence is None or new is None else _confidence_bar(confidence, new))
        row.append("  ").append(result.status, _STATUS_STYLES.get(result.status, "yellow"))
        self._print(row)

    def summary(self, errors: int, write: bool) -> None:
        """Print what happened in one line, and how to go on from a preview."""
        parts = [f"{count} {_COUNTED_AS.get(status, status)}" for status, count in self._counts.items()]
        if errors:
            parts.append(f"{errors} failed")
        line = Text(", ".join(parts) or "no new files")  # all are in the table of an earlier run
        if not write and (self._counts["detected"] or self._counts["incomplete"]):
            line.append(" – nothing was changed; write the keys with --write-tags", "dim")
        elif not write and self._counts["removable"]:
            line.append(" – nothing was changed; take them out with --write-tags", "dim")
        if self._is_terminal:
            self._print(line)

    def _key_cells(self, key: Key | None) -> Text:
        if key is None:
            return Text(_padded("–", KEY_WIDTH + MUSICAL_WIDTH), "dim")
        first = key.spelled(self._notation)
        second = key.camelot if self._notation == "musical" else key.musical
        return Text(_padded(first, KEY_WIDTH), key_style(key)) + Text(_padded(second, MUSICAL_WIDTH), key_style(key))

    def _relative(self, path: Place) -> str:
        for root in self._roots:
            if isinstance(path, Path) and path.is_relative_to(root):
                return str(path.relative_to(root))
        return str(path)

    def _plain(self, *cells: str) -> None:
        # Not by the console, which turns tabs into spaces.
        print("\t".join(printable(cell) for cell in cells), file=self._console.file, flush=True)

    def _print(self, row: Text) -> None:
        self._console.print(row, soft_wrap=True)


def _confidence_bar(confidence: float, key: Key) -> Text:
    eighths = round(confidence * BAR_WIDTH * 8)
    full, rest = divmod(eighths, 8)
    bar = "█" * full + (_EIGHTHS[rest] if rest else "")
    return Text(_padded(bar, BAR_WIDTH), key_style(key)) + Text(f"{confidence:5.0%}")


def _blank_bar() -> Text:
    return Text(" " * (BAR_WIDTH + 5))


def _padded(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))


def new_error_text(path: str | os.PathLike[str] | Place, error: str, shown: set[str]) -> Text | None:
    """The line for a file that failed; None if its reason is one for the whole run, and among those already ``shown``.

    Such a reason is added to ``shown``, and its line names no file.
    """
    if not concerns_the_run(error):
        return error_text(path, error)
    if error in shown:
        return None
    shown.add(error)
    return Text(f"stone: {printable(error)}", "red")


def error_text(path: str | os.PathLike[str] | Place, error: str) -> Text:
    """One line for standard error: the file and the reason."""
    return Text.assemble((printable(str(path)), "bold"), ": ", (printable(error), "red"))
