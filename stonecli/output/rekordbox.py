"""Write tracks and their keys to an XML collection that rekordbox imports (docs/formats.md).

The elements and attributes are those of Pioneer's *rekordbox xml format list*, version 1.0.0. A collection that
rekordbox has exported is updated by byte edits of its start tags, so that everything else in it stays as it is.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from xml.etree import ElementTree  # only written here, never parsed

from stonecli import __version__
from stonecli.errors import CrateError, OutputError
from stonecli.key import Notation, parse_or_none
from stonecli.library.crates import file_url_path, tracks_of
from stonecli.library.file_index import FileIndex
from stonecli.library.rekordbox import Collection, CollectionTrack, Span, read_collection
from stonecli.output.playlist import PlaylistEntry, file_uri
from stonecli.spelling import says_no_key
from stonecli.tags.tempo_text import says_no_tempo
from stonecli.util.atomic_file import atomic_file, atomic_text_file

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


_ATTRIBUTE = re.compile(rb"""\s+([^\s=/>]+)\s*=\s*("[^"]*"|'[^']*')""")
_TAG_END = re.compile(rb"\s*/?>")
_MAX_TAG = 4 << 20  # bytes of a start tag
_BLOCK = 1 << 20
_MAX_DIGITS = 18  # of a number that is counted on; a longer one is not from rekordbox


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
    collection.extend(_track(str(number), entry, notation) for number, entry in enumerate(entries, 1))
    folder = ElementTree.SubElement(ElementTree.SubElement(root, "PLAYLISTS"), "NODE", Type="0", Name="ROOT", Count="1")
    folder.append(_playlist(playlist, [str(number) for number in range(1, len(entries) + 1)]))
    ElementTree.indent(root)
    with atomic_text_file(path) as file:
        file.write('<?xml version="1.0" encoding="UTF-8"?>\n')
        text = ElementTree.tostring(root, encoding="unicode")
        file.write(_RAW.sub(lambda match: f"&#x{ord(match[0]):X};", text) + "\n")


def update_rekordbox(
    source: Path,
    path: Path,
    entries: Sequence[PlaylistEntry],
    notation: Notation,
    *,
    playlist: str | None = None,
    source_playlist: str | None = None,
    bpm: bool = False,
    overwrite: bool = False,
    respell: bool = False,
) -> str | None:
    """Write the collection ``source`` to ``path`` with the keys of the entries as ``Tonality``, and return a name.

    Everything else stays as it is, byte for byte: playlists, cues, grids, unknown attributes and elements. A track
    whose ``Tonality`` names another key than its entry, or none that stone can read, keeps it. Tracks that the
    collection does not have are added.

    Args:
        source: XML that rekordbox or another program has exported; it is not changed.
        path: the XML file to write.
        entries: the tracks; those without a key keep their Tonality.
        notation: notation of Tonality.
        playlist: name of a playlist of the entries in order, which is added behind the others. If the collection has a
            playlist with this name, the new one gets the next free name: ``Saturday (stone)``, ``Saturday (stone 2)``.
            None for no playlist.
        source_playlist: the playlist of ``source`` that the entries are from. If the collection has a file twice, the
            new playlist refers to the track that is in it. None for the whole collection.
        bpm: whether ``AverageBpm`` is set to the tempo of the entries, where it is missing.
        overwrite: whether other keys and tempos in the collection are replaced, too.
        respell: whether each key that the collection has for a track of ``source_playlist`` is written in the notation,
            also if its entry has another key, or if it has none.

    Returns:
        The name of the added playlist; None without one.

    Raises:
        CrateError: ``source`` is damaged, or has no such playlist.
        OutputError: ``path`` is ``source``, or ``source`` cannot be updated; see :func:`read_updatable`.
        OSError: a file cannot be read or written; an existing file is unchanged.
    """
    if path.exists() and path.samefile(source):
        raise OutputError(f"{path} is the collection that is read; choose another name")
    found = read_updatable(source, source_playlist)
    assert found.collection is not None and found.root is not None  # noqa: S101, PT018 (checked by read_updatable)
    free_numbers = _free_numbers(found)
    preferred = {one.offset for one in tracks_of(found, source_playlist)}
    edits, numbers = _edits_of_tracks(
        found, entries, notation, preferred, free_numbers, bpm=bpm, overwrite=overwrite, respell=respell
    )
    missing = [entry for entry in entries if id(entry) not in numbers]
    numbers |= {id(entry): next(free_numbers) for entry in missing}
    added = [_track(numbers[id(entry)], entry, notation) for entry in missing]
    if added:
        edits += _insertion(found.collection, "".join(map(_text, added)), {"Entries": len(added)})
    name = None if playlist is None else _free_name(playlist, found.names)
    if name is not None:
        node = _playlist(name, [numbers[id(entry)] for entry in entries])
        edits += _insertion(found.root, _text(node), {"Count": 1})
    with source.open("rb") as original, atomic_file(path) as temporary, temporary.open("wb") as file:
        for block in _edited(original, sorted(edits, key=lambda edit: edit.offset)):
            file.write(block)
    return name


