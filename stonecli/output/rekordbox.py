"""Write tracks and their keys to an XML collection that rekordbox imports (docs/formats.md).

The elements and attributes are those of Pioneer's *rekordbox xml format list*, version 1.0.0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree  # only written here, never parsed

from stonecli import __version__
from stonecli.key import Notation
from stonecli.output.playlist import PlaylistEntry, file_uri
from stonecli.util.atomic_file import atomic_text_file

_KINDS = {
    ".mp3": "MP3 File",
    ".m4a": "M4A File",
    ".mp4": "MP4 File",
    ".wav": "WAV File",
    ".aif": "AIFF File",
    ".aiff": "AIFF File",
    ".flac": "FLAC File",
}
_RAW = re.compile("[\x7f-\x9f\u2028\u2029]")  # allowed in XML, but safer as references
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, production 2


def save_rekordbox(path: Path, entries: Sequence[PlaylistEntry], notation: Notation, playlist: str) -> None:
    """Write a collection of the tracks, and a playlist of them in order, to ``path``.

    Args:
        path: the XML file.
        entries: the tracks; those without a key have no Tonality.
        notation: notation of Tonality.
        playlist: name of the playlist.

    Raises:
        OSError: the file cannot be written; an existing file is unchanged.
    """
    root = ElementTree.Element("DJ_PLAYLISTS", Version="1.0.0")
    ElementTree.SubElement(root, "PRODUCT", Name="stone", Version=__version__, Company="")
    collection = ElementTree.SubElement(root, "COLLECTION", Entries=str(len(entries)))
    for number, entry in enumerate(entries, 1):
        values = {name: _xml_text(value) for name, value in _attributes(entry, notation).items() if value}
        ElementTree.SubElement(collection, "TRACK", {"TrackID": str(number), **values})
    folder = ElementTree.SubElement(ElementTree.SubElement(root, "PLAYLISTS"), "NODE", Type="0", Name="ROOT", Count="1")
    name = _xml_text(playlist)
    node = ElementTree.SubElement(folder, "NODE", Name=name, Type="1", KeyType="0", Entries=str(len(entries)))
    for number in range(1, len(entries) + 1):
        ElementTree.SubElement(node, "TRACK", Key=str(number))
    ElementTree.indent(root)
    with atomic_text_file(path) as file:
        file.write('<?xml version="1.0" encoding="UTF-8"?>\n')
        text = ElementTree.tostring(root, encoding="unicode")
        file.write(_RAW.sub(lambda match: f"&#x{ord(match[0]):X};", text) + "\n")


def _attributes(entry: PlaylistEntry, notation: Notation) -> dict[str, str]:
    info = entry.info
    seconds = entry.seconds or info.seconds
    return {
        "Name": info.title or entry.path.stem,
        "Artist": info.artist,
        "Album": info.album,
        "Genre": info.genre,
        "Kind": _KINDS.get(entry.path.suffix.lower(), ""),
        "Size": _size(entry.path),
        "TotalTime": str(round(seconds)) if seconds else "",
        "AverageBpm": f"{info.bpm:.2f}" if info.bpm else "",
        "BitRate": str(info.bit_rate or ""),
        "SampleRate": str(info.sample_rate or ""),
        "Location": file_uri(entry.path, "localhost"),
        "Tonality": entry.key.spelled(notation) if entry.key else "",
    }


def _size(path: Path) -> str:
    try:
        return str(path.stat().st_size)
    except OSError:
        return ""


def _xml_text(text: str) -> str:
    """``text`` with characters that are not allowed in XML, even escaped, replaced by U+FFFD."""
    return _NOT_XML.sub("\ufffd", text)
