"""Print the results of ``stone tag`` as a table, row by row during the run."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from stonecli.errors import concerns_the_run
from stonecli.key import Key, Notation
from stonecli.library.crates import is_crate
from stonecli.tags.tempo_text import parse_bpm
from stonecli.terminal.colors import WARNING, key_bar_style, key_style
from stonecli.util.text import printable, shortened

if TYPE_CHECKING:
    from stonecli.library.locations import Location
    from stonecli.tagging import TagResult

KEY_WIDTH, MUSICAL_WIDTH, BAR_WIDTH, PERCENT_WIDTH, STATUS_WIDTH = 4, 5, 10, 5, 14  # cells
BPM_WIDTH = 8  # cells, with the space before it
NARROW = 100  # cells; a narrower terminal shows no bars and a shorter old key, and so more of the file's name
MIN_FILE_WIDTH = 16
MAX_KEY_TEXT = 200  # cells of a key text in a pipe; a collection may have a text of several MB
_STATUS_STYLES = {
    "written": "bold",
    "detected": "",
    "unchanged": "",
    "kept": "",
    "unreadable key": WARNING,
    "incomplete": "",
    "tempo missing": "",
    "no key": WARNING,
    "removed": "bold",
    "removable": "",
    "convertible": "",
}
_HAS_NEW_KEY = ("written", "incomplete", "convertible")  # files that get a key, also if it is not from an analysis
_NEW_KEYS = ("detected", "incomplete", "convertible")
_KEPT = ("kept", "tempo missing", "unreadable key")  # a cached analysis of these files is not shown
_SHOWN_AS = {"incomplete": "fields missing"}
_COUNTED_AS = {
    "unreadable key": "with a key text that stone cannot read",
    "incomplete": "with fields missing",
    "tempo missing": "with the tempo missing",
}
_EIGHTHS = " ▏▎▍▌▋▊▉█"


class TagTable:
    """Prints a header and one row per file; in a pipe, tab-separated lines without color and with full paths."""

    COLUMNS = ("file", "old", "new", "status")
    """Names of the columns; in a pipe, the second and the third are followed by ``key``."""

    HAS_CONFIDENCE = True
    """Whether there is a column with the confidence of the new key."""

    def __init__(self, console: Console, roots: Sequence[Location], notation: Notation, *, bpm: bool = False) -> None:
        self._bpm = bpm
        self._console = console
        self._roots = [root for root in roots if isinstance(root, Path)]
        self._notation = notation
        self._counts: Counter[str] = Counter()
        self._new_keys = self._new_tempos = 0  # that a preview shows
        self._from_collection = self._other_keys = 0
        self._is_terminal = console.is_terminal
        if self._is_terminal:
            is_narrow = console.width < NARROW
            self._old_width, self._bar_width = (9, 0) if is_narrow else (16, BAR_WIDTH)
            gaps = 1 + 1 + 1 + 2 + (BPM_WIDTH if bpm else 0)
            self._percent_width = PERCENT_WIDTH if self.HAS_CONFIDENCE else 0
            self._bar_width = self._bar_width if self.HAS_CONFIDENCE else 0
            columns = (self._old_width, KEY_WIDTH, MUSICAL_WIDTH, self._bar_width, self._percent_width, STATUS_WIDTH)
            fixed = sum(columns) + gaps
            self._file_width = max(MIN_FILE_WIDTH, console.width - fixed)

    def header(self, files: Iterable[Location] = ()) -> None:
        """Print the column names. The file column is as wide as the longest name in ``files``, if there are any."""
        file, old, new, last = self.COLUMNS
        if not self._is_terminal:
            optional = [*(["confidence"] if self.HAS_CONFIDENCE else []), *(["bpm"] if self._bpm else [])]
            self._plain(file, f"{old} key", f"{new} key", *optional, last)
            return
        files = list(files)
        self._roots += _crate_folders(self._roots, files)
        longest = 0
        for path in files:
            longest = max(longest, cell_len(printable(self._relative(path))))
            if longest >= self._file_width:
                break
        self._file_width = max(MIN_FILE_WIDTH, min(self._file_width, longest or self._file_width))
        row = Text(style="bold")
        row.append(padded(file, self._file_width) + " " + padded(old, self._old_width) + " ")
        confidence = "confidence" if self._bar_width else "conf." if self.HAS_CONFIDENCE else ""
        row.append(padded(new, KEY_WIDTH + MUSICAL_WIDTH) + " ")
        row.append(padded(confidence, self._bar_width + self._percent_width))
        row.append(f"{'bpm':>{BPM_WIDTH}}  {last}" if self._bpm else f"  {last}")
        self._print(row)

    def row(self, result: TagResult) -> None:
        """Print one file."""
        self._counts[result.status] += 1
        self._count_origin(result)
        gets_tempo = self._bpm and result.bpm is not None and result.bpm != parse_bpm(result.old_bpm_text or "")
        self._new_tempos += gets_tempo
        self._new_keys += result.status in _NEW_KEYS
        analysis = result.estimate if result.estimate is not None and result.status not in _KEPT else None
        new = result.key if analysis is not None or result.status in _HAS_NEW_KEY else None
        confidence = analysis.confidence if analysis is not None and new and analysis.key == new else None
        bpm = "" if result.bpm is None else f"{result.bpm:.2f}".removesuffix(".00")
        if not self._is_terminal:
            self._plain(
                str(result.path),
                shortened(result.old_text or "", MAX_KEY_TEXT),
                new.spelled(self._notation) if new else "",
                *(["" if confidence is None else f"{confidence:.2f}"] if self.HAS_CONFIDENCE else []),
                *([bpm] if self._bpm else []),
                result.status,
            )
            return
        row = Text()
        row.append(padded(shortened(printable(self._relative(result.path)), self._file_width), self._file_width) + " ")
        old = shortened(printable(result.old_text or "-"), self._old_width)
        row.append(old, key_style(result.old_key) if result.old_key else "")
        row.append(" " * (self._old_width - cell_len(old) + 1))
        row.append_text(self._key_cells(new))
        row.append(" ")
        row.append_text(self._confidence(confidence, new))
        if self._bpm:
            row.append(f"{bpm or '-':>{BPM_WIDTH}}")
        row.append("  ").append(_SHOWN_AS.get(result.status, result.status), _STATUS_STYLES.get(result.status, WARNING))
        self._print(row)

    def summary(self, errors: int, write: bool) -> None:
        """Print the counts in one line, and the next step after a preview."""
        parts = [f"{count} {_COUNTED_AS.get(status, status)}" for status, count in self._counts.items()]
        if errors:
            parts.append(f"{errors} failed")
        line = Text(", ".join(parts) or "no new files")  # all files are in the output of an earlier run
        if not write and (self._new_keys or self._new_tempos):
            what = " and ".join((["keys"] if self._new_keys else []) + (["tempos"] if self._new_tempos else []))
            line.append(f"; no file was changed, add --write-tags to write the {what}")
        elif not write and self._counts["removable"]:
            line.append("; no file was changed, add --write-tags to remove the keys")
        if self._is_terminal:
            self._print(line)
        self._print_origin()

    def _count_origin(self, result: TagResult) -> None:
        self._from_collection += result.is_from_collection
        self._other_keys += result.differs_from_collection

    def _print_origin(self) -> None:
        """Print how many of the old keys are from a collection, or not those of it, unless this is a pipe."""
        if self._is_terminal and self._from_collection:
            what = "key is" if self._from_collection == 1 else "keys are"
            self._print(Text(f"{self._from_collection:,} old {what} from the rekordbox XML, not from the tags"))
        if self._is_terminal and self._other_keys:
            what = "file has" if self._other_keys == 1 else "files have"
            line = f"{self._other_keys:,} {what} another key than the rekordbox XML; the key in the file counts"
            self._print(Text(line, WARNING))

    def _key_cells(self, key: Key | None) -> Text:
        if key is None:
            return Text(padded("-", KEY_WIDTH + MUSICAL_WIDTH))
        first = key.spelled(self._notation)
        second = key.musical if self._notation in ("camelot", "openkey") else key.camelot
        return Text(padded(first, KEY_WIDTH) + padded(second, MUSICAL_WIDTH), key_style(key))

    def _confidence(self, confidence: float | None, key: Key | None) -> Text:
        """A bar, if there is space for it, and the percentage."""
        if confidence is None or key is None:
            return Text(" " * (self._bar_width + self._percent_width))
        full, rest = divmod(round(confidence * self._bar_width * 8), 8)
        bar = "█" * full + (_EIGHTHS[rest] if rest else "")
        percent = f"{confidence:{PERCENT_WIDTH}.0%}"
        return Text.assemble((padded(bar, self._bar_width), key_bar_style(key)), percent)

    def _relative(self, path: Location) -> str:
        for root in self._roots:
            if isinstance(path, Path) and path.is_relative_to(root):
                return path.name if path == root else str(path.relative_to(root))
        return str(path)

    def _plain(self, *cells: str) -> None:
        # The console would turn tabs into spaces.
        print("\t".join(printable(cell) for cell in cells), file=self._console.file, flush=True)

    def _print(self, row: Text) -> None:
        self._console.print(row, soft_wrap=True)


class ConversionTable(TagTable):
    """As :class:`TagTable`, for keys that are not from an analysis."""

    HAS_CONFIDENCE = False


def _crate_folders(roots: Sequence[Path], files: Sequence[Location]) -> list[Path]:
    """The folder that all files of playlists and collections are in, so that their names are shown relative to it."""
    crates = [root for root in roots if is_crate(root) and root.is_file()]
    folders = (
        {path.parent for path in files if isinstance(path, Path) and not _is_below(path, roots)} if crates else set()
    )
    try:
        common = os.path.commonpath(folders)
    except ValueError:  # no folder, several drives, or relative and absolute paths
        return []
    return [Path(common)] if Path(common).name else []  # not the root folder


def _is_below(path: Path, roots: Sequence[Path]) -> bool:
    return any(path.is_relative_to(root) for root in roots)


def padded(text: str, width: int) -> str:
    """The text with spaces up to a width in cells."""
    return text + " " * (width - cell_len(text))


def new_error_text(path: str | os.PathLike[str] | Location, error: str, shown: set[str]) -> Text | None:
    """The line for a file that failed; None if the error concerns the whole run and is in ``shown`` already.

    Such an error is added to ``shown``, and its line names no file.
    """
    if not concerns_the_run(error):
        return error_text(path, error)
    if error in shown:
        return None
    shown.add(error)
    return Text(f"stone: {printable(error)}")


def error_text(path: str | os.PathLike[str] | Location, error: str) -> Text:
    """One line for standard error: the file and the reason."""
    return Text.assemble((printable(str(path)), "bold"), ": ", printable(error))