def read_updatable(source: Path, playlist_name: str | None = None) -> Collection:
    """The collection ``source``, which :func:`update_rekordbox` can update.

    Raises:
        CrateError: ``source`` is damaged, or has no such playlist, or several.
        OutputError: ``source`` has no collection or no playlists, or is in an encoding that cannot be edited.
        OSError: ``source`` cannot be read.
    """
    try:
        found = read_collection(source, playlist_name)
        if found.collection is None or found.root is None:
            raise OutputError("has no collection or no playlists")
        next(tracks_of(found, playlist_name), None)  # raises an error if there is no such playlist
        with source.open("rb") as file:
            _tag_at(file, found.collection.start)
    except (CrateError, OutputError) as error:
        raise type(error)(f"{source}: {error}") from error
    return found


def _free_numbers(collection: Collection) -> Iterator[str]:
    """Numbers for new tracks, from the largest that rekordbox may have given: it counts with 32 bits."""
    numbers = {track.number.lstrip("0") for track in collection.tracks if track.number.isdecimal()}
    first = 1 + max((int(number) for number in numbers if 0 < len(number) <= _MAX_DIGITS), default=0)
    return (number for number in map(str, itertools.count(first)) if number not in numbers)


def _free_name(name: str, names: Sequence[str]) -> str:
    """The name, or the next one that no playlist has, with or without its folders."""
    taken = {name.casefold() for name in names} | {name.rpartition("/")[2].casefold() for name in names}
    candidates = itertools.chain([name, f"{name} (stone)"], (f"{name} (stone {index})" for index in itertools.count(2)))
    return next(candidate for candidate in candidates if candidate.casefold() not in taken)


@dataclass(frozen=True)
class _Edit:
    """A change of the tag at ``offset``: new values of attributes, numbers to add to others, and text before or in it.

    ``inside`` is what an element such as ``<COLLECTION/>`` contains from now on.
    """

    offset: int
    attributes: Mapping[str, str]
    counts: Mapping[str, int] | None = None
    before: str = ""
    inside: str = ""


def _insertion(span: Span, text: str, counts: Mapping[str, int]) -> list[_Edit]:
    """The edits that add elements at the end of an element, and count them."""
    if not span.has_end_tag:
        return [_Edit(span.start, {}, counts, inside=text)]
    return [_Edit(span.start, {}, counts), _Edit(span.end, {}, before=text)]


def _edited(file: BinaryIO, edits: Sequence[_Edit]) -> Iterator[bytes]:
    """The content of the file after the edits, which are sorted."""
    at = 0
    for edit in edits:
        yield from _copied(file, at, edit.offset)
        if edit.before:
            yield edit.before.encode("ascii")
        tag = _tag_at(file, edit.offset)
        at = edit.offset + len(tag)
        yield _changed(tag, edit)
    yield from _copied(file, at, file.seek(0, os.SEEK_END))


def _copied(file: BinaryIO, start: int, end: int) -> Iterator[bytes]:
    file.seek(start)
    while start < end and (block := file.read(min(_BLOCK, end - start))):
        start += len(block)
        yield block


def _tag_at(file: BinaryIO, offset: int) -> bytes:
    """The tag that starts at an offset, up to its ``>``; only of encodings that contain ASCII."""
    file.seek(offset)
    data = file.read(4096)
    while True:
        head = re.match(rb"</?[A-Za-z_]+", data)
        if head is None:
            raise OutputError("is not in UTF-8, which rekordbox writes; export it again")
        at = head.end()
        while match := _ATTRIBUTE.match(data, at):
            at = match.end()
        if match := _TAG_END.match(data, at):
            return data[: match.end()]
        more = file.read(4 * len(data)) if len(data) < _MAX_TAG else b""
        if not more:
            raise OutputError("the collection changed while it was read")
        data += more


