"""Small text files."""

from __future__ import annotations

from pathlib import Path

import pytest

from stonecli.util.small_text import MAX_CHARACTERS, read_small_text


def test_a_byte_order_mark_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfa\r\nb")
    assert read_small_text(tmp_path / "a") == "a\nb"


def test_a_large_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("é" * MAX_CHARACTERS, encoding="utf-8")
    assert len(read_small_text(tmp_path / "a")) == MAX_CHARACTERS
    (tmp_path / "b").write_text("a" * (MAX_CHARACTERS + 1))
    with pytest.raises(ValueError, match="larger than 1,048,576 characters"):
        read_small_text(tmp_path / "b")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no endless device")
def test_an_endless_device_is_refused() -> None:
    with pytest.raises(ValueError, match="larger than"):
        read_small_text(Path("/dev/zero"))
