"""The tree of tests: a file per module of the packages, and names that read as sentences."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests"
PACKAGES = ("stonecli", "train", "export", "benchmarks")


def modules(folder: Path) -> set[str]:
    """The names of the modules in a folder, as test files spell them."""
    return {path.stem.strip("_") for path in folder.glob("*.py")}


@pytest.mark.parametrize("package", PACKAGES)
def test_each_test_file_mirrors_a_module(package: str) -> None:
    """``test_decode.py`` tests ``decode.py`` of the same folder, and so does ``test_decode_of_damaged_files.py``."""
    for path in (TESTS / package).rglob("test_*.py"):
        name = path.stem.removeprefix("test_")
        found = modules(ROOT / path.parent.relative_to(TESTS))
        assert any(name == module or name.startswith(f"{module}_") for module in found), path.relative_to(ROOT)
