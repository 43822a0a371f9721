"""From a container's name to the module that edits it, loaded when it is needed."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import BinaryIO, Protocol, cast

from stonecli.tags.edit.splice import Span, Splice
from stonecli.tags.rules import Changes

_MODULES = {
    "mp3": "mp3",
    "wav": "iff",
    "aiff": "iff",
    "flac": "flac",
    "ogg vorbis": "ogg",
    "opus": "ogg",
    "ogg flac": "ogg",
    "speex": "ogg",
    "mp4": "mp4",
    "wavpack": "apev2",
    "musepack": "apev2",
    "monkey's audio": "apev2",
    "asf": "asf",
}


class Editor(Protocol):
    """What each container module can do with an open file."""

    def splices(self, file: BinaryIO, container: str, changes: Changes) -> list[Splice]:
        """The splices that make the changes; TagError if they cannot be made without loss."""

    def payload(self, file: BinaryIO, container: str) -> Iterator[bytes | Span]:
        """What a change of tags has to leave as it is: bytes, and spans of the file to be read."""


def editor_for(container: str) -> Editor:
    """The module that edits a container, as :func:`stonecli.tags.formats.sniff.sniff` names it."""
    return cast(Editor, import_module(f"stonecli.tags.formats.{_MODULES[container]}"))
