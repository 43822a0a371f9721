"""Read a collection in rekordbox's XML format, for its tracks, its playlists and where they are in the file.

The file is untrusted. It is parsed in chunks by expat, without building a tree: the memory depends on the number of
tracks, not on the size of the file. A document type declaration is refused, and with it every entity, so nothing is
expanded and nothing outside the file is read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from stonecli.errors import CrateError

_CHUNK = 1 << 16  # bytes
_MAX_ELEMENT = 4 << 20  # bytes of one start tag; rekordbox writes less than 10 KB
_MAX_DEPTH = 100  # nested elements
_ATTRIBUTES = ("TrackID", "Location", "Tonality", "AverageBpm", "Genre")


@dataclass(frozen=True)
class CollectionTrack:
    """One ``TRACK`` of the collection.

    Attributes:
        number: its ``TrackID``.
        location: its ``Location``: a URL such as ``file://localhost/C:/Music/song.mp3``. Untrusted, as all texts.
        key_text: its ``Tonality``.
        bpm_text: its ``AverageBpm``.
        genre: its ``Genre``.
        offset: where its start tag begins in the file, in bytes.
    """

    number: str
    location: str
    key_text: str
    bpm_text: str
    genre: str
    offset: int


@dataclass(frozen=True)
class CollectionPlaylist:
    """One playlist.

    Attributes:
        name: the name with those of its folders in front, such as ``Clubs/Saturday``.
        keys: the tracks in order: by ``TrackID``, or by ``Location``.
        by_location: which of the two.
    """

    name: str
    keys: tuple[str, ...]
    by_location: bool


@dataclass
class Span:
    """Where an element is in the file: the offset of its start tag and of its end tag, in bytes.

    An element such as ``<COLLECTION/>`` has no end tag.
    """

    start: int
    end: int
    has_end_tag: bool = True


@dataclass
class Collection:
    """The content of a rekordbox XML.

    Attributes:
        tracks: the tracks in order.
        playlists: the playlists with the name that was asked for; all of them have their names in ``names``.
        names: the names of all playlists, with those of their folders.
        collection: where ``COLLECTION`` is; None if it is missing.
        root: where the folder of all playlists is; None if it is missing.
    """

    tracks: list[CollectionTrack] = field(default_factory=list)
    playlists: list[CollectionPlaylist] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    collection: Span | None = None
    root: Span | None = None


def read_collection(path: Path, playlist_name: str | None = None) -> Collection:
    """The tracks of the rekordbox XML at ``path``, and its playlists with this name.

    Raises:
        CrateError: the file is not a rekordbox XML, is damaged, or has a document type declaration.
        OSError: the file cannot be read.
    """
    reader = _Reader(playlist_name)
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = _refuse_doctype
    parser.StartElementHandler = lambda name, values: reader.start(name, values, parser.CurrentByteIndex)
    parser.EndElementHandler = lambda name: reader.end(parser.CurrentByteIndex)
    fed = 0
    with path.open("rb") as file:
        try:
            while chunk := file.read(_CHUNK):
                parser.Parse(chunk, False)
                fed += len(chunk)
                if fed - max(parser.CurrentByteIndex, 0) > _MAX_ELEMENT:
                    raise CrateError("damaged XML: an element is too long")
            parser.Parse(b"", True)
        except expat.ExpatError as error:
            raise CrateError(f"damaged XML: line {error.lineno}: {expat.ErrorString(error.code)}") from error
        except (ValueError, LookupError) as error:  # from expat, which knows few encodings
            raise CrateError("is in an encoding that stone cannot read; export it as UTF-8") from error
        found = reader.found
        for span, end_tag in ((found.collection, b"</COLLECTION"), (found.root, b"</NODE")):
            if span is not None:
                file.seek(span.end)
                span.has_end_tag = file.read(len(end_tag)) == end_tag
    return found


def _refuse_doctype(*_: object) -> None:
    raise CrateError("has a document type declaration, which rekordbox never writes; stone does not read it")


class _Reader:
    """Collects what the start and end tags say."""

    def __init__(self, playlist_name: str | None) -> None:
        self.found = Collection()
        self._wanted = None if playlist_name is None else playlist_name.strip("/").casefold()
        self._open: list[str] = []  # elements, with their offsets
        self._offsets: list[int] = []
        self._folders: list[str] = []  # names of the open nodes below the root
        self._keys: list[str] | None = None  # of the open playlist, if it is wanted
        self._by_location = False

    def start(self, name: str, values: dict[str, str], offset: int) -> None:
        parents = self._open
        if not parents and name != "DJ_PLAYLISTS":
            raise CrateError(f"not a rekordbox XML: its first element is {name[:40]}, not DJ_PLAYLISTS")
        if len(parents) >= _MAX_DEPTH:
            raise CrateError("damaged XML: elements are nested too deeply")
        if name == "TRACK" and parents[1:] == ["COLLECTION"]:
            number, location, key, bpm, genre = (values.get(attribute, "") for attribute in _ATTRIBUTES)
            self.found.tracks.append(CollectionTrack(number, location, key, bpm, genre, offset))
        elif name == "TRACK" and self._keys is not None and parents[-1] == "NODE":
            self._keys.append(values.get("Key", ""))
        elif name == "NODE" and parents[1:2] == ["PLAYLISTS"]:
            self._start_node(values)
        parents.append(name)
        self._offsets.append(offset)

    def _start_node(self, values: dict[str, str]) -> None:
        if len(self._open) > 2:  # the root has no name of its own
            self._folders.append(values.get("Name", ""))
        if values.get("Type") == "1":
            name = "/".join(self._folders)
            self.found.names.append(name)
            if self._wanted is not None and self._wanted in (name.casefold(), "".join(self._folders[-1:]).casefold()):
                self._keys, self._by_location = [], values.get("KeyType") == "1"

    def end(self, offset: int) -> None:
        name, start = self._open.pop(), self._offsets.pop()
        parents = self._open
        if name == "COLLECTION" and parents == ["DJ_PLAYLISTS"]:
            self.found.collection = self.found.collection or Span(start, offset)
        elif name == "NODE" and parents == ["DJ_PLAYLISTS", "PLAYLISTS"]:
            self.found.root = self.found.root or Span(start, offset)
        elif name == "NODE" and parents[1:2] == ["PLAYLISTS"]:
            if self._keys is not None:
                found = CollectionPlaylist("/".join(self._folders), tuple(self._keys), self._by_location)
                self.found.playlists.append(found)
                self._keys = None
            self._folders.pop()
