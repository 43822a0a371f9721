"""The keys and tempos that rekordbox collections have for files. They count where a file has none in its own tags."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from stonecli.errors import CrateError
from stonecli.library.crates import file_url_path, is_collection, tracks_of
from stonecli.library.rekordbox import CollectionTrack, read_collection


class CollectionTexts(NamedTuple):
    """The texts of one file in a collection. Untrusted.

    Attributes:
        key: the text of ``Tonality``; "" if it is missing.
        bpm: the text of ``AverageBpm``; "" if it is missing.
    """

    key: str = ""
    bpm: str = ""


@dataclass(frozen=True)
class CollectionTags:
    """The texts of collections by file. It can be pickled.

    Attributes:
        texts: by the :func:`normalized` path of the file.
    """

    texts: Mapping[str, CollectionTexts] = field(default_factory=dict)

    def of(self, path: Path) -> CollectionTexts:
        """The texts for a file; empty if no collection has it. Links are followed, also those in a collection."""
        if not self.texts:
            return CollectionTexts()
        found = self.texts.get(normalized(path))
        return found or self._texts_by_real_path.get(_real(path)) or CollectionTexts()

    @cached_property
    def _texts_by_real_path(self) -> Mapping[str, CollectionTexts]:
        found: dict[str, CollectionTexts] = {}
        for path, texts in self.texts.items():
            found.setdefault(_real(Path(path)), texts)
        return found


NO_COLLECTION = CollectionTags()
"""The entry of files that are not in a collection: no texts."""


def read_collection_tags(paths: Iterable[object], playlist_name: str | None = None) -> CollectionTags:
    """The keys and tempos in the rekordbox XML among ``paths``. The first track of a file that has one counts.

    A collection that cannot be read is skipped, since finding its music reports the error.

    Args:
        paths: files, folders, crates and URLs; only collections are read.
        playlist_name: if a collection has a file twice, the track in this playlist counts.
    """
    texts: dict[str, CollectionTexts] = {}
    for path in paths:
        if not isinstance(path, str | os.PathLike) or not is_collection(Path(path)) or not Path(path).is_file():
            continue
        try:
            collection = read_collection(Path(path), playlist_name)
            in_playlist = list(tracks_of(collection, playlist_name)) if playlist_name is not None else []
        except (OSError, CrateError):
            continue
        for track in (*in_playlist, *collection.tracks):
            _add(track, texts)
    return CollectionTags(texts)


def _add(track: CollectionTrack, texts: dict[str, CollectionTexts]) -> None:
    path = file_url_path(track.location) if track.key_text or track.bpm_text else None
    if path is not None:
        name = normalized(path)
        known = texts.get(name, CollectionTexts())
        texts[name] = CollectionTexts(known.key or track.key_text, known.bpm or track.bpm_text)


def _real(path: Path) -> str:
    """The :func:`normalized` path without links."""
    return normalized(Path(os.path.realpath(path))) if "\0" not in str(path) else str(path)


def normalized(path: Path) -> str:
    """The absolute path, equal for spellings that differ in accents, and on Windows in case."""
    return os.path.normcase(unicodedata.normalize("NFC", os.path.normpath(path.absolute())))
