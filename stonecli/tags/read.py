"""Reads the key tags of a file with ``mutagen``; docs/tags.md lists the fields and their order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from io import BytesIO
from typing import Any, BinaryIO

from stonecli.errors import TagError, reason
from stonecli.key import Key, parse_or_none
from stonecli.library.music_file import Source, opened
from stonecli.spelling import plain_key_index, says_no_key
from stonecli.tags.edit.bounded import MAX_TAG_BYTES, bounded, too_large
from stonecli.tags.edit.splice import read_at
from stonecli.tags.formats.apev2 import tail_texts
from stonecli.tags.formats.containers import CONTAINERS, Container, TagFamily, load_class
from stonecli.tags.formats.other_tags import other_texts
from stonecli.tags.formats.sniff import id3v2_spans, sniff
from stonecli.tags.rules import Changes, Field, KeyTags
from stonecli.tags.tempo_text import parse_bpm, says_no_tempo

_MP4_PREFIX = "----:com.apple.iTunes:"


@dataclass(frozen=True)
class Snapshot:
    """The texts of a file's fields that stone reads or writes.

    Attributes:
        keys: the texts of the key field, normally one.
        followers: the plain keys in followers, fields such as ``KEY`` that are updated but never created.
        also: the texts of all other fields that are read for a key, by precedence; followers are among them.
        texts: comment, grouping, title and tempo, as far as they exist.
        tempos: the texts of all tempo fields, by precedence; only the first of the first field is ever written.
    """

    keys: tuple[str, ...]
    followers: tuple[str, ...]
    also: tuple[str, ...]
    texts: Mapping[Field, str]
    tempos: tuple[str, ...] = ()

    @property
    def bpm_text(self) -> str | None:
        """Raw text of the first tempo that does not mean "no tempo", or else of the first one."""
        return next((text for text in self.tempos if not says_no_tempo(text)), next(iter(self.tempos), None))

    @property
    def text(self) -> str | None:
        """Raw text of the first key field that does not mean "no key", or else of the first one with any text."""
        texts = [text for text in (*self.keys, *self.also) if text.strip()]
        return next((text for text in texts if not says_no_key(text)), texts[0] if texts else None)

    def conflicts(self, key: Key) -> Iterator[str]:
        """The texts of the key fields that writing a key replaces, except those that name ``key`` or mean "no key"."""
        texts = (text for text in (*self.keys, *self.followers) if not says_no_key(text))
        return (text for text in texts if parse_or_none(text) != key)

    def combined(self, other: Snapshot) -> Snapshot:
        """This snapshot together with one of a second tag of the file, in which all key fields are followers."""
        return replace(
            self,
            followers=(*self.followers, *_plain(other.keys), *other.followers),
            also=(*self.also, *other.keys, *other.also),
            tempos=(*self.tempos, *other.tempos),
        )

    def with_changes(self, changes: Changes) -> Snapshot:
        """The snapshot that the file must have after the changes."""
        keys, followers = self.keys, self.followers
        if "key" in changes:
            key = changes["key"]
            if key is None:
                keys, followers = (), tuple(text for text in followers if text != self.keys[0])
            else:
                keys, followers = (key,), (key,) * len(followers)
        texts: dict[Field, str | None] = {**self.texts, **changes}
        left: dict[Field, str] = {field: text for field, text in texts.items() if field != "key" and text}
        return replace(self, keys=keys, followers=followers, also=(), texts=left, tempos=())


def read_key(path: Source) -> Key | None:
    """The key in the tags of a file, given by its path or open; None if there is none. Of several keys, the first.

    Raises:
        TagError: the file cannot be opened, is not music, or its tags are damaged.
    """
    return read_tags(path).key


def read_tags(path: Source) -> KeyTags:
    """The key tags of a file, given by its path or open.

    Raises:
        TagError: the file cannot be opened, is not music, or its tags are damaged.
    """
    with as_tag_error(), opened(path) as music:
        container = sniff(music.file)
        found = snapshot(music.file, container)
    key = parse_or_none(found.text) if found.text is not None else None
    others = map(parse_or_none, found.conflicts(key)) if key is not None else ()
    return KeyTags(container, found.text, key, found.bpm_text, next((other for other in others if other), None))


def bpm_in(tags: Any, family: TagFamily) -> float | None:
    """The first valid tempo in tags that mutagen has read, in beats per minute; None if there is none."""
    return next((bpm for text in _READERS[family](tags).tempos if (bpm := parse_bpm(text)) is not None), None)


@contextmanager
def as_tag_error() -> Iterator[None]:
    """Turn any exception of a parser on a damaged file into a TagError of one line without content of the file."""
    try:
        yield
    except TagError:
        raise
    except OSError as error:
        raise TagError(reason(error)) from error
    except Exception as error:
        if isinstance(error.__context__, TagError):  # raised by our file object, and wrapped by mutagen
            raise error.__context__ from None
        # Deliberately broad: on damaged files mutagen also raises struct.error, IndexError, AssertionError and others.
        kind = type(error).__name__.replace("error", "Error").removesuffix("Error")  # some names are in lower case
        raise TagError("the file or its tags are damaged" + (f" ({kind})" if kind else "")) from error


def snapshot(file: BinaryIO, container: str, *, as_new: bool = False) -> Snapshot:
    """The snapshot of an open file; a damaged file may raise any exception.

    With ``as_new``, an MP3, WAV or AIFF file without an ID3v2 tag is read as if it had a new one, which starts with the
    texts of its other tags.
    """
    row = CONTAINERS[container]
    reader, load = _READERS[row.family], load_class(row.tag_class)
    seen = bounded(file, container)
    file.seek(0)
    try:
        loaded = load(seen, **(_ID3_OPTIONS if reader is _read_id3 else {}))
        tags = loaded.tags if hasattr(loaded, "info") else loaded
    except Exception as error:
        if type(error).__name__ not in _NO_TAG:
            raise
        tags = None
    found = reader(tags)
    for second in _second_tags(file, row, loaded if tags is not None else None):
        found = found.combined(second)
    if as_new and tags is None and reader is _read_id3:
        others = other_texts(file, container)
        names: dict[Field, str] = {"comment": "COMM", "title": "TIT2", "bpm": "TBPM"}
        found = replace(found, texts={field: others[name] for field, name in names.items() if name in others})
    return found


def _second_tags(file: BinaryIO, row: Container, loaded: Any) -> Iterator[Snapshot]:
    """The snapshot of tags that only some programs read: a second comment block, ID3v2 in front, APEv2."""
    if row.editor_module == "flac" and loaded is not None:
        comments = [block for block in loaded.metadata_blocks if block.code == loaded.tags.code]
        yield from map(_read_vorbis, comments[1:])
    if row.id3_followers is None:
        return
    for span in id3v2_spans(file)[row.id3_followers :]:
        if span.length > MAX_TAG_BYTES:
            raise too_large()
        yield _read_second_id3(read_at(file, span.offset, span.length))
    if row.editor_module == "mp3":
        tail = tail_texts(file)
        yield Snapshot(tail["initialkey"], _plain(tail["key"]), tail["key"], {}, _filled(tail["bpm"]))


def _read_second_id3(data: bytes) -> Snapshot:
    load: Any = import_module("mutagen.id3").ID3
    try:
        return _read_id3(load(BytesIO(data), **_ID3_OPTIONS))
    except Exception:  # deliberately broad, as in as_tag_error; a damaged tag counts as empty
        return _read_id3(None)


def _read_id3(tags: Any) -> Snapshot:
    if tags is None:
        return Snapshot((), (), (), {})
    described = [(frame.desc.upper(), str(text)) for frame in tags.getall("TXXX") for text in frame.text]
    named = [text for name in ("INITIALKEY", "KEY") for description, text in described if description == name]
    blocks = [frame.data.decode("latin-1").strip("\0") for frame in tags.getall("GEOB") if frame.desc == "Key"]
    grouping = "GRP1" if tags.getall("GRP1") else "TIT1"
    texts: dict[Field, list[str]] = {
        "comment": next((frame.text for frame in tags.getall("COMM") if frame.desc == ""), []),
        "grouping": [text for frame in tags.getall(grouping) for text in frame.text],
        "title": [text for frame in tags.getall("TIT2") for text in frame.text],
        "bpm": [text for frame in tags.getall("TBPM") for text in frame.text],
    }
    keys = tuple(text for frame in tags.getall("TKEY") for text in frame.text)
    tempos = [text for name in _OTHER_TEMPOS for description, text in described if description == name.upper()]
    return Snapshot(keys, _plain(named), (*named, *blocks), _first(texts), _filled([*texts["bpm"], *tempos]))


def _read_vorbis(tags: Any) -> Snapshot:
    def values(name: str) -> list[str]:
        return tags.get(name, []) if tags is not None else []

    also = (*values("key"), *values("initial_key"))
    texts: dict[Field, list[str]] = {
        "comment": values("comment") or values("description"),
        "grouping": values("grouping"),
        "title": values("title"),
        "bpm": values("bpm"),
    }
    tempos = [*texts["bpm"], *(text for name in _OTHER_TEMPOS if name != "bpm" for text in values(name))]
    return Snapshot(tuple(values("initialkey")), _plain(also), also, _first(texts), _filled(tempos))


def _read_mp4(tags: Any) -> Snapshot:
    tags = tags or {}

    def free_form(name: str) -> tuple[str, ...]:
        found = [key for key in tags if key.startswith(_MP4_PREFIX) and key[len(_MP4_PREFIX) :].lower() == name]
        return tuple(bytes(value).decode("utf-8", "replace") for key in found for value in tags[key])

    names: dict[Field, str] = {"comment": "\xa9cmt", "grouping": "\xa9grp", "title": "\xa9nam", "bpm": "tmpo"}
    texts = _first({field: list(tags.get(name, [])) for field, name in names.items()})
    tempos = [*tags.get("tmpo", []), *(text for name in _OTHER_TEMPOS for text in free_form(name))]
    return Snapshot(free_form("initialkey"), _plain(free_form("key")), free_form("key"), texts, _filled(tempos))


def _read_apev2(tags: Any) -> Snapshot:
    def values(name: str) -> list[str]:
        value = tags.get(name) if tags is not None else None
        return str(value).split("\0") if value is not None and value.kind == 0 else []

    texts: dict[Field, list[str]] = {name: values(name) for name in ("comment", "grouping", "title", "bpm")}
    tempos = _filled(text for name in _OTHER_TEMPOS for text in values(name))
    return Snapshot(tuple(values("INITIALKEY")), _plain(values("KEY")), tuple(values("KEY")), _first(texts), tempos)


def _read_asf(tags: Any) -> Snapshot:
    def values(name: str) -> list[str]:
        return [str(value) for key, value in tags if key.lower() == name.lower()]

    names: dict[Field, str] = {
        "comment": "Description",
        "grouping": "WM/ContentGroupDescription",
        "title": "Title",
        "bpm": "WM/BeatsPerMinute",
    }
    texts = _first({field: values(name) for field, name in names.items()})
    also = values("INITIALKEY")
    tempos = _filled(text for name in (names["bpm"], *_OTHER_TEMPOS) for text in values(name))
    return Snapshot(tuple(values("WM/InitialKey")), _plain(also), tuple(also), texts, tempos)


def _plain(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(text for text in texts if plain_key_index(text) is not None)


def _first(texts: Mapping[Field, list[str]]) -> dict[Field, str]:
    """The first value of each field; a field without text counts as missing."""
    return {field: str(values[0]) for field, values in texts.items() if values and str(values[0])}


def _filled(values: Iterable[Any]) -> tuple[str, ...]:
    return tuple(str(value) for value in values if str(value))


_OTHER_TEMPOS = ("bpm", "tempo", "fbpm")  # free-form fields that programs write instead of the usual one
_ID3_OPTIONS = {"translate": False, "load_v1": False}
_READERS: dict[TagFamily, Callable[[Any], Snapshot]] = {
    "id3": _read_id3,
    "vorbis": _read_vorbis,
    "mp4": _read_mp4,
    "apev2": _read_apev2,
    "asf": _read_asf,
}

_NO_TAG = ("ID3NoHeaderError", "APENoHeaderError")  # what the classes that are a tag, not a file, raise without one
