"""Downloads unlabeled music: the soundtracks of Debian's free games.

    python -m stonecli_train.corpus.game_music FOLDER

This downloads each package with ``apt-get download``, which installs nothing and needs no root, and unpacks its music
to FOLDER/PACKAGE together with Debian's copyright file. It skips packages that are already unpacked, and sound effects,
which it recognizes by their length. ffmpeg renders tracker modules to Ogg Vorbis. docs/training.md lists the music that
was used for each model, with its licenses.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import imageio_ffmpeg
from mutagen import File, MutagenError

from stonecli.errors import StoneError
from stonecli_train.errors import message

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
    # Used since stone_3: rock, techno and tracker modules, which were underrepresented.
    "a7xpg-data",
    "alienblaster-data",
    "amoebax-data",
    "ardentryst",
    "berusky-data",
    "berusky2-data",
    "biniax2-data",
    "blobandconquer-data",
    "blobwars-data",
    "brainparty-data",
    "caveexpress-data",
    "ceferino-data",
    "criticalmass-data",
    "cube2-data",
    "doomsday-data",
    "drascula-music",
    "enigma-data",
    "foobillardplus-data",
    "fretsonfire-songs-muldjord",
    "fretsonfire-songs-sectoid",
    "frozen-bubble-data",
    "gcompris-qt-data",
    "gunroar-data",
    "hex-a-hop-data",
    "kraptor-data",
    "lbreakout2-data",
    "lbreakouthd-data",
    "lincity-ng-data",
    "madbomber-data",
    "mazeofgalious-data",
    "mu-cade-data",
    "netpanzer-data",
    "noiz2sa-data",
    "open-invaders-data",
    "openclonk-data",
    "orbital-eunuchs-sniper-data",
    "parsec47-data",
    "pathological",
    "pax-britannica-data",
    "phlipple-data",
    "planetblupi-music-ogg",
    "plee-the-bear-data",
    "powermanga-data",
    "pysiogame",
    "rafkill-data",
    "raincat-data",
    "ri-li-data",
    "rrootage-data",
    "scorched3d-data",
    "sdl-ball-data",
    "teeworlds-data",
    "titanion-data",
    "torus-trooper-data",
    "trigger-rally-data",
    "trophy-data",
    "tumiki-fighters-data",
    "tuxmath-data",
    "tuxtype-data",
    "warmux-data",
    "wizznic-data",
    "xblast-tnt-musics",
)
MAX_FAILURES = 8  # consecutive failed packages after which the command gives up
SUFFIXES = frozenset({".ogg", ".oga", ".opus", ".mp3", ".flac", ".wav", ".m4a"})
MODULES = frozenset({".mod", ".xm", ".it", ".s3m"})
MIN_SECONDS = 40.0
_NOT_FOUND = "Unable to locate package"  # apt-get's message if the Debian release does not have a package
_TEMPORARY_PREFIX = ".fetch-"  # of the names of temporary folders
MAX_MODULE_SECONDS = 600  # maximum length of a rendered tracker module


class FetchError(StoneError):
    """A package cannot be downloaded."""


def fetch_package(package: str, folder: Path) -> int:
    """Download ``package`` into ``folder``/``package`` and return its number of music files.

    An existing package is not downloaded again; an interrupted download leaves no files.

    Raises:
        FetchError: the download failed; the message is that of apt-get.
    """
    target = folder / package
    if target.is_dir():
        return sum(path.suffix in SUFFIXES for path in target.iterdir())
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=_TEMPORARY_PREFIX) as name:
        work = Path(name)
        command = ["apt-get", "download", package]
        english = os.environ | {"LC_ALL": "C"}  # _NOT_FOUND is the English message
        download = subprocess.run(command, cwd=work, capture_output=True, check=False, env=english)  # noqa: S603
        archives = list(work.glob("*.deb"))
        if download.returncode or not archives:
            reason = download.stderr.decode(errors="replace").strip().splitlines()
            raise FetchError(reason[-1].removeprefix("E: ") if reason else "apt-get downloaded no package")
        subprocess.run(["dpkg-deb", "-x", str(archives[0]), "tree"], cwd=work, check=True)  # noqa: S603, S607
        out = work / "music"
        out.mkdir()
        count = 0
        for archive in sorted((work / "tree").rglob("*.zip")):
            _unpack_music(archive)
        for path in sorted((work / "tree").rglob("*")):
            if not path.is_file() or path.is_symlink():
                continue
            music = _rendered(path) if path.suffix.lower() in MODULES else path
            if music.suffix.lower() in SUFFIXES and _is_music(music):
                shutil.move(music, out / f"{count:03}_{music.name}")
                count += 1
        for copyright_file in (work / "tree").glob("usr/share/doc/*/copyright"):
            shutil.copy(copyright_file, out / "copyright")
        out.rename(target)
    return count


def _unpack_music(archive: Path) -> None:
    """Unpack the music in a zip to the zip's folder, without the paths of its members; ignore files that are no zip."""
    try:
        with zipfile.ZipFile(archive) as members:
            for number, member in enumerate(members.infolist()):
                name = Path(member.filename)
                if name.suffix.lower() in SUFFIXES:
                    with members.open(member) as source, archive.with_name(f"{number}_{name.name}").open("wb") as out:
                        shutil.copyfileobj(source, out)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError):  # the latter two: compression, a password
        return


