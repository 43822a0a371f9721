"""Folders -> music files: every file once, in natural order, whatever lies in between."""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stonecli.errors import reason

_LIBSNDFILE = {".mp3", ".flac", ".ogg", ".oga", ".opus", ".wav", ".wave", ".w64", ".rf64", ".aif", ".aiff", ".aifc"}
_FFMPEG = {".m4a", ".mp4", ".aac", ".alac", ".wma", ".wv", ".ape", ".mpc", ".mka", ".weba", ".mp2", ".caf", ".au"}
_FFMPEG_RARE = {".shn", ".dsf", ".dff", ".tta", ".tak"}  # concert tapes, DSD, other lossless

# Left out though decodable: audio books (.m4b), ring tones, video other than .mp4 (in which NI Stems come), and endings
# that mean something else elsewhere (.dts, .snd).
MUSIC_SUFFIXES: frozenset[str] = frozenset(_LIBSNDFILE | _FFMPEG | _FFMPEG_RARE)
"""Endings, lower-case with the dot, of the files that a folder is searched for."""

TEMPORARY_PREFIX, TEMPORARY_SUFFIX = ".stone-", ".tmp"  # of stone's own files beside the music

SYSTEM_FOLDERS = frozenset(
    {
        "__macosx",
        "system volume information",
        "$recycle.bin",
        "lost+found",
        "network trash folder",
        "thevolumesettingsfolder",
        # Synology and QNAP: thumbnails, bins and snapshots, all of them with copies named like the music
        "@eadir",
        "@tmp",
        "@recycle",
        "@recently-snapshot",
        "#recycle",
        "#snapshot",
        "~snapshot",
    }
)

_HAS_FILE_ATTRIBUTES = hasattr(os.stat_result, "st_file_attributes")  # Windows
_DIGITS = re.compile("([0-9]+)")


@dataclass(frozen=True)
class Finding:
    """A music file, or something on the way that could not be read.

    Attributes:
        path: as the user gave it, or below the folder he gave; links are not resolved.
        error: None for a music file; else one line that says what is wrong, without the path.
    """

    path: Path
    error: str | None


def find_music(
    paths: Iterable[Path],
    leftovers: list[Path] | None = None,
    seen: set[int | str] | None = None,
    on_folder: Callable[[Path], None] | None = None,
) -> Iterator[Finding]:
    """The music files that ``paths`` name or hold, one by one, with an error for each path that cannot be read.

    A file among ``paths`` is taken whatever its ending. A folder is searched in depth for ``MUSIC_SUFFIXES``: its files
    in natural order, then its folders in natural order. Hidden and system files and folders in it are passed over, but
    not one that ``paths`` names. Links are followed. Pipes, sockets and devices are never opened: an error where named,
    passed over in folders. A broken link is an error unless its ending says that it was no music.

    Each file comes once, under the first path that leads to it, and each folder is walked once, so links cannot lead in
    circles. Hard links are one file. What makes a file the same is device, inode and size; a file rewritten between two
    visits of an unfinished walk can therefore come twice, which is harmless, whereas one left out would not be.

    Files in these folders that are named as stone's own temporary ones are added to ``leftovers``. Walks that share a
    set ``seen`` find each file once between them. ``on_folder`` is called with each folder before it is listed.

    The walk is lazy. It holds one folder's names, the folders still to come, and under 150 bytes for each file found.
    Nothing is raised for what the file system says; a folder without music yields nothing.
    """
    seen = set() if seen is None else seen
    for path in map(Path, paths):
        try:
            status = path.stat()
        except (OSError, ValueError) as error:  # ValueError: a null character in the name
            yield Finding(path, _reason(path, error))
            continue
        if stat.S_ISDIR(status.st_mode):
            yield from _walk(path, seen, [] if leftovers is None else leftovers, on_folder)
        elif not stat.S_ISREG(status.st_mode):
            yield Finding(path, "not a regular file but a pipe, socket or device")
        elif _is_new(path, status, seen):
            yield Finding(path, None)


def files_and_music(paths: Iterable[Path]) -> Iterator[Finding]:
    """``paths`` in their order, with the music files in a folder, found as by :func:`find_music`, in its place.

    A path that is no folder comes as it is, as often as it is given, whether or not it exists.
    """
    seen: set[int | str] = set()
    for path in paths:
        if path.is_dir():
            yield from find_music([path], seen=seen)
        else:
            yield Finding(path, None)


