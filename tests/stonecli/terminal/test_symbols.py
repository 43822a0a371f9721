import os
import subprocess
import sys
from pathlib import Path

import pytest

from stonecli.terminal.symbols import ASCII_SYMBOLS

DRAWN = "━─│·…•×→█▉▊▋▌▍▎▏╸╺╭╮╰╯┏┓"
SHOW = """
import sys
from stonecli.terminal.symbols import replace_missing_symbols
replace_missing_symbols()
print(sys.argv[1])
"""


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "cp932", "ascii", "cp437", "utf-8"])
class TestEveryEncoding:
    def test_symbols_are_one_character_and_no_escape(self, encoding: str) -> None:
        for symbol in DRAWN:
            assert len(symbol.encode(encoding, ASCII_SYMBOLS).decode(encoding)) == 1

    def test_a_command_shows_no_escape(self, encoding: str, songs: dict[str, Path]) -> None:
        result = subprocess.run(
            [sys.executable, "-c", "from stonecli.cli.start import run; run()", "analyze", str(songs["flac"])],
            capture_output=True, timeout=60, env=os.environ | {"PYTHONIOENCODING": encoding},
        )  # fmt: skip
        assert (result.returncode, result.stderr) == (0, b"")
        text = result.stdout.decode(encoding)
        assert "\\u" not in text
        assert "\\x" not in text
        assert "7A  Dm   " in text


def test_missing_letters_are_escaped() -> None:
    """A similar letter would be the name of another file."""
    assert "Björk – 曲".encode("ascii", ASCII_SYMBOLS) == b"Bj\\xf6rk \\u2013 \\u66f2"
