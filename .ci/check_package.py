"""Nothing is missing in the wheel and the sdist of a folder, nothing is in them that does not belong there.

python .ci/check_package.py FOLDER, from anywhere, with Python 3.11 or newer alone.
"""

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

MAX_BYTES = 5_000_000
ROOT = Path(__file__).resolve().parents[1]
# setuptools adds these to an sdist of the packages, pyproject.toml, README and license.
GENERATED = {"PKG-INFO", "setup.cfg"}


def main(folder: Path) -> None:
    """Raises AssertionError with what is wrong."""
    [wheel] = folder.glob("stonecli-*.whl")
    [sdist] = folder.glob("stonecli-*.tar.gz")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    setuptools = project["tool"]["setuptools"]
    folders = setuptools["package-dir"]  # by installed name
    packages = {folders.get(package, package) for package in setuptools["packages"]}
    installed = {folder: package for package, folder in folders.items()}
    tracked = subprocess.run(
        ["git", "ls-tree", "-r", "--name-only", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    wanted = {name for name in tracked if name.split("/")[0] in packages}
    in_wheel = {"/".join([installed.get(top, top), *rest]) for top, *rest in (name.split("/") for name in wanted)}

    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        [metadata] = [name for name in names if name.endswith(".dist-info/METADATA")]
        info = message_from_bytes(archive.read(metadata))
    about = metadata.split("/")[0]
    expect_same(wheel, in_wheel, {name for name in names if not name.startswith(f"{about}/")})
    assert f"{about}/licenses/LICENSE" in names, "no license in the wheel"

    with tarfile.open(sdist) as archive:
        inside = {member.name.split("/", 1)[-1] for member in archive if member.isfile()}
    inside = {name for name in inside if not name.startswith("stonecli.egg-info/")} - GENERATED
    expect_same(sdist, wanted | {"pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"}, inside)

    version = (ROOT / "stonecli/_version.py").read_text(encoding="utf-8").split('"')[1]
    assert info["Version"] == version, f"{info['Version']} is not the version of stonecli/_version.py"
    for field in (
        "Summary",
        "Author",
        "Keywords",
        "License-Expression",
        "Requires-Python",
        "Project-URL",
        "Description",
    ):
        assert info[field] or (field == "Description" and info.get_payload()), f"no {field} in the metadata"
    for file in (wheel, sdist):
        size = file.stat().st_size
        assert size < MAX_BYTES, f"{file.name} has {size} bytes"
        print(f"{file.name}: {size / 1e6:.2f} MB")


def expect_same(file: Path, wanted: set[str], found: set[str]) -> None:
    """Raises AssertionError if the file lacks something or has too much."""
    assert wanted == found, f"{file.name} lacks {sorted(wanted - found)} and has {sorted(found - wanted)} too much"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
