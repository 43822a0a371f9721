from __future__ import annotations

from pathlib import Path

import pytest

from stonecli.errors import StoneError
from stonecli_train.errors import message, named


def test_the_first_name_is_stored_and_printed() -> None:
    with pytest.raises(StoneError) as caught, named(Path("outer.pt")), named(Path("inner\n.pt")):
        raise StoneError("no good")
    assert str(caught.value) == "no good"
    assert message(caught.value) == r"inner\n.pt: no good"


def test_other_errors_are_one_line_too(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="none") as caught, named(Path("other")):
        (tmp_path / "none").read_bytes()
    assert message(caught.value) == f"{tmp_path / 'none'}: no such file or folder"
    assert message(OSError("out of luck")) == "out of luck"
    assert message(StoneError("nothing to do")) == "nothing to do"
