import csv

import pytest

from stonecli.util.csv_text import csv_cells, csv_line


def cells(path: str, text: str) -> list[str]:
    return csv_cells({"path": path, "old_key": text, "tuning_cents": -12.5, "error": None}, COLUMNS)


COLUMNS = ("path", "old_key", "tuning_cents", "error")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", " =", "＝", "＋"])
def test_no_cell_is_a_formula(start: str) -> None:
    text = f"{start}HYPERLINK(1)"
    assert cells(text, text) == [f"./{text}", f"'{text}", "-12.5", ""]


def test_no_cell_is_a_formula_where_semicolons_separate() -> None:
    """A spreadsheet with a comma for decimals takes the first quoted cell whole, and cuts the rest at semicolons."""
    assert cells("y;=1+2.mp3", "y;=1+2; -3; x=1") == ["y;=1+2.mp3", "y;'=1+2;' -3; x=1", "-12.5", ""]
    line = csv_line(cells("y;=1+2.mp3", "y;=1+2"))
    first, *rest = next(csv.reader([line.strip()], delimiter=";"))
    assert first.startswith("y;=1+2.mp3")
    assert not any(cell.startswith("=") for cell in rest)


@pytest.mark.parametrize("text", ["y;=1+2.mp3", "a,b", 'quo"te', "two words", " edge ", "a|b", "Björk 🎹"])
def test_all_but_plain_text_is_quoted(text: str) -> None:
    line = csv_line(["x", *csv_cells({"path": text}, ("path",))])
    assert line.startswith('x,"')
    assert line.endswith('"\r\n')


def test_plain_text_is_not_quoted() -> None:
    assert csv_line(["/music/a-b_1.mp3", r"C:\music\a.mp3", "8A", "-12.5", ""]) == (
        "/music/a-b_1.mp3,C:\\music\\a.mp3,8A,-12.5,\r\n"
    )


def test_control_characters_are_escaped() -> None:
    assert cells("a\nb\x85.mp3", "\r\udcff") == ["a\\u000ab\\u0085.mp3", "\\u000d\\udcff", "-12.5", ""]
