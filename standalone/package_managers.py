"""Write the files with which Homebrew and winget install the downloads of a release.

    python standalone/package_managers.py RELEASE_FOLDER REPOSITORY_URL

The folder contains the archives of ``build.py``. New files in it: ``stone.rb``, a formula for a Homebrew tap, and
``winget/``, the three manifests for winget's community repository. CONTRIBUTING.md says how a maintainer submits them.
"""

import hashlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path

SUMMARY = "Detects the musical key of your tracks and writes it to their tags"
_NAME = re.compile(r"stone-(?P<version>[^-]+)-(?P<system>linux|macos|windows)-(?P<machine>x86_64|arm64)\.(tar\.xz|zip)")
_BREW_NAMES = {"macos": "on_macos", "linux": "on_linux", "arm64": "on_arm", "x86_64": "on_intel"}
_WINGET_MACHINES = {"x86_64": "x64", "arm64": "arm64"}
_WINGET_SCHEMA = "1.10.0"


@dataclass(frozen=True)
class Archive:
    """A download of a release."""

    version: str
    system: str
    machine: str
    url: str
    sha256: str  # in lower case

    @classmethod
    def read(cls, path: Path, repository: str) -> "Archive":
        """Raises ValueError if the name is not one of ``build.py``."""
        match = _NAME.fullmatch(path.name)
        if match is None:
            raise ValueError(f"{path.name}: not the name of a download")
        url = f"{repository}/releases/download/v{match['version']}/{path.name}"
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(match["version"], match["system"], match["machine"], url, digest)


def main(folder: Path, repository: str) -> None:
    """Write the files beside the archives in ``folder``.

    Raises:
        ValueError: an archive has a wrong name, or there is none for a system.
    """
    paths = sorted([*folder.glob("stone-*.tar.xz"), *folder.glob("stone-*.zip")])
    archives = [Archive.read(path, repository.rstrip("/")) for path in paths]
    for system in ("linux", "macos", "windows"):
        if not any(archive.system == system for archive in archives):
            raise ValueError(f"no download for {system}")
    (folder / "stone.rb").write_text(formula(archives, repository), encoding="utf-8")
    (folder / "winget").mkdir(exist_ok=True)
    for name, text in winget_manifests(archives, repository).items():
        (folder / "winget" / name).write_text(text, encoding="utf-8")


def formula(archives: list[Archive], repository: str) -> str:
    """The Homebrew formula, which installs the program and its files unchanged."""
    blocks = []
    for system in ("macos", "linux"):
        blocks.append(f"  {_BREW_NAMES[system]} do")
        for archive in archives:
            if archive.system == system:
                blocks += [
                    f"    {_BREW_NAMES[archive.machine]} do",
                    f'      url "{archive.url}"',
                    f'      sha256 "{archive.sha256}"',
                    "    end",
                ]
        blocks.append("  end")
    return "\n".join(
        [
            "class Stone < Formula",
            f'  desc "{SUMMARY}"',
            f'  homepage "{repository}"',
            f'  version "{archives[0].version}"',
            '  license all_of: ["MIT", "GPL-3.0-or-later", "LGPL-2.1-or-later", "Apache-2.0", "BSD-3-Clause"]',
            "",
            *blocks,
            "",
            "  def install",
            '    libexec.install Dir["*"]',
            '    bin.install_symlink libexec/"stone"',
            "  end",
            "",
            "  test do",
            '    assert_match version.to_s, shell_output("#{bin}/stone --version")',
            "  end",
            "end",
            "",
        ]
    )


def winget_manifests(archives: list[Archive], repository: str) -> dict[str, str]:
    """The manifests by file name."""
    owner = repository.rstrip("/").split("/")[-2]
    identifier = f"{owner}.stone"
    head = [f"PackageIdentifier: {identifier}", f"PackageVersion: {archives[0].version}"]

    def manifest(kind: str, *lines: str) -> str:
        comment = f"# yaml-language-server: $schema=https://aka.ms/winget-manifest.{kind}.{_WINGET_SCHEMA}.schema.json"
        end = [f"ManifestType: {kind}", f"ManifestVersion: {_WINGET_SCHEMA}"]
        return "\n".join([comment, *head, *lines, *end, ""])

    installers = [
        line
        for archive in archives
        if archive.system == "windows"
        for line in (
            f"- Architecture: {_WINGET_MACHINES[archive.machine]}",
            f"  InstallerUrl: {archive.url}",
            f"  InstallerSha256: {archive.sha256.upper()}",
        )
    ]
    return {
        f"{identifier}.yaml": manifest("version", "DefaultLocale: en-US"),
        f"{identifier}.installer.yaml": manifest(
            "installer",
            "InstallerType: zip",
            "NestedInstallerType: portable",
            "NestedInstallerFiles:",
            "- RelativeFilePath: stone\\stone.exe",
            "  PortableCommandAlias: stone",
            "ArchiveBinariesDependOnPath: true  # the program needs the folder beside it, so no link to it works",
            "Commands:",
            "- stone",
            "Installers:",
            *installers,
        ),
        f"{identifier}.locale.en-US.yaml": manifest(
            "defaultLocale",
            "PackageLocale: en-US",
            "Publisher: the stone authors",
            "PackageName: stone",
            f"PackageUrl: {repository}",
            "License: MIT; ffmpeg inside is GPL-3.0-or-later",
            f"ShortDescription: {SUMMARY}, so you can mix harmonically.",
            "Moniker: stone",
            "Tags:",
            *("- dj", "- music", "- key-detection", "- camelot", "- harmonic-mixing"),
        ),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
