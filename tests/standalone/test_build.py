"""The parts of the build that need no PyInstaller; ``build.py`` itself tries the archive that it makes."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

from standalone.build import ROOT, archive_name, cpu_dependencies
from standalone.package_managers import Archive


def test_the_download_has_the_cpu_build_of_onnxruntime() -> None:
    """The GPU build alone is larger than the limit."""
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    names = [Requirement(line).name for line in cpu_dependencies(dependencies)]
    assert names.count("onnxruntime") == 1
    assert "onnxruntime-gpu" not in names
    assert {Requirement(line).name for line in dependencies} - {"onnxruntime-gpu"} == set(names)


def test_package_managers_understand_the_name_of_the_archive(tmp_path: Path) -> None:
    path = tmp_path / archive_name()
    path.write_bytes(b"archive")
    assert Archive.read(path, "https://example.org/ana/stone").url.endswith(path.name)


def test_the_text_in_the_archive_names_only_options_that_exist() -> None:
    from stonecli.cli.help import COMMANDS

    text = (ROOT / "standalone" / "README.txt").read_text("utf-8")
    for command in re.findall(r"stone[\"']? ([a-z]+) (?=[~\"])", text):
        assert command in COMMANDS
