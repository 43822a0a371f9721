"""The installed packages do not collide with modules that other people call ``train`` or ``export``."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))


def test_no_package_has_a_common_name() -> None:
    tops = {name.partition(".")[0] for name in PYPROJECT["tool"]["setuptools"]["packages"]}
    assert tops == {"stonecli", "stonecli_train", "stonecli_export", "beetsplug"}


def test_every_package_is_listed() -> None:
    """setuptools cannot search for packages whose folder has another name, so pyproject.toml lists them."""
    settings = PYPROJECT["tool"]["setuptools"]
    listed = {settings["package-dir"].get(name.partition(".")[0], "") or name for name in settings["packages"]}
    assert {"stonecli", "train", "export"} <= listed
    installed = {"stonecli": "stonecli", "train": "stonecli_train", "export": "stonecli_export"}
    found = {
        ".".join([installed[top.name], *module.parent.relative_to(top).parts])
        for top in (REPOSITORY / name for name in installed)
        for module in top.rglob("*.py")
    }
    assert found - set(settings["packages"]) == set()


@pytest.mark.parametrize("command", ["export", "train"])
def test_modules_in_the_current_folder_are_not_imported(tmp_path: Path, command: str) -> None:
    """``python -m`` puts the current folder first on the module path."""
    for name in ("train", "export"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('another program')", encoding="utf-8")
    arguments = {"export": ["missing.pt", "model.onnx"], "train": ["--type", "ks", "--data", "missing"]}[command]
    result = subprocess.run(
        [sys.executable, "-m", "stonecli", command, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "missing: no such" in result.stderr.lower() or "missing.pt" in result.stderr
    assert "another program" not in result.stderr
    assert "pip install" not in result.stderr
