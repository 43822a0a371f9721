from pathlib import Path

import pytest

from stonecli.output.sinks import Outputs, Targets


def test_a_failed_write_does_not_affect_other_files(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    targets = Targets(tmp_path / "a.csv", gone / "a.m3u8", tmp_path / "a.xml", tmp_path / "a.html")

    def run() -> None:
        with Outputs(targets, "camelot", None) as outputs:
            outputs.note(tmp_path / "a.mp3", None, "no such file")
            gone.rmdir()

    with pytest.raises(FileNotFoundError) as caught:
        run()
    assert caught.value.filename == str(gone / "a.m3u8")  # not the temporary file
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.html", "a.xml"]


def test_a_name_as_long_as_a_name_can_be(tmp_path: Path) -> None:
    path = tmp_path / ("\u97f3" * 83 + ".csv")  # 253 bytes
    with Outputs(Targets(path), "camelot", None):
        pass
    assert [*tmp_path.iterdir()] == [path]
