"""Which module imports which: no circle of packages or of modules, those for type checking included.

The layers are contracts of import-linter in pyproject.toml.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
INSTALLED_NAMES = {"stonecli": "stonecli", "train": "stonecli_train", "export": "stonecli_export"}


def modules() -> dict[str, Path]:
    """The file of each module of the packages by its installed name."""
    found = {}
    for folder, name in INSTALLED_NAMES.items():
        for path in (ROOT / folder).rglob("*.py"):
            parts = (name, *path.relative_to(ROOT / folder).with_suffix("").parts)
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imported(path: Path, known: Mapping[str, Path]) -> Iterator[str]:
    """The modules among ``known`` that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                yield from [name for name in (f"{node.module}.{alias.name}", node.module) if name in known][:1]


def package_of(module: str) -> str:
    """``stonecli.tags`` for ``stonecli.tags.edit.splice``; the modules directly in a package count as packages."""
    return ".".join(module.split(".")[:2])


def circle(imports: Mapping[str, set[str]]) -> list[str]:
    """A circle of imports, or an empty list."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """The modules that each module imports."""
    known = modules()
    return {name: {other for other in imported(path, known) if other != name} for name, path in known.items()}


class TestCircles:
    def test_no_modules_import_each_other(self, imports: dict[str, set[str]]) -> None:
        assert circle(imports) == []

    def test_no_packages_import_each_other(self, imports: dict[str, set[str]]) -> None:
        packages: dict[str, set[str]] = {}
        for module, others in imports.items():
            mine = package_of(module)
            packages.setdefault(mine, set()).update(package_of(other) for other in others if package_of(other) != mine)
        del packages["stonecli"]  # its public names are loaded on first use, from all packages
        assert circle(packages) == []

    def test_a_circle_is_found(self) -> None:
        assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})