def _rendered(module: Path) -> Path:
    """Path of the tracker module rendered to Ogg Vorbis; the module's own path if ffmpeg cannot render it."""
    out = module.with_name(f"{module.name}.ogg")
    source = ["-f", "libopenmpt", "-i", f"file:{module}", "-t", str(MAX_MODULE_SECONDS)]
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-nostdin",
        "-v",
        "error",
        *source,
        "-c:a",
        "libvorbis",
        "-q:a",
        "6",
        f"file:{out}",
    ]
    done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603
    return module if done.returncode else out


def _is_music(path: Path) -> bool:
    try:
        file = File(path)
    except MutagenError:
        return False
    return file is not None and file.info is not None and getattr(file.info, "length", 0.0) >= MIN_SECONDS


def fetch_all(folder: Path, packages: Sequence[str] = PACKAGES, report: Callable[[str], None] = print) -> int:
    """Download ``packages`` into ``folder`` and return the number of music files there.

    Raises:
        FetchError: apt-get is not installed, or MAX_FAILURES packages in a row cannot be downloaded, as without a
            network. Packages that the Debian release does not have are not errors.
    """
    missing = [program for program in ("apt-get", "dpkg-deb") if shutil.which(program) is None]
    if missing:
        raise FetchError(f"{' and '.join(missing)} not found (Debian or Ubuntu); use music of your own")
    for leftover in folder.glob(f"{_TEMPORARY_PREFIX}*"):  # left by a process that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    total = fetched = failed = 0
    for package in packages:
        try:
            count = fetch_package(package, folder)
        except FetchError as error:
            report(f"{package}: {error}")
            failed += 0 if fetched and _NOT_FOUND in str(error) else 1
            if failed >= min(MAX_FAILURES, len(packages)):
                advice = "run apt-get update, or check the network; then run the same command again to resume"
                raise FetchError(f"{failed} packages in a row cannot be downloaded ({error}): {advice}") from error
            continue
        fetched, failed = fetched + 1, 0
        total += count
        report(f"{package}: {count} tracks" if count else f"{package}: no music")
    return total


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code of the command: 0, or 1 after an error."""
    parser = argparse.ArgumentParser(
        prog="python -m stonecli_train.corpus.game_music", description=__doc__.split("\n")[0]
    )
    parser.add_argument("folder", type=Path, help="folder of the music")
    folder = parser.parse_args(arguments).folder.absolute()  # apt-get and ffmpeg would read a leading dash as an option
    try:
        fetch_all(folder, report=partial(print, flush=True))
    except (StoneError, OSError) as error:
        print(message(error), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
