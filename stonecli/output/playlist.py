"""Write an extended M3U8 playlist (docs/formats.md)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote_from_bytes

from stonecli.key import Key
from stonecli.tags.track_info import TrackInfo
from stonecli.util.atomic_file import atomic_text_file
from stonecli.util.text import one_line

_NOT_A_LINE = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True)
class PlaylistEntry:
    """One track of a playlist.

    Attributes:
        path: path of the file.
        key: key of the track, or None.
        info: metadata from the tags; untrusted.
        seconds: duration in seconds, or None.
    """

    path: Path
    key: Key | None
    info: TrackInfo
    seconds: float | None = None


def save_playlist(path: Path, entries: Iterable[PlaylistEntry]) -> None:
    """Write the playlist to ``path``, with file names relative to its folder.

    Raises:
        OSError: the file cannot be written; an existing file is unchanged.
    """
    with atomic_text_file(path) as file:
        file.write("#EXTM3U\n")
        for entry in entries:
            seconds = -1 if entry.seconds is None else round(entry.seconds)
            file.write(f"#EXTINF:{seconds},{_title(entry)}\n{location(entry.path, path.absolute().parent)}\n")


def location(path: Path, folder: Path) -> str:
    """The name of the file at ``path`` in a playlist in ``folder``: relative, with forward slashes.

    A name that cannot be a line of the playlist (line breaks, spaces at its ends, invalid UTF-8) becomes a file URI,
    which most players support.
    """
    path = path.absolute()
    try:
        # ".." is resolved, because a symbolic link in the path of the playlist would change its meaning.
        name = (
            str(path.relative_to(folder))
            if path.is_relative_to(folder)
            else os.path.relpath(os.path.join(os.path.realpath(path.parent), path.name), os.path.realpath(folder))  # noqa: PTH118
        )
    except ValueError:  # another drive
        name = str(path)
    name = name.replace(os.sep, "/")
    if name != name.strip() or _NOT_A_LINE.search(name):
        return file_uri(path)
    return f"./{name}" if name.startswith("#") else name


def file_uri(path: Path, host: str = "") -> str:
    """The file URI of ``path`` (RFC 8089), percent-encoded except for plain ASCII."""
    text = os.fsencode(path.absolute()).replace(os.sep.encode(), b"/")
    return f"file://{host}{'' if text.startswith(b'/') else '/'}{quote_from_bytes(text, safe='/:')}"


def _title(entry: PlaylistEntry) -> str:
    title = entry.info.title or entry.path.stem
    return one_line(f"{entry.info.artist} - {title}" if entry.info.artist else title)
