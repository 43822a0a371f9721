"""ASCII replacements of the symbols that stone prints, for encodings that lack them.

Only the symbols of this program are replaced. Anything else that an encoding lacks, such as letters of a file name, is
printed as a Python escape, because a similar letter would be the wrong name.
"""

from __future__ import annotations

import codecs
import sys

ASCII_SYMBOLS = "stone-ascii"
"""Name of the error handler for ``open(errors=...)`` and ``reconfigure(errors=...)``."""

_ASCII = {
    "━": "=", "─": "-", "│": "|", "┃": "|", "·": ".", "…": "~", "•": "*", "×": "x", "→": ">",
    "█": "#", "▉": "#", "▊": "#", "▋": "#", "▌": "#", "▍": " ", "▎": " ", "▏": " ", "╸": "=", "╺": "-",
}  # fmt: skip


def replace_missing_symbols() -> None:
    """Print characters that the terminal's encoding lacks as ASCII symbols or escapes, instead of raising errors."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=ASCII_SYMBOLS)


def _replace(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    char = error.object[error.start]
    if "\u2500" <= char <= "\u257f":  # lines and corners of tables
        return _ASCII.get(char, "+"), error.start + 1
    if char in _ASCII:
        return _ASCII[char], error.start + 1
    return char.encode("ascii", "backslashreplace").decode(), error.start + 1


codecs.register_error(ASCII_SYMBOLS, _replace)
