"""Read crates: the files that an M3U or PLS playlist, or a collection in rekordbox's XML format, names.

Playlists come from many programs and systems. A name in one is looked up as it is, then with the slashes of this
system, percent-decoded, in other encodings, and with composed or decomposed accents; the first file that exists counts.
Crates are untrusted: they are bounded in size, and a name is only ever a path.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, unquote_to_bytes

from stonecli.errors import CrateError
from stonecli.library.locations import Location, Url

if TYPE_CHECKING:
    from stonecli.library.rekordbox import Collection, CollectionTrack

CRATE_SUFFIXES: frozenset[str] = frozenset({".m3u", ".m3u8", ".pls", ".xml"})
"""File suffixes, in lower case with the dot, of playlists and collections."""

MAX_PLAYLIST_BYTES = 64 << 20
NO_FILE = "not a file but a stream or a track of an online service"
NAMED_IN = "(named in "  # at the end of an error, followed by the name of the crate
_MAX_NAME = 32 << 10  # bytes of one line
_MAX_LISTED = 5  # names of playlists in an error
# These patterns are compiled on first use: every run of stone loads this module, and few read a crate.
_URL = r"[A-Za-z][A-Za-z0-9+.-]+:(?=/|[A-Za-z0-9]+:)"  # two letters or more, because C: is a drive
_FILE_URL = r"(?is)file:(?://([^/]*))?(/.*)?"
_DRIVE = r"/[A-Za-z]:(?=[/\\]|$)"
_PLS_ENTRY = rb"(?is)\s*File[0-9]+\s*=(.*)"


@dataclass(frozen=True)
class CrateEntry:
    """One entry of a crate.

    Attributes:
        location: the file that it names, whether or not it exists; for an entry that is not a file, its text as a URL.
        error: None, or one line that says why it is not a file, without the location.
    """

    location: Location
    error: str | None = None


def is_crate(path: Path) -> bool:
    """Whether the name is that of a playlist or a collection: ``.m3u``, ``.m3u8``, ``.pls`` or ``.xml``."""
    return path.suffix.lower() in CRATE_SUFFIXES


def is_collection(path: Path) -> bool:
    """Whether the name is that of a collection in rekordbox's XML format: ``.xml``."""
    return path.suffix.lower() == ".xml"


def read_crate(path: Path, playlist_name: str | None = None) -> Iterator[CrateEntry]:
    """The entries of the crate at ``path`` in order.

    Args:
        path: a playlist or a collection, see :func:`is_crate`.
        playlist_name: only the playlist of the collection with this name, in any case; a name that several playlists
            have is written with its folders, ``Clubs/Saturday``. None for the whole collection. Playlists in files of
            their own are always read whole.

    Raises:
        CrateError: the crate is damaged or too large, or has no such playlist, or several.
        OSError: the crate cannot be read.
    """
    if is_collection(path):
        from stonecli.library.rekordbox import read_collection

        for track in tracks_of(read_collection(path, playlist_name), playlist_name):
            yield entry_of(track)
        return
    folder = path.parent
    for name in _names(path):
        yield _entry(name, folder)


def tracks_of(collection: Collection, playlist_name: str | None) -> Iterator[CollectionTrack]:
    """The tracks of a collection, or of one of its playlists.

    Raises:
        CrateError: there is no such playlist, or there are several.
    """
    from stonecli.library.rekordbox import CollectionTrack

    if playlist_name is None:
        yield from collection.tracks
        return
    found = collection.playlists
    wanted = playlist_name.strip("/")
    choices = (
        [one for one in found if one.name == wanted],
        [one for one in found if one.name.rpartition("/")[2] == wanted],
        [one for one in found if one.name.casefold() == wanted.casefold()],
    )
    found = next((choice for choice in choices if len(choice) == 1), found)
    if len(found) != 1:
        names = [one.name for one in found] or collection.names
        listed = ", ".join(names[:_MAX_LISTED]) + (", ..." if len(names) > _MAX_LISTED else "")
        problem = f"{len(found)} playlists are named" if found else "no playlist is named"
        raise CrateError(f"{problem} {playlist_name}; " + (f"choose one of {listed}" if listed else "it has none"))
    (playlist,) = found
    tracks = {track.location if playlist.by_location else track.number: track for track in collection.tracks}
    for key in playlist.keys:
        yield tracks.get(key) or CollectionTrack(key, "", "", "", "", -1)


