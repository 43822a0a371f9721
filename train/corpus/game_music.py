"""Unlabelled real music: the soundtracks of Debian's free games.

    python -m train.corpus.game_music FOLDER

fetches each package with ``apt-get download`` (nothing is installed, no root is needed), unpacks its music into
FOLDER/PACKAGE together with Debian's copyright file, and skips what is there already. Sound effects are left out by
their length. What was used for which model, and under which licences, is in docs/training.md.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from mutagen import File, MutagenError

PACKAGES = (
    "wesnoth-1.16-music",
    "naev-data",
    "warzone2100-music",
    "ufoai-music",
    "supertux-data",
    "hedgewars-data",
    "supertuxkart-data",
    "widelands-data",
    "nexuiz-music",
    "unknown-horizons",
    "marsshooter-data",
    "singularity-music",
    "starfighter-data",
    "flare-game",
    "freedroidrpg-data",
    "frogatto-data",
    "lugaru-data",
    "megaglest-data",
    "performous-tools",
    "pingus-data",
    "redeclipse-data",
    "alex4-data",
    "armagetronad-common",
    "asc-music",
    "boswars-data",
    "btanks-data",
    "colobot-common-sounds",
    "endless-sky-data",
    "extremetuxracer-data",
    "freedink-data",
    "freeorion-data",
    "fillets-ng-data",
    "gigalomania-data",
    "liquidwar-data",
    "minetest-data",
    "neverball-data",
    "openarena-081-misc",
    "openttd-openmsx",
    "pioneers-data",
    "solarwolf-data",
    "spacezero",
    "trackballs-music",
    "triplane-data",
    "tome",
    "unvanquished-data",
    "vdrift-data",
    "warsow-data",
    "xmoto-data",
    "xonotic-data",
    "zaz-data",
    "0ad-data",
)
SUFFIXES = frozenset({".ogg", ".oga", ".opus", ".mp3", ".flac", ".wav", ".m4a"})
LEAST_SECONDS = 40.0


def fetch_package(package: str, folder: Path) -> int:
    """Number of music files of ``package`` in ``folder``/``package`` after fetching it; 0 where there is none to be
    had.

    A package that is there is not fetched again; one that was interrupted leaves nothing behind.
    """
    target = folder / package
    if target.is_dir():
        return sum(path.suffix in SUFFIXES for path in target.iterdir())
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as name:
        work = Path(name)
        download = subprocess.run(["apt-get", "download", package], cwd=work, capture_output=True, check=False)  # noqa: S603, S607
        archives = list(work.glob("*.deb"))
        if download.returncode or not archives:
            return 0
        subprocess.run(["dpkg-deb", "-x", str(archives[0]), "tree"], cwd=work, check=True)  # noqa: S603, S607
        out = work / "music"
        out.mkdir()
        count = 0
        for path in sorted((work / "tree").rglob("*")):
            if path.suffix.lower() in SUFFIXES and path.is_file() and not path.is_symlink() and _is_music(path):
                shutil.move(path, out / f"{count:03}_{path.name}")
                count += 1
        for licence in (work / "tree").glob("usr/share/doc/*/copyright"):
            shutil.copy(licence, out / "copyright")
        out.rename(target)
    return count


def _is_music(path: Path) -> bool:
    try:
        file = File(path)
    except MutagenError:
        return False
    return file is not None and file.info is not None and getattr(file.info, "length", 0.0) >= LEAST_SECONDS


def main() -> None:
    """Fetch all packages into the folder given on the command line."""
    folder = Path(sys.argv[1])
    for package in PACKAGES:
        count = fetch_package(package, folder)
        print(f"{package}: {count} tracks" if count else f"{package}: no music, or not in this Debian", flush=True)


if __name__ == "__main__":
    main()
