"""Find music files in folders: each file once, in natural order, without hidden and system folders."""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stonecli.errors import CrateError, reason
from stonecli.library.crates import NAMED_IN, is_crate, read_crate
from stonecli.library.locations import Location

_LIBSNDFILE = {".mp3", ".flac", ".ogg", ".oga", ".opus", ".wav", ".wave", ".w64", ".rf64", ".aif", ".aiff", ".aifc"}
_FFMPEG = {".m4a", ".mp4", ".aac", ".alac", ".wma", ".wv", ".ape", ".mpc", ".mka", ".weba", ".mp2", ".caf", ".au"}
_FFMPEG_RARE = {".shn", ".dsf", ".dff", ".tta", ".tak"}  # concert tapes, DSD, other lossless

# Not included although they can be decoded: audio books (.m4b), ring tones, video except .mp4 (the container of NI
# Stems), and suffixes that are also used for other files (.dts, .snd).
MUSIC_SUFFIXES: frozenset[str] = frozenset(_LIBSNDFILE | _FFMPEG | _FFMPEG_RARE)
"""File suffixes, in lower case with the dot, of the files that are found in folders."""

TEMPORARY_PREFIX, TEMPORARY_SUFFIX = ".stone-", ".tmp"  # names of stone's temporary files next to music files

SYSTEM_FOLDERS = frozenset(
    {
        "__macosx",
        "system volume information",
        "$recycle.bin",
        "lost+found",
        "network trash folder",
        "thevolumesettingsfolder",
        # Synology and QNAP: thumbnails, recycle bins and snapshots, which contain copies with the names of the music
        "@eadir",
        "@tmp",
        "@recycle",
        "@recently-snapshot",
        "#recycle",
        "#snapshot",
        "~snapshot",
    }
)

_UNREADABLE_CRATES = {
    ".nml": "a Traktor collection or playlist",
    ".crate": "a Serato crate",
    ".xspf": "an XSPF playlist",
}

_HAS_FILE_ATTRIBUTES = hasattr(os.stat_result, "st_file_attributes")  # Windows
_DIGITS = re.compile("([0-9]+)")


@dataclass(frozen=True)
class Finding:
    """A music file, or a path or URL that could not be read.

    Attributes:
        location: path as given by the user, or below a given folder; links are not resolved. A URL is the text of an
            entry in a crate that is not a file, and always has an error.
        error: None for a music file; otherwise one line with the error, without the location.
    """

    location: Location
    error: str | None

    @property
    def path(self) -> Path:
        """The location, which is a path unless the finding is an error in a crate."""
        assert isinstance(self.location, Path)  # noqa: S101 (see location)
        return self.location


