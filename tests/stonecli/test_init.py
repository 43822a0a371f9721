"""The names that ``import stonecli`` shows at a prompt."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import stonecli
from stonecli import Key


@pytest.mark.usefixtures("unmeasured")
def test_dir_lists_every_public_name_before_any_is_loaded() -> None:
    code = "import sys, stonecli; print(*dir(stonecli)); print(*sys.modules)"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, modules = process.stdout.splitlines()
    assert {*stonecli.__all__} <= {*names.split()}
    assert {"numpy", "onnxruntime", "soundfile", "stonecli.detection.detect"}.isdisjoint(modules.split())


def test_tab_completes_public_names() -> None:
    code = (
        "import rlcompleter, stonecli; complete = rlcompleter.Completer({'stonecli': stonecli}).complete; "
        "print([complete('stonecli.detect_k', number) for number in range(2)])"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "stonecli.detect_key" in process.stdout
    assert "stonecli.detect_keys" in process.stdout


def test_every_public_name_can_be_loaded() -> None:
    assert all(getattr(stonecli, name) is not None for name in stonecli.__all__)


def test_every_public_name_is_documented() -> None:
    text = "".join((Path(__file__).parents[2] / "docs" / f"{name}.md").read_text("utf-8") for name in ("python", "api"))
    assert [name for name in stonecli.__all__ if name != "__version__" and not re.search(rf"\b{name}\b", text)] == []


def test_a_key_prints_as_musicians_write_it() -> None:
    assert [str(Key.parse(text)) for text in ("8A", "8B", "F# minor")] == ["Am", "C", "F#m"]
    assert f"in {Key(9, 'minor')}" == "in Am"
    assert repr(Key(9, "minor")) == "Key(tonic=9, mode='minor')"
