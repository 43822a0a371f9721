"""APEv2 at the end of WavPack, Musepack and Monkey's Audio."""

from collections.abc import Callable
from typing import Any

import pytest
from mutagen.apev2 import BINARY, EXTERNAL, APEv2, APEValue

from stonecli.errors import TagError
from stonecli.key import Key
from stonecli.tags import FieldRule, read_tags, remove_key, write_key
from stonecli.tags.formats.containers import CONTAINERS
from tests.fixture_types import BytesOf, CopySample

A_MINOR = Key.parse("8A")
KINDS = [row.name for row in CONTAINERS.values() if row.family == "apev2"]
V1 = b"TAG" + b"Old title".ljust(125, b"\0")


def item(name: bytes, value: bytes, flags: int = 0) -> bytes:
    return len(value).to_bytes(4, "little") + flags.to_bytes(4, "little") + name + b"\0" + value


def tag(
    *items: bytes, header: bool = True, version: int = 2000, size: int | None = None, count: int | None = None
) -> bytes:
    body = b"".join(items)
    flags = 0x80000000 if header else 0

    def end(more: int) -> bytes:
        numbers = (
            version,
            len(body) + 32 if size is None else size,
            len(items) if count is None else count,
            flags | more,
        )
        return b"APETAGEX" + b"".join(number.to_bytes(4, "little") for number in numbers) + bytes(8)

    return (end(0x20000000) if header else b"") + body + end(0)


ITEMS = [
    item(b"Title", b"Caf\xc3\xa9"),
    item(b"ARTIST", b"one\0two", flags=1),  # read-only
    item(b"Cover Art (Front)", b"front.png\0" + bytes(range(256)), flags=2),
    item(b"Buy", b"http://example.org", flags=4),
    item(b"replaygain_track_gain", b"-3 dB"),
    item(b"KEY", b"Cm"),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tail", [b"", V1])
@pytest.mark.parametrize("header", [True, False])
def test_items_and_the_block_behind_them_stay(
    kind: str, tail: bytes, header: bool, make: CopySample, digest: BytesOf
) -> None:
    path = make(kind)
    APEv2().delete(path)
    audio = path.read_bytes()
    path.write_bytes(audio + tag(*ITEMS, header=header) + tail)
    before = digest(path)
    assert read_tags(path).text == "Cm"
    assert write_key(path, A_MINOR)
    kept, followed = ITEMS[:-1], item(b"KEY", b"8A")
    assert path.read_bytes() == audio + tag(*kept, followed, item(b"INITIALKEY", b"8A"), header=header) + tail
    assert read_tags(path).text == "8A"
    assert digest(path) == before
    assert write_key(path, A_MINOR, [FieldRule("title", "camelot", "prepend")])
    title = item(b"Title", "8A - Café".encode())
    items = [title, *kept[1:], followed, item(b"INITIALKEY", b"8A")]
    assert path.read_bytes() == audio + tag(*items, header=header) + tail
    assert remove_key(path, [FieldRule(), FieldRule("title", "camelot", "prepend")])
    assert path.read_bytes() == audio + tag(*kept, header=header) + tail


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_tag_goes_before_id3v1(kind: str, make: CopySample) -> None:
    path = make(kind)
    APEv2().delete(path)
    audio = path.read_bytes()
    path.write_bytes(audio + V1)
    assert write_key(path, A_MINOR)
    assert path.read_bytes() == audio + tag(item(b"INITIALKEY", b"8A")) + V1
    assert remove_key(path)
    assert path.read_bytes() == audio + V1


def test_names_in_any_case(make: CopySample) -> None:
    path = make("musepack")
    audio = path.read_bytes()
    path.write_bytes(audio + tag(item(b"InitialKey", b"Cm\0D"), item(b"comment", b"mine\0too")))
    rules = [FieldRule(), FieldRule("comment", "camelot", "prepend")]
    assert write_key(path, A_MINOR, rules)
    assert path.read_bytes() == audio + tag(item(b"InitialKey", b"8A"), item(b"comment", b"8A - mine\0too"))


def test_mutagen_reads_the_same_frames_as_before(make: CopySample) -> None:
    path = make("wavpack")
    tags = APEv2(path)
    tags["Cover Art (Front)"] = APEValue(b"x\0" + bytes(range(256)), BINARY)
    tags["Related"] = APEValue("http://a", EXTERNAL)
    tags["Artist"] = ["a", "b"]
    tags.save()
    before = dict(APEv2(path))
    write_key(path, A_MINOR)
    after = dict(APEv2(path))
    assert str(after.pop("INITIALKEY")) == "8A"
    assert after == before


@pytest.mark.parametrize("length", range(120, 140))
def test_a_tag_that_looks_like_id3v1(length: int, make: CopySample, digest: BytesOf) -> None:
    """With 131 bytes from its start to the end of the file, the TAG of APETAGEX is where ID3v1 has its own."""
    path = make("musepack")
    before = digest(path)
    path.write_bytes(path.read_bytes() + tag(item(b"Artist", b"x" * (length - 64 - 15))))
    assert write_key(path, A_MINOR)
    assert remove_key(path)
    assert len(tag(item(b"Artist", b"x" * (length - 64 - 15)))) == length
    assert digest(path) == before


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (tag(*ITEMS, size=40), "."),
        (tag(*ITEMS, size=1 << 30), "damaged"),
        (tag(*ITEMS, count=9), "inconsistent"),
        (tag(*ITEMS, version=3000), "damaged"),
        (tag(*ITEMS)[8:], "damaged"),
        (tag(item(b"KEY", b"Cm")) + tag(*ITEMS), "more than one"),
        (
            tag(item(b"Artist", b"\xff\xfe")),
            "damaged",
        ),  # mutagen cannot read it: nobody to check what is written
        (tag(item(b"Title", b"x")[:-1]), "inconsistent|damaged"),
        (tag(*ITEMS) + b"LYRICSBEGIN000020LYRICS200" + V1, "Lyrics3"),
    ],
)
def test_damage_is_refused(end: bytes, reason: str, make: CopySample) -> None:
    path = make("musepack")
    content = path.read_bytes() + end
    path.write_bytes(content)
    with pytest.raises(TagError, match=reason):
        write_key(path, A_MINOR)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "change",
    [lambda content: content[:-5], lambda content: content + b"more wvpk"],
)
def test_wavpack_blocks_have_to_be_whole(change: Callable[..., Any], make: CopySample) -> None:
    path = make("wavpack")
    APEv2().delete(path)
    content = change(path.read_bytes())
    path.write_bytes(content)
    with pytest.raises(TagError, match=r"truncated|unexpected data"):
        write_key(path, A_MINOR)
    assert path.read_bytes() == content
