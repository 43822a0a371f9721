"""Makes untrusted text safe for a terminal or for one line of a file."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Control characters, line separators, bytes that are not UTF-8, and a backslash that would look like an escape.
_UNSAFE = re.compile(r"[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]|\\(?=u[0-9a-fA-F]{4})")
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")


def escaped(text: str) -> str:
    """``text`` as one line of valid UTF-8, for data formats that have no escapes of their own.

    Control characters, line separators and bytes that were not UTF-8 (surrogates, as Python reads such names) become
    ``\\u000a``, ``\\udcff``. A backslash in front of ``u`` and four hexadecimal digits becomes ``\\u005c``; other
    backslashes stay. :func:`unescaped` restores the text.
    """
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def unescaped(text: str) -> str:
    """The text for which :func:`escaped` returns ``text``."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)


def printable(text: str) -> str:
    """``text`` on one line, with everything that a terminal could interpret or hide shown as an escape.

    Control characters, line breaks, bidirectional overrides, zero-width and private characters become ``\\x1b`` and the
    like; a byte of a file name that is not valid UTF-8 becomes ``\\xff``. Letters, emoji and spaces stay.
    """
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def one_line(text: str) -> str:
    """``text`` on one line for a file of lines: each run of line breaks and control characters becomes a space."""
    safe = text.encode("utf-8", "replace").decode()  # an undecodable byte would make the whole file invalid UTF-8
    return "".join(char if char.isprintable() else " " for char in safe).strip()


def shortened(text: str, width: int) -> str:
    """``text`` in at most ``width`` terminal cells, shortened in the middle: ``Artist - Long…(Remix).mp3``.

    Wide characters count as two cells, and combining marks stay with their letters.
    """
    from rich.cells import cell_len

    if cell_len(text) <= width:
        return text
    if width < 1:
        return ""
    letters = _with_marks(text)
    end = _fitting(reversed(letters), (width - 1) // 2)
    start = _fitting(letters, width - 1 - sum(map(cell_len, end)))
    return "".join([*start, "…", *reversed(end)])


def _with_marks(text: str) -> list[str]:
    """The characters of ``text``, each with the combining marks that follow it."""
    from rich.cells import cell_len

    found: list[str] = []
    for char in text:
        if found and cell_len(char) == 0:
            found[-1] += char
        else:
            found.append(char)
    return found


def _fitting(letters: Iterable[str], width: int) -> list[str]:
    """The first letters that fit into ``width`` cells."""
    from rich.cells import cell_len

    fitting, used = [], 0
    for letter in letters:
        used += cell_len(letter)
        if used > width:
            break
        fitting.append(letter)
    return fitting


def clock(seconds: float) -> str:
    """Time as ``3:05`` or ``1:02:05``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _escaped(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # surrogateescape: an undecodable byte
        return f"\\x{code - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")
