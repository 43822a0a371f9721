"""docs/licenses.md names every package that comes with stone."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
_UNIX = {"os_name": "posix", "platform_python_implementation": "CPython", "implementation_name": "cpython"}
SYSTEMS = [
    {**_UNIX, "sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"},
    {**_UNIX, "sys_platform": "linux", "platform_system": "Linux", "platform_machine": "aarch64"},
    {**_UNIX, "sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64"},
    {**_UNIX, "os_name": "nt", "sys_platform": "win32", "platform_system": "Windows", "platform_machine": "AMD64"},
]
# Packages that are only installed on newer Pythons.
NEWER_DEPENDENCIES = {"standard-aifc": ["standard-chunk", "audioop-lts"], "standard-sunau": ["audioop-lts"]}
PYTHONS = [("3.11", "3.11.9"), ("3.12", "3.12.7"), ("3.13", "3.13.1"), ("3.14", "3.14.0")]


def test_the_table_lists_exactly_the_base_dependencies() -> None:
    assert table("brings") == dependencies_of(PROJECT["dependencies"])


@pytest.mark.parametrize("extra", sorted(set(PROJECT["optional-dependencies"]) - {"cuda", "dev", "docs"}))
def test_the_table_lists_the_dependencies_of_every_extra(extra: str) -> None:
    text = section("add")
    for line in PROJECT["optional-dependencies"][extra]:
        name = Requirement(line).name
        assert name == "stonecli" or re.search(rf"\b{re.escape(name)}\b", text), f"{name} of [{extra}]"
    assert f"`{extra}`" in text


def test_copyleft_licenses_are_in_bold() -> None:
    """Packages under the GPL or LGPL are marked in the table."""
    text = section("brings")
    for name in dependencies_of(PROJECT["dependencies"]):
        try:
            info = metadata.metadata(name)
        except metadata.PackageNotFoundError:  # for another system
            continue
        said = f"{info.get_all('License-Expression') or info.get_all('License')} {info.get_all('Classifier')}"
        if "GPL" in said or "General Public" in said:
            assert re.search(rf"^\| {name} \| \*\*A?L?GPL-", text, re.MULTILINE), name


def section(word: str) -> str:
    """The part of the page whose heading ends in ``word``."""
    parts = (ROOT / "docs" / "licenses.md").read_text(encoding="utf-8").split("\n## ")
    [found] = [part for part in parts if part.splitlines()[0].endswith(word)]
    return found


def table(word: str) -> set[str]:
    """The names in the first column of that part's table."""
    rows = re.findall(r"^\| ([\w, -]+) \|", section(word), re.MULTILINE)[1:]
    return {canonicalize_name(name) for row in rows for name in row.split(", ")}


def dependencies_of(requirements: list[str]) -> set[str]:
    """Canonical names of all dependencies, on any system; without those of packages that are not installed here."""
    found: set[str] = set()
    waiting = list(requirements)
    while waiting:
        requirement = Requirement(waiting.pop())
        name = canonicalize_name(requirement.name)
        if name in found or not is_needed(requirement):
            continue
        found.add(name)
        try:
            waiting += metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            waiting += NEWER_DEPENDENCIES.get(name, [])
    return found


def is_needed(requirement: Requirement) -> bool:
    """Whether any system and Python that stone supports needs it, without extras."""
    return requirement.marker is None or any(
        requirement.marker.evaluate({**system, "python_version": short, "python_full_version": full, "extra": ""})
        for system in SYSTEMS
        for short, full in PYTHONS
    )
