from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stonecli.key import Key
from stonecli_train.data import (
    DataError,
    read_labels,
)


@pytest.fixture
def labels(tmp_path: Path) -> Callable[[str | bytes], Path]:
    """Writes ``labels.csv`` beside the files a.wav, b.wav and "c, d.wav"."""
    for name in ("a.wav", "b.wav", "c, d.wav"):
        (tmp_path / name).write_bytes(b"sound")

    def write(text: str | bytes) -> Path:
        path = tmp_path / "labels.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


class TestReadLabels:
    def test_labels_in_any_spelling(self, labels: Any, tmp_path: Path) -> None:
        absolute = tmp_path / "b.wav"
        rows = f'path,key,genre\na.wav,F# minor,x\n{absolute},8B,y\n"c, d.wav",1m,z\n'
        expected = [
            (tmp_path / "a.wav", Key(6, "minor")),
            (absolute, Key(0, "major")),
            (tmp_path / "c, d.wav", Key(9, "minor")),
        ]
        assert read_labels(labels(rows)) == expected
        assert read_labels(labels(b"\xef\xbb\xbf" + rows.encode())) == expected
        assert read_labels(labels(rows.replace("\n", "\r\n"))) == expected
        assert read_labels(labels(rows.replace("\n", "\n\n"))) == expected

    def test_columns_in_any_order(self, labels: Any, tmp_path: Path) -> None:
        assert read_labels(labels("key,artist,path\nDbmaj,x,a.wav\n")) == [(tmp_path / "a.wav", Key(1, "major"))]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("path,key\na.wav,C\nb.wav,H minor\n", r"labels\.csv: line 3: not a key: 'H minor'"),
            ("path,key\na.wav,\n", r"labels\.csv: line 2: not a key: ''"),
            ("path,key\na.wav\n", r"labels\.csv: line 2: not a key"),
            ('path,key\n"a\n.wav",C\nb.wav,Q\n', r"labels\.csv: line 2: no such file: a \.wav"),
            ("path,key\n\n\na.wav,C\nnone.wav,C\n", r"labels\.csv: line 5: no such file: none\.wav"),
            ("path,key\n,C\n", r"labels\.csv: line 2: no such file"),
            (f"path,key\n{'x' * 5000}.wav,C\n", r"labels\.csv: line 2: .*too long"),
            (
                "path,key\na.wav,C\nb.wav,C\n./a.wav,Am\n",
                r"line 4: \./a\.wav is labeled A minor, but C major in an",
            ),
            ("path,key\n" + "x" * 200_000, r"labels\.csv: line 2: not valid CSV: field larger"),
            ("path,key\n", r"labels\.csv: the file contains no labels"),
            ("", r"labels\.csv: the file is empty"),
            ("file,key\na.wav,C\n", r"labels\.csv: line 1: no column path \(columns: file, key\)"),
            ("path,path,key\na.wav,b.wav,C\n", r"labels\.csv: line 1: two columns are named path"),
            ("path,key\nb, c.wav,C\n", r"labels\.csv: line 2: 3 fields for 2 columns"),
            (b"\xff\xfep\x00a\x00t\x00h\x00", r"labels\.csv: line 1: no column path"),
        ],
    )
    def test_mistakes_in_labels(self, text: str | bytes, message: str, labels: Any) -> None:
        with pytest.raises(DataError, match=message):
            read_labels(labels(text))

    def test_a_file_listed_twice_counts_once(self, labels: Any, tmp_path: Path) -> None:
        """Otherwise it could be used for both training and validation."""
        assert read_labels(labels("path,key\na.wav,C\n./a.wav,8B\n")) == [(tmp_path / "a.wav", Key(0, "major"))]

    @pytest.mark.skipif(sys.platform == "win32", reason="names there are text")
    def test_names_that_are_not_utf_8(self, labels: Any, tmp_path: Path) -> None:
        odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav"))
        odd.write_bytes(b"sound")
        assert read_labels(labels(b"path,key\ncaf\xe9.wav,C\n")) == [(odd, Key(0, "major"))]

    def test_a_missing_csv_is_an_os_error(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            read_labels(tmp_path / "none.csv")

    def test_the_label_none(self, labels: Any, tmp_path: Path) -> None:
        assert read_labels(labels("path,key\na.wav,none\nb.wav,Am\n")) == [
            (tmp_path / "a.wav", None),
            (tmp_path / "b.wav", Key(9, "minor")),
        ]
        with pytest.raises(DataError, match="is labeled C major, but no key in an earlier line"):
            read_labels(labels("path,key\na.wav,none\n./a.wav,C\n"))
