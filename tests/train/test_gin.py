from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from stonecli_train.gin import parse_gin  # noqa: E402


def test_literals_are_read() -> None:
    lines = [
        "# a comment = 1",
        "  # one that is indented = 2",
        "import src.hcqt",
        "",
        "src.hcqt.HarmonicVQT.harmonics = [1]",
        "A.rate=22050",
        'B.kind = "a = b"   # the rest is comment',
        "C.pair = (1.5, None)",
        "D.flag = True ",
        "D.flag = False",
    ]
    assert parse_gin(lines) == {
        "src.hcqt.HarmonicVQT.harmonics": [1],
        "A.rate": 22050,
        "B.kind": "a = b",
        "C.pair": (1.5, None),
        "D.flag": False,
    }


@pytest.mark.parametrize(
    "value",
    [
        "__import__('pathlib').Path('{}').touch()",
        "open('{}', 'w')",
        "(lambda: open('{}', 'w'))()",
        "[open('{}', 'w') for _ in range(1)]",
        "f\"{{open('{}', 'w')}}\"",
        "@open('{}')",
        "%MACRO",
        "name",
        "[7, 7,",
        "",
        "(" * 300,
        "-" * 5000 + "1",
        "{{[]: 1}}",
    ],
)
def test_nothing_is_run_and_the_line_is_named(value: str, tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    with pytest.raises(ValueError, match="line 2: not a Python literal"):
        parse_gin(["A.b = 1", f"A.c = {value.format(touched)}"])
    assert not touched.exists()
