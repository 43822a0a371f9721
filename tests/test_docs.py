"""The documentation keeps its word: the examples of docs/python.md run, and satisfy a strict type checker."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "docs" / "python.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
)


def test_the_examples_run(
    song: Callable[..., Path], tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "music"
    songs = {name: song(name, "song") for name in ("mp3", "flac")}
    before = {name: path.read_bytes() for name, path in songs.items()}
    tiny_model(folder / "my_model.onnx")
    (folder / "broken.mp3").write_bytes(b"no music")
    (folder / "music").mkdir()
    (folder / "music" / "other.flac").write_bytes(songs["flac"].read_bytes())
    monkeypatch.chdir(folder)
    outputs = []
    for example in EXAMPLES:
        done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    text = "".join(outputs)
    assert "7A Dm D minor" in text
    assert f"{Path('music', 'other.flac')} 7A" in text
    assert "cannot be decoded: " in text
    assert f"{songs['mp3']} is what it was, byte for byte" in text
    assert {name: path.read_bytes() for name, path in songs.items()} == before


def test_the_examples_satisfy_a_strict_type_checker(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    files = []
    for number, example in enumerate(EXAMPLES):
        files.append(tmp_path / f"example_{number}.py")
        files[-1].write_text(example)
    flags = ["--strict", "--follow-imports=silent", "--config-file=", f"--cache-dir={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *flags, *files],
        env={**os.environ, "MYPYPATH": str(ROOT)},  # an editable install is not seen by mypy
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
        timeout=300,
    )
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert all("soundfile" in line for line in errors), done.stdout  # the one that has no types itself
    assert "checked 7 source files" in done.stdout
