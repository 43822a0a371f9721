"""Print the keys in the tags beside the detected ones, as ``stone compare`` does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from stonecli.spelling import says_no_key
from stonecli.terminal.colors import WARNING, key_style
from stonecli.terminal.table import MAX_KEY_TEXT, TagTable, padded
from stonecli.util.text import printable, shortened

if TYPE_CHECKING:
    from stonecli.tagging import ComparisonSummary, TagResult

RELATION_WIDTH = 13  # cells
_STYLES: dict[str, str] = {"same": "", "clash": "bold"}


class ComparisonTable(TagTable):
    """As :class:`TagTable`, with the columns of a comparison."""

    COLUMNS = ("file", "tag", "detected", "relation")

    def row(self, result: TagResult) -> None:
        """Print one file."""
        self._count_origin(result)
        detected = result.estimate.key if result.estimate else None
        confidence = result.estimate.confidence if result.estimate and detected else None
        relation = result.relation or no_relation(result)
        if not self._is_terminal:
            self._plain(
                str(result.path),
                (
                    result.old_key.spelled(self._notation)
                    if result.old_key
                    else shortened(result.old_text or "", MAX_KEY_TEXT)
                ),
                detected.spelled(self._notation) if detected else "",
                "" if confidence is None else f"{confidence:.2f}",
                relation,
            )
            return
        row = Text()
        row.append(padded(shortened(printable(self._relative(result.path)), self._file_width), self._file_width) + " ")
        text = result.old_key.spelled(self._notation) if result.old_key else printable(result.old_text or "-")
        old = shortened(text, self._old_width)
        row.append(old, key_style(result.old_key) if result.old_key else "")
        row.append(" " * (self._old_width - cell_len(old) + 1))
        row.append_text(self._key_cells(detected))
        row.append(" ")
        row.append_text(self._confidence(confidence, detected))
        row.append("  ").append(relation, _STYLES.get(relation, WARNING))
        self._print(row)

    def summary(self, errors: int, write: bool) -> None:
        """Print no counts: :func:`print_counts` prints them."""
        self._print_origin()


def print_counts(console: Console, summary: ComparisonSummary) -> None:
    """Print how often each relation occurs, unless this is a pipe."""
    if not console.is_terminal:
        return
    total = sum(summary.relations.values())
    console.print(Text(f"\n{'relation':{RELATION_WIDTH}}{'files':>7}{'share':>7}", "bold"), soft_wrap=True)
    for relation, count in summary.relations.items():
        share = f"{count / total:.0%}" if total else ""
        console.print(Text(f"{relation:{RELATION_WIDTH}}{count:7,}{share:>7}"), soft_wrap=True)
    if summary.not_compared:
        text = f"{'not compared':{RELATION_WIDTH}}{summary.not_compared:7,}"
        console.print(Text(f"{text}  no readable key in the tags, or none detected"), soft_wrap=True)


def no_relation(result: TagResult) -> str:
    """Why there is no relation."""
    if result.old_key is None:
        return "no tag key" if result.old_text is None or says_no_key(result.old_text) else "unreadable"
    return "no key"
