"""ASF (WMA): attributes and objects of the header."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from mutagen.asf import ASF
from mutagen.asf._attrs import ASFByteArrayAttribute, ASFDWordAttribute, ASFUnicodeAttribute

from stonecli.errors import TagError
from stonecli.key import Key
from stonecli.tags import FieldRule, read_tags, remove_key, write_key
from tests.fixture_types import BytesOf, CopySample

A_MINOR = Key.parse("8A")
RULES = [FieldRule(), FieldRule("comment", "musical", "append"), FieldRule("grouping", "openkey", "prepend")]
PADDING = UUID("1806D474-CADF-4509-A4BA-9AABCB96AAE8").bytes_le
PROPERTIES = UUID("8CABDCA1-A947-11CF-8EE4-00C00C205365").bytes_le
EXTENDED = UUID("D2D0A440-E307-11D2-97F0-00A0C95EA850").bytes_le
DESCRIPTION = UUID("75B22633-668E-11CF-A6D9-00AA0062CE6C").bytes_le


def tags_of(path: Path) -> Any:
    return ASF(path).tags


def objects(content: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """The objects of the header, and the rest of the file."""
    length, count = int.from_bytes(content[16:24], "little"), int.from_bytes(content[24:28], "little")
    at, found = 30, []
    while at < length:
        size = int.from_bytes(content[at + 16 : at + 24], "little")
        found.append((content[at : at + 16], content[at + 24 : at + size]))
        at += size
    assert (at, len(found)) == (length, count)
    return found, content[length:]


@pytest.fixture
def song(make: CopySample) -> Path:
    path = make("asf")
    opened: Any = ASF(path)
    opened.tags["Title"] = ["Frühling"]
    opened.tags["Author"] = ["x"]
    opened.tags["Description"] = ["mine"]
    opened.tags["WM/Blob"] = [ASFByteArrayAttribute(bytes(range(256)) * 9)]
    opened.tags["WM/Big"] = [ASFByteArrayAttribute(bytes(70_000))]  # goes into the metadata library
    opened.tags["WM/Genre"] = ["one", "two"]
    opened.tags["Streamed"] = [ASFUnicodeAttribute("s", stream=1)]
    opened.tags["Spoken"] = [ASFDWordAttribute(7, language=0)]
    opened.tags["INITIALKEY"] = ["Cm"]
    opened.save(padding=lambda info: 30)
    return path


def test_every_other_attribute_and_object_stays(song: Path, digest: BytesOf, decoded: BytesOf) -> None:
    before, detected, tags = digest(song), decoded(song), list(tags_of(song))
    old, rest = objects(song.read_bytes())
    assert read_tags(song).text == "Cm"
    assert write_key(song, A_MINOR, RULES)
    assert (digest(song), decoded(song), read_tags(song).text) == (before, detected, "8A")
    after = list(tags_of(song))
    added = [("WM/InitialKey", "8A"), ("WM/ContentGroupDescription", "1m")]
    assert [(name, value) for name, value in after if (name, value) in added] == added
    kept = [item for item in after if item not in added]
    changed = {"Description": "mine - Am", "INITIALKEY": "8A"}
    assert kept == [(name, changed.get(name, value)) for name, value in tags]
    new, new_rest = objects(song.read_bytes())
    edited = (PADDING, PROPERTIES, EXTENDED, DESCRIPTION)
    assert [item for item in new if item[0] not in edited] == [item for item in old if item[0] not in edited]
    assert new_rest == rest
    size = song.stat().st_size
    assert write_key(song, Key.parse("3B"), RULES)
    assert song.stat().st_size == size
    assert remove_key(song, RULES)
    assert list(tags_of(song)) == [(name, value) for name, value in tags if name != "INITIALKEY"]


def test_the_file_size_in_the_header_stays_correct(make: CopySample) -> None:
    path = make("asf")
    size = path.stat().st_size
    assert write_key(path, A_MINOR)
    stated = next(content for guid, content in objects(path.read_bytes())[0] if guid == PROPERTIES)
    assert int.from_bytes(stated[16:24], "little") == path.stat().st_size > size


def test_the_key_is_there_once(make: CopySample) -> None:
    path = make("asf")
    opened: Any = ASF(path)
    opened.tags["WM/InitialKey"] = ["Cm"]
    opened.save()
    content = path.read_bytes()
    name = "WM/InitialKey\0".encode("utf-16-le")
    assert content.count(name) == 1
    assert read_tags(path).key == Key.parse("Cm")
    write_key(path, A_MINOR)
    assert path.read_bytes().count(name) == 1
    assert tags_of(path)["WM/InitialKey"] == ["8A"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: content[:-1], "truncated"),
        (lambda content: content[: int.from_bytes(content[16:24], "little")], "truncated|audio"),
        (lambda content: content[:24] + b"\x63" + content[25:], "inconsistent|damaged"),
        (lambda content: content[:16] + b"\xff" * 8 + content[24:], "inconsistent|damaged"),
        (lambda content: content[:46] + b"\x01" + bytes(7) + content[54:], "inconsistent|damaged"),
    ],
)
def test_damage_is_refused(change: Callable[..., Any], reason: str, make: CopySample) -> None:
    path = make("asf")
    content = change(path.read_bytes())
    path.write_bytes(content)
    with pytest.raises(TagError, match=reason):
        write_key(path, A_MINOR)
    assert path.read_bytes() == content


def test_text_that_is_too_long_is_refused(make: CopySample) -> None:
    path = make("asf")
    opened: Any = ASF(path)
    opened.tags["Description"] = ["x" * 32_766]
    opened.save()
    content = path.read_bytes()
    with pytest.raises(TagError, match="too long"):
        write_key(path, A_MINOR, [FieldRule("comment", "camelot", "prepend")])
    assert path.read_bytes() == content