def natural_key(name: str) -> tuple[list[tuple[str, int, str]], str]:
    """A sort key for file names: numbers by value, letters without case and accents.

    It differs for any two different names, so that the order does not depend on the file system.
    """
    plain = name.casefold()
    if not plain.isascii():
        plain = "".join(char for char in unicodedata.normalize("NFD", plain) if not unicodedata.combining(char))
    # Pairs of text and the number after it. Numbers are compared by length, then digits: int() refuses very long ones.
    parts = [*_DIGITS.split(plain), ""]
    numbers = [digits.lstrip("0") for digits in parts[1::2]]
    return [(text, len(digits), digits) for text, digits in zip(parts[::2], numbers, strict=True)], name


def _walk(
    top: Path, seen: set[int | str], leftovers: list[Path], on_folder: Callable[[Path], None] | None
) -> Iterator[Finding]:
    pending = [top]  # a stack, not recursion: the depth of a tree is not ours to limit
    while pending:
        folder = pending.pop()
        files: list[str] = []
        folders: list[str] = []
        failure: str | None = None
        try:
            if not _is_new(folder, folder.stat(), seen):
                continue
            if on_folder is not None:
                on_folder(folder)
            with os.scandir(folder) as entries:
                for entry in entries:
                    if _is_hidden(entry):
                        if entry.name.startswith(TEMPORARY_PREFIX) and entry.name.endswith(TEMPORARY_SUFFIX):
                            leftovers.append(folder / entry.name)
                        continue
                    if _is_folder(entry):
                        if entry.name.casefold() not in SYSTEM_FOLDERS:
                            folders.append(entry.name)
                    elif Path(entry.name).suffix.lower() in MUSIC_SUFFIXES or _may_be_lost_folder(entry):
                        files.append(entry.name)
        except OSError as error:
            failure = _reason(folder, error)
        if failure is not None:
            yield Finding(folder, failure)  # what was listed before the failure is still walked
        # Files before folders, so that a folder of a million files is let go before the walk goes deeper.
        for name in sorted(files, key=natural_key):
            yield from _look_at(folder / name, seen)
        pending.extend(folder / name for name in sorted(folders, key=natural_key, reverse=True))


def _look_at(path: Path, seen: set[int | str]) -> Iterator[Finding]:
    """The finding for one entry of a folder that has a music ending or is a broken link."""
    try:
        # Not DirEntry.stat() or .inode(): on Windows they know no inode, and on FUSE the inode can be made up.
        status = path.stat()
    except OSError as error:
        yield Finding(path, _reason(path, error))
        return
    if stat.S_ISREG(status.st_mode) and _is_new(path, status, seen):
        yield Finding(path, None)


def _is_hidden(entry: os.DirEntry[str]) -> bool:
    if entry.name.startswith("."):  # AppleDouble "._song.mp3" and stone's own temporary files too
        return True
    if not _HAS_FILE_ATTRIBUTES:
        return False
    try:
        attributes = getattr(entry.stat(follow_symlinks=False), "st_file_attributes", 0)
    except OSError:
        return False
    return bool(attributes & stat.FILE_ATTRIBUTE_HIDDEN)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that cannot be followed
        return False


def _may_be_lost_folder(entry: os.DirEntry[str]) -> bool:
    """True for a broken link that may have led to a folder of music: "USB", "Vol. 2", but not "cover.jpg"."""
    if not entry.is_symlink() or Path(entry.name).suffix[1:].isalpha():
        return False
    try:
        entry.stat()
    except OSError:
        return True
    return False


def _is_new(path: Path, status: os.stat_result, seen: set[int | str]) -> bool:
    """True the first time that this file or folder is met, which is noted in ``seen``."""
    identity: int | str
    if status.st_ino == 0:  # some network file systems number nothing
        identity = str(path.resolve())
    else:
        # One int is less than half of a tuple. Inodes have up to 128 bits (Windows). The size guards against network
        # file systems whose inodes are not unique: a file looked at twice is better than one left out.
        size = status.st_size if stat.S_ISREG(status.st_mode) else 0
        identity = ((status.st_dev << 128 | status.st_ino) << 64) | size
    if identity in seen:
        return False
    seen.add(identity)
    return True


def _reason(path: Path, error: OSError | ValueError) -> str:
    if isinstance(error, ValueError):
        return "not a valid file name"
    if isinstance(error, FileNotFoundError) and path.is_symlink():
        return "broken link"
    return reason(error)