def entry_of(track: CollectionTrack) -> CrateEntry:
    """The file of a track of a collection."""
    if not track.location:
        return CrateEntry(Url(track.number or "?"), "a track without a file in the collection")
    path = file_url_path(track.location)
    return CrateEntry(Url(track.location), NO_FILE) if path is None else CrateEntry(_existing([path]))


def file_url_path(text: str) -> Path | None:
    """The path in a ``file:`` URL, on this computer or a server (``file://nas/music/a.mp3``); None for another URL.

    On systems without drives, the path of ``file://localhost/C:/a.mp3`` is ``C:/a.mp3``, which does not exist there.
    """
    match = re.fullmatch(_FILE_URL, text)
    if not match or match[2] is None:
        return None
    name = (
        os.fsdecode(unquote_to_bytes(match[2])) if os.name == "posix" else unquote(match[2], errors="surrogateescape")
    )
    if re.match(_DRIVE, name):
        name = name[1:]
    host = unquote(match[1] or "")
    return Path(name if host.lower() in ("", "localhost", "127.0.0.1") else f"//{host}{name}")


def _names(path: Path) -> Iterator[bytes]:
    """The names in a playlist, in its own encoding; those of UTF-16 as UTF-8."""
    with path.open("rb") as file:
        data = file.read(MAX_PLAYLIST_BYTES + 1)
    if len(data) > MAX_PLAYLIST_BYTES:
        raise CrateError(f"larger than {MAX_PLAYLIST_BYTES >> 20} MB, so not a playlist")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        data = data.decode("utf-16", "replace").encode("utf-8", "surrogatepass")
    is_pls = path.suffix.lower() == ".pls"
    for line in re.split(rb"[\r\n]+", data.removeprefix(b"\xef\xbb\xbf")):
        name = line.strip(b" \t\0")
        if is_pls:
            match = re.fullmatch(_PLS_ENTRY, name)
            name = match[1].strip(b" \t") if match else b""
        if name and len(name) <= _MAX_NAME and not name.startswith(b"#"):
            yield name


def _entry(name: bytes, folder: Path) -> CrateEntry:
    """The file that a name in a playlist in ``folder`` stands for."""
    texts = list(dict.fromkeys(text for text in _decoded(name) if text is not None))
    if re.match(_URL, texts[0]) and not (folder / texts[0]).exists():
        path = file_url_path(texts[0])
        return CrateEntry(Url(texts[0]), NO_FILE) if path is None else CrateEntry(_existing([path]))
    spellings = [*texts, *(unquote(text) for text in texts if "%" in text)]
    if os.name == "posix":  # last, so that an error names the path with its own slashes
        spellings += [text.replace("\\", "/") for text in spellings if "\\" in text]
    return CrateEntry(_existing([Path(text) if re.match(_DRIVE, f"/{text}") else folder / text for text in spellings]))


def _decoded(name: bytes) -> Iterator[str | None]:
    """The name as text, in the encodings in which playlists are written."""
    for encoding in ("utf-8", "cp1252", "latin-1"):
        try:
            yield name.decode(encoding)
        except UnicodeDecodeError:
            continue
    if os.name == "posix":
        yield os.fsdecode(name)  # bytes that are not text


def _existing(paths: list[Path]) -> Path:
    """The first of the paths at which there is something, also with accents spelled otherwise; else the first path.

    A path with the slashes of another system is not shown if there is one with those of this system.
    """
    for path in paths:
        if _exists(path):
            return path
    for path in paths:
        if not str(path).isascii():
            for form in ("NFC", "NFD"):
                other = Path(unicodedata.normalize(form, str(path)))
                if other != path and _exists(other):
                    return other
    return next((path for path in paths if os.name != "posix" or "\\" not in str(path)), paths[0])


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long, or has a null character
        return False