def find_music(
    paths: Iterable[Path],
    leftovers: list[Path] | None = None,
    seen: set[int | str] | None = None,
    on_folder: Callable[[Path], None] | None = None,
    playlist_name: str | None = None,
) -> Iterator[Finding]:
    """The music files at or below ``paths``, one by one, and an error for each path that cannot be read.

    A file in ``paths`` is always included, whatever its suffix. A folder is searched depth first for files with
    ``MUSIC_SUFFIXES``: first its files, then its subfolders, both in natural order. Hidden and system files and folders
    in it are skipped, but not those in ``paths`` themselves. Links are followed. Pipes, sockets and devices are never
    opened: in ``paths`` they are errors, in folders they are skipped. A broken link is an error, unless its suffix
    shows that it was not music.

    A playlist (``.m3u``, ``.m3u8``, ``.pls``) or rekordbox XML (``.xml``) in ``paths`` is replaced by the files that it
    names, in its order; an entry that is not a file is an error that names the crate. Those in folders are skipped.

    Each file is found once, by the first path that leads to it, and each folder is walked once, so cycles of links are
    harmless. Hard links are one file. A file is identified by device, inode and size, so one that is rewritten during
    the walk may be found twice, which is better than not at all.

    The walk is lazy. It keeps the names of one folder, the pending folders, and less than 150 bytes per file found. It
    raises no errors of the file system; a folder without music yields nothing.

    Args:
        paths: files and folders.
        leftovers: gets the files in these folders that have the name of a temporary file of stone.
        seen: the files that were found; walks that share it find each file once.
        on_folder: called with each folder before it is listed.
        playlist_name: only this playlist of each rekordbox XML; None for the whole collection.
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
        elif is_crate(path):
            yield from _crate_files(path, seen, playlist_name)
        elif (problem := _crate_error(path)) is not None:
            yield Finding(path, problem)
        elif _is_new(path, status, seen):
            yield Finding(path, None)


def _crate_files(crate: Path, seen: set[int | str], playlist_name: str | None) -> Iterator[Finding]:
    """The files that a playlist or collection names, and an error for each entry that is not a file, once each."""
    reported: set[Location] = set()
    try:
        for entry in read_crate(crate, playlist_name):
            location, error = entry.location, entry.error
            if isinstance(location, Path):
                try:
                    status = location.stat()
                except (OSError, ValueError) as problem:
                    error = _reason(location, problem)
                else:
                    error = _entry_error(location, status)
                    if error is None and _is_new(location, status, seen):
                        yield Finding(location, None)
            if error is not None and location not in reported:
                reported.add(location)
                yield Finding(location, f"{error} {NAMED_IN}{crate.name})")
    except (OSError, CrateError) as problem:
        yield Finding(crate, reason(problem))


def _entry_error(path: Path, status: os.stat_result) -> str | None:
    """Why an existing path in a crate is not a music file; None if it may be one."""
    if not stat.S_ISREG(status.st_mode):
        return "a folder or device, not a file"
    if is_crate(path):
        return "a playlist in a playlist, which stone does not read; name it on the command line"
    return None


def files_and_music(paths: Iterable[Path], playlist_name: str | None = None) -> Iterator[Finding]:
    """``paths`` in order, with each folder and crate replaced by its music files, found as by :func:`find_music`.

    A playlist that stone cannot read is an error. A path to anything else is returned unchanged, as often as it is
    given, even if it does not exist.
    """
    seen: set[int | str] = set()
    for path in paths:
        if path.is_dir() or (is_crate(path) and path.is_file()):
            yield from find_music([path], seen=seen, playlist_name=playlist_name)
        else:
            yield Finding(path, _crate_error(path) if path.is_file() else None)


def _crate_error(path: Path) -> str | None:
    """One line for a playlist or collection of a kind that stone does not read; None for any other file."""
    kind = _UNREADABLE_CRATES.get(path.suffix.lower())
    return None if kind is None else f"{kind}, which stone does not read; export an M3U8 playlist instead"


def natural_key(name: str) -> tuple[list[tuple[str, int, str]], str]:
    """A sort key for file names that sorts numbers by value and ignores case and accents.

    Different names have different keys, so the order does not depend on the file system.
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
    pending = [top]  # a stack, because the depth of recursion is limited
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
                    elif Path(entry.name).suffix.lower() in MUSIC_SUFFIXES or _may_be_missing_folder(entry):
                        files.append(entry.name)
        except OSError as error:
            failure = _reason(folder, error)
        if failure is not None:
            yield Finding(folder, failure)  # the entries that were listed before the failure are still processed
        # Files before subfolders, so that the names of a large folder are freed before the walk descends.
        for name in sorted(files, key=natural_key):
            yield from _check_entry(folder / name, seen)
        pending.extend(folder / name for name in sorted(folders, key=natural_key, reverse=True))


def _check_entry(path: Path, seen: set[int | str]) -> Iterator[Finding]:
    """The finding for an entry of a folder that has a music suffix or is a broken link."""
    try:
        # Not DirEntry.stat() or .inode(): they have no inode on Windows, and may have a wrong one on FUSE.
        status = path.stat()
    except OSError as error:
        yield Finding(path, _reason(path, error))
        return
    if stat.S_ISREG(status.st_mode) and _is_new(path, status, seen):
        yield Finding(path, None)


def _is_hidden(entry: os.DirEntry[str]) -> bool:
    if entry.name.startswith("."):  # also AppleDouble files ("._song.mp3") and stone's temporary files
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


def _may_be_missing_folder(entry: os.DirEntry[str]) -> bool:
    """Whether the entry is a broken link that may have led to a folder: "USB", "Vol. 2", but not "cover.jpg"."""
    if not entry.is_symlink() or Path(entry.name).suffix[1:].isalpha():
        return False
    try:
        entry.stat()
    except OSError:
        return True
    return False


def _is_new(path: Path, status: os.stat_result, seen: set[int | str]) -> bool:
    """Whether the file or folder is not in ``seen`` yet; adds it."""
    identity: int | str
    if status.st_ino == 0:  # some network file systems have no inode numbers
        identity = str(path.resolve())
    else:
        # An int takes less than half the memory of a tuple. Inodes have up to 128 bits (Windows). The size is included
        # because inodes are not unique on some network file systems.
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
