"""The files for Homebrew and winget name the right archives."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from standalone.package_managers import Archive, main

REPOSITORY = "https://example.org/ana/stone"
NAMES = ("linux-x86_64.tar.xz", "macos-arm64.tar.xz", "macos-x86_64.tar.xz", "windows-x86_64.zip")


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A release folder in which each archive has its own content."""
    for name in NAMES:
        (tmp_path / f"stone-1.2.0-{name}").write_text(name)
    return tmp_path


def digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def test_the_formula_has_the_archive_of_each_system(release: Path) -> None:
    main(release, REPOSITORY)
    lines = [line.strip() for line in (release / "stone.rb").read_text("utf-8").splitlines()]
    blocks: dict[str, str] = {}
    system = ""
    for number, line in enumerate(lines):
        if line in ("on_macos do", "on_linux do"):
            system = line.removesuffix(" do")
        if line.startswith("on_") and line not in ("on_macos do", "on_linux do"):
            blocks[f"{system} {line.removesuffix(' do')}"] = " ".join(lines[number + 1 : number + 3])
    assert blocks == {
        f"{system} {machine}": f'url "{REPOSITORY}/releases/download/v1.2.0/stone-1.2.0-{name}" sha256 "{digest(name)}"'
        for system, machine, name in (
            ("on_macos", "on_arm", NAMES[1]),
            ("on_macos", "on_intel", NAMES[2]),
            ("on_linux", "on_intel", NAMES[0]),
        )
    }
    assert 'version "1.2.0"' in lines


@pytest.mark.skipif(shutil.which("ruby") is None, reason="needs Ruby")
def test_the_formula_is_valid_ruby(release: Path) -> None:
    main(release, REPOSITORY)
    subprocess.run(["ruby", "-c", release / "stone.rb"], check=True, capture_output=True)


def test_winget_gets_three_manifests_of_one_package(release: Path) -> None:
    main(release, REPOSITORY)
    manifests = {path.name: yaml.safe_load(path.read_text("utf-8")) for path in (release / "winget").iterdir()}
    assert {name: manifest["ManifestType"] for name, manifest in manifests.items()} == {
        "ana.stone.yaml": "version",
        "ana.stone.installer.yaml": "installer",
        "ana.stone.locale.en-US.yaml": "defaultLocale",
    }
    for manifest in manifests.values():
        assert (manifest["PackageIdentifier"], manifest["PackageVersion"]) == ("ana.stone", "1.2.0")
    installer = manifests["ana.stone.installer.yaml"]
    assert installer["Installers"] == [
        {
            "Architecture": "x64",
            "InstallerUrl": f"{REPOSITORY}/releases/download/v1.2.0/stone-1.2.0-windows-x86_64.zip",
            "InstallerSha256": digest(NAMES[3]).upper(),
        }
    ]
    assert installer["ArchiveBinariesDependOnPath"] is True
    assert installer["NestedInstallerFiles"] == [
        {"RelativeFilePath": "stone\\stone.exe", "PortableCommandAlias": "stone"}
    ]
    assert 3 <= len(manifests["ana.stone.locale.en-US.yaml"]["ShortDescription"]) <= 256


def test_a_missing_system_is_an_error(release: Path) -> None:
    (release / f"stone-1.2.0-{NAMES[3]}").unlink()
    with pytest.raises(ValueError, match="no download for windows"):
        main(release, REPOSITORY)


def test_another_file_name_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "stone-1.2.0.tar.xz"
    path.touch()
    with pytest.raises(ValueError, match="not the name of a download"):
        Archive.read(path, REPOSITORY)


def test_the_release_workflow_can_run_the_script(release: Path) -> None:
    script = Path(__file__).parents[2] / "standalone" / "package_managers.py"
    subprocess.run([sys.executable, script, release, REPOSITORY], check=True)
    assert (release / "stone.rb").exists()
