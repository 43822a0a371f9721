import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from stonecli.util.text import escaped, printable, shortened, unescaped

ANY_TEXT = st.text(st.characters(codec=None))  # lone surrogates too: names that are not valid UTF-8


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Björk – Jóga.mp3", "Björk – Jóga.mp3"),
        ("🎹 [red] two  spaces", "🎹 [red] two  spaces"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\nb\rc\td\0\x07", "a\\nb\\rc\\td\\x00\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("a\u200bb\ufeff", "a\\u200bb\\ufeff"),
        ("\udcff\udc80", "\\xff\\x80"),
        ("\ud800", "\\ud800"),
        ("a\u2028b", "a\\u2028b"),
    ],
    ids=ascii,
)
def test_terminal_escapes_are_shown(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(ANY_TEXT)
def test_the_result_is_one_printable_line_that_can_be_encoded(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1
    shown.encode("utf-8")
    assert printable(shown) == shown


WITH_WIDTH = st.characters(min_codepoint=32, max_codepoint=0x1F9FF, exclude_categories=("Cs", "Cc", "Cf", "Mn"))


@given(st.text(WITH_WIDTH), st.integers(1, 30))
def test_shortened_text_fits_and_keeps_both_ends(text: str, width: int) -> None:
    short = shortened(text, width)
    assert cell_len(short) <= width
    if short != text:
        assert cell_len(text) > width
        start, end = short.split("…", 1) if text.count("…") == 0 else (short[: short.index("…")], "")
        assert text.startswith(start)
        assert text.endswith(end)


@pytest.mark.parametrize(
    ("text", "width", "short"),
    [
        ("song.mp3", 8, "song.mp3"),
        ("Artist - A Long Title (Remix).mp3", 21, "Artist - A…Remix).mp3"),
        ("Artist - A Long Title (Remix).mp3", 20, "Artist - A…emix).mp3"),
        ("a very long folder/song.mp3", 10, "a ver….mp3"),
        ("日本語の歌の長い題名.mp3", 12, "日本語….mp3"),
        ("abcdef", 1, "…"),
        ("abcdef", 0, ""),
        ("e\u0301" * 10, 5, "e\u0301e\u0301…e\u0301e\u0301"),
    ],
)
def test_the_middle_is_cut(text: str, width: int, short: str) -> None:
    assert shortened(text, width) == short
    assert cell_len(short) <= width


@pytest.mark.parametrize(
    ("text", "data"),
    [
        (r"C:\users\music", r"C:\users\music"),
        ("a\nb\x7f\x85\u2028", r"a\u000ab\u007f\u0085\u2028"),
        ("\udcff", r"\udcff"),
        (r"\udcff", r"\u005cudcff"),
        ("\\\udcff", r"\\udcff"),
    ],
    ids=ascii,
)
def test_data_files_hold_one_line_of_utf_8(text: str, data: str) -> None:
    assert escaped(text) == data
    assert unescaped(data) == text


@given(st.one_of(ANY_TEXT, st.text("\\u0041\n\udcff")))
def test_escaped_text_can_be_restored(text: str) -> None:
    data = escaped(text)
    assert unescaped(data) == text
    data.encode("utf-8")
    assert len(data.splitlines()) <= 1
