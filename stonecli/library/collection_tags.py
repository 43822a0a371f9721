"""The keys and tempos that rekordbox collections have for files. They count where a file has none in its own tags."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from stonecli.errors import CrateError
from stonecli.key import Key, parse_or_none
from stonecli.library.crates import file_url_path, is_collection, tracks_of
from stonecli.library.file_index import FileIndex, normalized
from stonecli.library.rekordbox import CollectionTrack, read_collection


class CollectionTexts(NamedTuple):
    """The texts of one file in a collection. Untrusted.

    Attributes:
        key: the text of ``Tonality``; "" if it is missing.
        bpm: the text of ``AverageBpm``; "" if it is missing.
        other_key: the key of another track of the same file, if it differs; ``key`` counts.
    """

    key: str = ""
    bpm: str = ""
    other_key: Key | None = None


@dataclass(frozen=True)
class CollectionTags:
    """The texts of collections by file. It can be pickled.

    Attributes:
        texts: those of each file that a collection has a key or a tempo for.
    """

    texts: FileIndex[CollectionTexts] = field(default_factory=FileIndex)

    def of(self, path: Path) -> CollectionTexts:
        """The texts for a file; empty if no collection has it."""
        return self.texts.get(path) or CollectionTexts()


NO_COLLECTION = CollectionTags()
"""The entry of files that are not in a collection: no texts."""


def read_collection_tags(paths: Iterable[object], playlist_name: str | None = None) -> CollectionTags:
    """The keys and tempos in the rekordbox XML among ``paths``. The first track of a file that has one counts.

    A collection that cannot be read is skipped, since finding its music reports the error.

    Args:
        paths: files, folders, crates and URLs; only collections are read.
        playlist_name: if a collection has a file twice, the track in this playlist counts.
    """
    found: dict[str, tuple[Path, CollectionTexts]] = {}
    for path in paths:
        if not isinstance(path, str | os.PathLike) or not is_collection(Path(path)) or not Path(path).is_file():
            continue
        try:
            collection = read_collection(Path(path), playlist_name)
            in_playlist = list(tracks_of(collection, playlist_name)) if playlist_name is not None else []
        except (OSError, CrateError):
            continue
        for track in (*in_playlist, *collection.tracks):
            _add(track, found)
    return CollectionTags(FileIndex(found.values()))


def _add(track: CollectionTrack, found: dict[str, tuple[Path, CollectionTexts]]) -> None:
    """Add the texts of a track to those of its file, by the :func:`normalized` path."""
    path = file_url_path(track.location) if track.key_text or track.bpm_text else None
    if path is not None:
        first, known = found.get(normalized(path), (path, CollectionTexts()))
        key, new = parse_or_none(known.key), parse_or_none(track.key_text)
        other = known.other_key or (new if key is not None and new != key else None)
        texts = CollectionTexts(known.key or track.key_text, known.bpm or track.bpm_text, other)
        found[normalized(path)] = (first, texts)
