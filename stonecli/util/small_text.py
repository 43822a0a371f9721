"""Read small text files that a user names."""

from __future__ import annotations

from pathlib import Path

MAX_CHARACTERS = 1 << 20


def read_small_text(path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte order mark.

    Raises:
        ValueError: it has more than a million characters, like a disk image or an endless device, or is not UTF-8.
        OSError: it cannot be read.
    """
    with path.open(encoding="utf-8-sig") as file:  # editors on Windows put a byte order mark in front
        text = file.read(MAX_CHARACTERS + 1)
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"larger than {MAX_CHARACTERS:,} characters")
    return text
