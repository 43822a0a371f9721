"""Reads title, artist, tempo and length of a file, for playlists and for mixing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from stonecli.errors import TagError
from stonecli.library.music_file import Source, opened
from stonecli.tags.edit.bounded import bounded
from stonecli.tags.formats.containers import CONTAINERS, TagFamily, load_class
from stonecli.tags.formats.sniff import sniff
from stonecli.tags.read import as_tag_error, bpm_in


@dataclass(frozen=True)
class TrackInfo:
    """Texts from the tags, and properties from the header of a file. All texts are untrusted.

    Attributes:
        title, artist, album, genre: "" if missing.
        bpm: tempo in beats per minute, or None.
        seconds: duration by the header, or None.
        bit_rate: in kbit/s, or None.
        sample_rate: in Hz, or None.
    """

    title: str = ""
    artist: str = ""
    album: str = ""
    genre: str = ""
    bpm: float | None = None
    seconds: float | None = None
    bit_rate: int | None = None
    sample_rate: int | None = None


def read_info(path: Source) -> TrackInfo:
    """The track info of a file, given by its path or open.

    It is empty if the file cannot be read, since playlists and mixing work without it.
    """
    try:
        with as_tag_error(), opened(path) as music:
            file = music.file
            container = sniff(file)
            row = CONTAINERS[container]
            seen = bounded(file, container)
            file.seek(0)
            loaded = load_class(row.file_class)(seen)
            texts = {field: _text(loaded.tags, names[row.family]) for field, names in _NAMES.items()}
            info = loaded.info
            return TrackInfo(
                title=texts["title"],
                artist=texts["artist"],
                album=texts["album"],
                genre=texts["genre"],
                bpm=bpm_in(loaded.tags, row.family),
                seconds=_positive(getattr(info, "length", None)),
                bit_rate=round((_positive(getattr(info, "bitrate", None)) or 0) / 1000) or None,
                sample_rate=round(_positive(getattr(info, "sample_rate", None)) or 0) or None,
            )
    except TagError:
        return TrackInfo()


def _text(tags: Any, name: str) -> str:
    """The first text of the field ``name``; "" if there is none."""
    value = tags.get(name) if tags is not None and name else None
    if value is None:
        return ""
    if hasattr(value, "text"):  # ID3
        value = [str(text) for text in value.text]
    elif isinstance(value, str) or not hasattr(value, "__iter__"):
        value = [value]
    first = next(iter(value), "")
    return str(first).partition("\0")[0].strip()


def _positive(number: Any) -> float | None:
    return float(number) if isinstance(number, int | float) and math.isfinite(number) and number > 0 else None


_NAMES: dict[str, dict[TagFamily, str]] = {  # field: its name by family of tags
    "title": {"id3": "TIT2", "vorbis": "title", "mp4": "\xa9nam", "apev2": "Title", "asf": "Title"},
    "artist": {"id3": "TPE1", "vorbis": "artist", "mp4": "\xa9ART", "apev2": "Artist", "asf": "Author"},
    "album": {"id3": "TALB", "vorbis": "album", "mp4": "\xa9alb", "apev2": "Album", "asf": "WM/AlbumTitle"},
    "genre": {"id3": "TCON", "vorbis": "genre", "mp4": "\xa9gen", "apev2": "Genre", "asf": "WM/Genre"},
}
