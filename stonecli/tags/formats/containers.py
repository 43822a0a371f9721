"""The registry of containers: one row per container that stone can tag, with everything that is known about it.

To add a container, add a row here, and an editor module if no existing one fits (docs/architecture.md has the recipe).
``tests/stonecli/tags/formats/test_containers.py`` checks every row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any, BinaryIO, Literal, Protocol, TypeAlias, cast

from stonecli.tags.edit.splice import Span, Splice
from stonecli.tags.rules import Changes

TagFamily: TypeAlias = Literal["id3", "vorbis", "mp4", "apev2", "asf"]
Magic: TypeAlias = tuple[tuple[int, bytes], ...]
"""Pairs of offset and bytes, which must all match. Offsets count from the end of the ID3v2 tags in front."""

MAGIC_BYTES = 64  # length of the start of a file that is compared with the magic


class Editor(Protocol):
    """The functions of an editor module, for an open file."""

    def splices(self, file: BinaryIO, container: str, changes: Changes) -> list[Splice]:
        """The splices that make the changes; TagError if they cannot be made without loss."""

    def payload(self, file: BinaryIO, container: str) -> Iterator[bytes | Span]:
        """Everything that an edit of the tags must not change: bytes, and spans of the file to be read."""


@dataclass(frozen=True)
class Container:
    """A container that stone can tag.

    Attributes:
        name: unique name, as in ``KeyTags.container``.
        suffix: usual file suffix. A container is detected by its content; folders are searched by the suffixes in
            ``stonecli.library.walk``.
        magic: alternatives for the start of a file. MP3 has none: it is detected by its frames.
        family: kind of tag, which determines the fields.
        tag_class: module and class of mutagen that reads the tags alone, if possible.
        file_class: module and class of mutagen that reads the tags and the properties of the audio.
        editor_module: module in ``stonecli.tags.formats`` that edits the tags.
        id3_followers: index of the first ID3v2 tag in front of the audio that is a follower; None if there can be
            no ID3v2 tags in front.
    """

    name: str
    suffix: str
    magic: tuple[Magic, ...]
    family: TagFamily
    tag_class: tuple[str, str]
    file_class: tuple[str, str]
    editor_module: str
    id3_followers: int | None = None

    def matches(self, head: bytes) -> bool:
        """Whether a file that starts with ``head``, after its ID3v2 tags, is in this container."""
        for magic in self.magic:
            for offset, text in magic:  # loops, because generators take three times as long
                if not head.startswith(text, offset):
                    break
            else:
                return True
        return False

    @property
    def editor(self) -> Editor:
        """The editor module, loaded when it is needed."""
        return cast(Editor, import_module(f"stonecli.tags.formats.{self.editor_module}"))


def _ogg(name: str, suffix: str, codec: bytes, class_name: str) -> Container:
    reader = (f"mutagen.{class_name.lower()}", class_name)
    return Container(name, suffix, (((0, b"OggS"), (28, codec)),), "vorbis", reader, reader, "ogg")


def _ape(name: str, suffix: str, magic: tuple[bytes, ...], file_class: tuple[str, str]) -> Container:
    alternatives: tuple[Magic, ...] = tuple(((0, text),) for text in magic)
    return Container(name, suffix, alternatives, "apev2", ("mutagen.apev2", "APEv2"), file_class, "apev2", 0)


_WAVE, _AIFF = ("mutagen.wave", "WAVE"), ("mutagen.aiff", "AIFF")
_FLAC, _MP4, _ASF = ("mutagen.flac", "FLAC"), ("mutagen.mp4", "MP4"), ("mutagen.asf", "ASF")
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")

CONTAINERS: dict[str, Container] = {
    row.name: row
    for row in (
        Container("mp3", ".mp3", (), "id3", ("mutagen.id3", "ID3"), ("mutagen.mp3", "MP3"), "mp3", 1),
        Container("wav", ".wav", (((0, b"RIFF"), (8, b"WAVE")),), "id3", _WAVE, _WAVE, "iff"),
        Container(
            "aiff",
            ".aif",
            (((0, b"FORM"), (8, b"AIFF")), ((0, b"FORM"), (8, b"AIFC"))),
            "id3",
            _AIFF,
            _AIFF,
            "iff",
        ),
        Container("flac", ".flac", (((0, b"fLaC"),),), "vorbis", _FLAC, _FLAC, "flac", 0),
        _ogg("ogg vorbis", ".ogg", b"\x01vorbis", "OggVorbis"),
        _ogg("opus", ".opus", b"OpusHead", "OggOpus"),
        _ogg("ogg flac", ".oga", b"\x7fFLAC", "OggFLAC"),
        _ogg("speex", ".ogg", b"Speex   ", "OggSpeex"),
        Container("mp4", ".m4a", (((4, b"ftyp"),),), "mp4", _MP4, _MP4, "mp4"),
        _ape("wavpack", ".wv", (b"wvpk",), ("mutagen.wavpack", "WavPack")),
        _ape("musepack", ".mpc", (b"MPCK", b"MP+"), ("mutagen.musepack", "Musepack")),
        _ape("monkey's audio", ".ape", (b"MAC ",), ("mutagen.monkeysaudio", "MonkeysAudio")),
        Container("asf", ".wma", (((0, _ASF_HEADER),),), "asf", _ASF, _ASF, "asf"),
    )
}
"""Every container that stone can tag, by name."""


def load_class(reader: tuple[str, str]) -> Any:
    """The class for a module and class name of mutagen, which is imported when it is needed."""
    module, name = reader
    return getattr(import_module(module), name)