def _changed(tag: bytes, edit: _Edit) -> bytes:
    """The tag with other values of its attributes; new attributes go behind the others."""
    head = re.match(rb"</?[A-Za-z_]+", tag)
    assert head is not None  # noqa: S101 (checked by _tag_at)
    parts, at, left = [head[0]], head.end(), dict(edit.attributes)
    while match := _ATTRIBUTE.match(tag, at):
        at, name = match.end(), match[1].decode("utf-8", "replace")
        value = left.pop(name, None)
        if edit.counts and name in edit.counts and match[2][1:-1].isdigit() and len(match[2]) <= _MAX_DIGITS:
            value = str(int(match[2][1:-1]) + edit.counts[name])
        parts.append(match[0] if value is None else match[0][: -len(match[2])] + _quoted(value))
    parts += [b" " + name.encode() + b"=" + _quoted(value) for name, value in left.items()]
    if edit.inside and tag.rstrip(b">").endswith(b"/"):
        return b"".join(parts) + b">" + edit.inside.encode("ascii") + b"</" + head[0][1:] + b">"
    return b"".join(parts) + tag[at:]


def _quoted(value: str) -> bytes:
    return b'"' + value.encode("ascii") + b'"'  # keys and numbers


def _changes(
    track: CollectionTrack, entry: PlaylistEntry, notation: Notation, *, bpm: bool, overwrite: bool
) -> dict[str, str]:
    """The new values for a track; without ``overwrite``, a key that it has is only respelled.

    A text that stone cannot read may name any key or tempo, so it is kept, too.
    """
    changes = {}
    has_key = not says_no_key(track.key_text)
    if entry.key is not None and (overwrite or not has_key or parse_or_none(track.key_text) == entry.key):
        changes["Tonality"] = entry.key.spelled(notation)
    if bpm and entry.info.bpm and (overwrite or says_no_tempo(track.bpm_text)):
        changes["AverageBpm"] = f"{entry.info.bpm:.2f}"
    return changes


def _respelled(track: CollectionTrack, notation: Notation) -> dict[str, str]:
    """The new value of the key that a track has; empty if it has none."""
    key = parse_or_none(track.key_text)
    return {} if key is None else {"Tonality": key.spelled(notation)}


def _edits_of_tracks(
    collection: Collection,
    entries: Sequence[PlaylistEntry],
    notation: Notation,
    preferred: Set[int],
    free_numbers: Iterator[str],
    *,
    bpm: bool,
    overwrite: bool,
    respell: bool,
) -> tuple[list[_Edit], dict[int, str]]:
    """The edits of the collection's tracks, and the ``TrackID`` of each entry that is among them, by its ``id``.

    ``preferred`` has the offsets of the tracks whose keys are respelled, and whose number an entry gets if the
    collection has its file twice.
    """
    numbers: dict[int, str] = {}
    preferred_numbers: dict[int, str] = {}
    edits = []
    for track, entry in zip(collection.tracks, _entries_of(collection, entries), strict=True):
        if entry is not None:
            number = track.number or next(free_numbers)
            changes = _changes(track, entry, notation, bpm=bpm, overwrite=overwrite)
            if respell and track.offset in preferred:
                changes |= _respelled(track, notation)
            edits.append(_Edit(track.offset, changes if track.number else {"TrackID": number, **changes}))
            numbers.setdefault(id(entry), number)
            if track.offset in preferred:
                preferred_numbers.setdefault(id(entry), number)
        elif respell and track.offset in preferred and (changes := _respelled(track, notation)):
            edits.append(_Edit(track.offset, changes))
    return edits, numbers | preferred_numbers


def _entries_of(collection: Collection, entries: Sequence[PlaylistEntry]) -> Iterator[PlaylistEntry | None]:
    """The entry of each track of the collection, by its file; None for a track that is not among the entries."""
    by_file = FileIndex((entry.path, entry) for entry in entries)
    for track in collection.tracks:
        path = file_url_path(track.location)
        yield None if path is None else by_file.get(path)


def _track(number: str, entry: PlaylistEntry, notation: Notation) -> ElementTree.Element:
    values = {name: _xml_text(value) for name, value in _attributes(entry, notation).items() if value}
    return ElementTree.Element("TRACK", {"TrackID": number, **values})


def _playlist(name: str, keys: Sequence[str]) -> ElementTree.Element:
    node = ElementTree.Element("NODE", Name=_xml_text(name), Type="1", KeyType="0", Entries=str(len(keys)))
    node.extend(ElementTree.Element("TRACK", Key=key) for key in keys)
    return node


def _text(element: ElementTree.Element) -> str:
    """The element as ASCII, which is the same in all encodings that a collection may have."""
    text: bytes = ElementTree.tostring(element, encoding="us-ascii")
    return text.decode("ascii")


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
