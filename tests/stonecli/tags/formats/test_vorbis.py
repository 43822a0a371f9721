"""Vorbis comments in FLAC and Ogg: the rules for KEY, and what other blocks and packets go through."""

import base64
import io
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import mutagen.flac
import mutagen.oggopus
import mutagen.oggvorbis
import pytest
from mutagen.flac import FLAC, CueSheet, Padding, Picture, SeekPoint, SeekTable

from stonecli.errors import TagError
from stonecli.key import Key
from stonecli.spelling import plain_key_index
from stonecli.tags import FieldRule, read_tags, remove_key, write_key
from stonecli.tags.formats.vorbis import edit_comments
from tests.fixture_types import BytesOf, CopySample, MakePicture

A_MINOR = Key.parse("8A")
MIXED_IN_KEY = base64.b64encode(b'{"algorithm":94,"key":"5A","source":"mixedinkey"}').decode()


def packed(*entries: bytes, vendor: bytes = b"maker \xff", count: int | None = None) -> bytes:
    def sized(data: bytes) -> bytes:
        return len(data).to_bytes(4, "little") + data

    number = (len(entries) if count is None else count).to_bytes(4, "little")
    return sized(vendor) + number + b"".join(map(sized, entries))


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Am", True),
        ("8A", True),
        ("C# minor", True),
        ("C♯/D♭ Major (3B)", True),
        (MIXED_IN_KEY, False),
        ('{"key":"5A"}', False),
        (base64.b64encode(b'{"key":"A"}').decode(), False),
        ("off key", False),
        ("", False),
    ],
)
def test_a_plain_key_is_told_from_a_block(text: str, plain: bool) -> None:
    assert (plain_key_index(text) is not None) == plain


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], [b"INITIALKEY=8A"]),
        ([b"artist=x", b"InitialKey=Cm", b"TITLE=y"], [b"artist=x", b"InitialKey=8A", b"TITLE=y"]),
        ([b"INITIALKEY=Cm", b"INITIALKEY=D", b"A=1"], [b"INITIALKEY=8A", b"A=1"]),
        ([b"KEY=Cm"], [b"KEY=8A", b"INITIALKEY=8A"]),
        ([b"key=Cm", b"INITIALKEY=Cm"], [b"key=8A", b"INITIALKEY=8A"]),
        ([b"KEY=" + MIXED_IN_KEY.encode()], [b"KEY=" + MIXED_IN_KEY.encode(), b"INITIALKEY=8A"]),
        ([b"KEY=" + MIXED_IN_KEY.encode(), b"KEY=D"], [b"KEY=" + MIXED_IN_KEY.encode(), b"KEY=8A", b"INITIALKEY=8A"]),
        ([b"KEY=who knows"], [b"KEY=who knows", b"INITIALKEY=8A"]),
        ([b"INITIAL_KEY=Cm"], [b"INITIAL_KEY=8A", b"INITIALKEY=8A"]),
        ([b"no equals sign", b"T\xdcR=\xff\xfe"], [b"no equals sign", b"T\xdcR=\xff\xfe", b"INITIALKEY=8A"]),
    ],
)
def test_the_key_among_other_entries(before: list[bytes], after: list[bytes]) -> None:
    assert edit_comments(packed(*before) + b"\x01rest", {"key": "8A"}) == (packed(*after), b"\x01rest")


def test_the_key_is_removed() -> None:
    entries = [b"KEY=8A", b"INITIALKEY=8A", b"KEY=C", b"KEY=" + MIXED_IN_KEY.encode()]
    assert edit_comments(packed(*entries), {"key": None})[0] == packed(*entries[2:])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], [b"COMMENT=new"]),
        ([b"comment=a", b"COMMENT=b"], [b"comment=new", b"COMMENT=b"]),
        ([b"Description=a"], [b"Description=new"]),
        ([b"DESCRIPTION=a", b"COMMENT=b"], [b"DESCRIPTION=a", b"COMMENT=new"]),
    ],
)
def test_comment_or_description(before: list[bytes], after: list[bytes]) -> None:
    assert edit_comments(packed(*before), {"comment": "new"})[0] == packed(*after)


def test_text_that_is_not_utf8_is_not_replaced() -> None:
    with pytest.raises(TagError, match="UTF-8"):
        edit_comments(packed(b"COMMENT=sch\xf6n"), {"comment": "8A - sch?n"})


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xff\xff\xff", packed(b"A=1")[:-1], packed(b"A=1", count=2), packed(count=1 << 31)]
)
def test_damage(data: bytes) -> None:
    with pytest.raises(TagError, match="damaged"):
        edit_comments(data, {"key": "8A"})


@pytest.mark.parametrize(
    ("comments", "text"),
    [
        ({"KEY": "C", "INITIALKEY": "D"}, "D"),
        ({"INITIAL_KEY": "C", "KEY": "D"}, "D"),
        ({"initial_key": "C"}, "C"),
        ({"key": MIXED_IN_KEY}, MIXED_IN_KEY),
        ({"INITIALKEY": "loud", "KEY": "D"}, "loud"),
        ({"INITIALKEY": "?", "KEY": "D"}, "D"),
    ],
)
@pytest.mark.parametrize("kind", ["flac", "ogg vorbis", "opus", "ogg flac"])
def test_reading_order(kind: str, comments: dict[str, str], text: str, make: CopySample) -> None:
    path = make(kind)
    opened = mutagen.File(path)
    opened.update(comments)
    opened.save()
    tags = read_tags(path)
    assert (tags.container, tags.text) == (kind, text)
    keys = {"C": Key.parse("C"), "D": Key.parse("D"), MIXED_IN_KEY: Key.parse("5A"), "loud": None}
    assert tags.key == keys[text]


@pytest.mark.parametrize("kind", ["flac", "ogg vorbis", "opus", "ogg flac"])
@pytest.mark.parametrize("picture_size", [100, 300, 70_000, 400_000])
def test_all_other_comments_stay(
    kind: str, picture_size: int, make: CopySample, digest: BytesOf, decoded: BytesOf, png: MakePicture
) -> None:
    path = make(kind)
    opened = mutagen.File(path)
    picture = Picture()
    picture.mime, picture.data = "image/png", png(picture_size)
    opened.update(
        {
            "ARTIST": ["one", "two"],
            "KEY": [MIXED_IN_KEY, "Cm"],
            "REPLAYGAIN_TRACK_GAIN": "-3.1 dB",
            "SERATO_MARKERS_V2": base64.b64encode(bytes(99)).decode(),
            "METADATA_BLOCK_PICTURE": base64.b64encode(picture.write()).decode(),
            "COMMENT": "mine",
        }
    )
    opened.save(padding=lambda info: 0)
    comments, detected, before = list(mutagen.File(path).tags), decoded(path), digest(path)
    rules = [FieldRule(), FieldRule("comment", "camelot", "prepend")]
    assert write_key(path, A_MINOR, rules)
    expected = [("KEY", "8A") if item == ("KEY", "Cm") else item for item in comments]
    expected = [("COMMENT", "8A - mine") if item == ("COMMENT", "mine") else item for item in expected]
    assert [(name.upper(), text) for name, text in mutagen.File(path).tags] == [
        *((name.upper(), text) for name, text in expected),
        ("INITIALKEY", "8A"),
    ]
    assert mutagen.File(path).tags.vendor == opened.tags.vendor
    assert (decoded(path), digest(path)) == (detected, before)
    size = path.stat().st_size
    if kind != "ogg flac":  # which has no padding of its own
        write_key(path, Key.parse("F#m"), [FieldRule("key", "musical"), FieldRule("comment", "musical", "prepend")])
        assert path.stat().st_size == size
    assert remove_key(path, rules) or remove_key(path, [FieldRule("key", "musical")])
    assert decoded(path) == detected


# FLAC blocks


def blocks(content: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    at, found, last = content.index(b"fLaC") + 4, [], False
    while not last:
        length = int.from_bytes(content[at + 1 : at + 4])
        last = bool(content[at] & 0x80)
        found.append((content[at] & 0x7F, content[at + 4 : at + 4 + length]))
        at += 4 + length
    return found, content[at:]


@pytest.mark.parametrize("padding", [None, 0, 3, 12, 13, 16, 17, 18, 19, 20, 21, 22, 23, 24, 5000])
@pytest.mark.parametrize("in_front", [b"", b"ID3\x03\x00\x00\x00\x00\x00\x14" + b"TKEY\0\0\0\x03\0\0\x00Cm" + bytes(7)])
def test_flac_blocks_stay(padding: int | None, in_front: bytes, make: CopySample, png: MakePicture) -> None:
    path = make("flac")
    flac = FLAC(path)
    flac.metadata_blocks = [block for block in flac.metadata_blocks if block.code != 1]
    if padding is not None:
        flac.metadata_blocks.insert(1, Padding(bytes(padding)))
    picture = Picture()
    picture.data, picture.mime = png(50), "image/png"
    application: Any = mutagen.flac.MetadataBlock(b"riff" + bytes(range(100)))
    application.code = 2
    flac.seektable = SeekTable(None)
    flac.seektable.seekpoints = [SeekPoint(0, 0, 4096)]
    flac.cuesheet = CueSheet(None)
    flac.metadata_blocks += [application, picture]
    flac.save(padding=lambda info: 40)
    found, frames = blocks(path.read_bytes())
    if padding is not None:  # mutagen moves padding to the end; put a block of this size where others write it
        found = [found[0], (1, bytes(padding)), *(block for block in found[1:] if block[0] != 1)]
    else:
        found = [block for block in found if block[0] != 1]
    rendered = b"".join(
        bytes([kind | (0x80 if at == len(found) - 1 else 0)]) + len(data).to_bytes(3) + data
        for at, (kind, data) in enumerate(found)
    )
    content = in_front + b"fLaC" + rendered + frames + b"TAG".ljust(128, b"\0")
    path.write_bytes(content)
    assert read_tags(path).text == ("Cm" if in_front else None)
    assert write_key(path, A_MINOR)
    new = path.read_bytes()
    assert new.startswith(in_front.replace(b"Cm", b"8A"))  # some programs read the ID3 tag
    after, tail = blocks(new)
    assert tail == frames + b"TAG".ljust(128, b"\0")
    assert [block for block in after if block[0] not in (1, 4)] == [block for block in found if block[0] not in (1, 4)]
    assert [kind for kind, _ in after if kind != 1] == [kind for kind, _ in found if kind != 1]
    assert FLAC(path)["initialkey"] == ["8A"]
    if padding is not None and padding > 20:
        assert len(new) == len(content)


def test_flac_without_comments_gets_a_block(make: CopySample) -> None:
    path = make("flac")
    found, frames = blocks(path.read_bytes())
    path.write_bytes(b"fLaC\x80" + len(found[0][1]).to_bytes(3) + found[0][1] + frames)
    assert write_key(path, A_MINOR)
    after, tail = blocks(path.read_bytes())
    assert [kind for kind, _ in after] == [0, 4, 1]
    assert tail == frames
    assert read_tags(path).text == "8A"


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content[:5] + b"\0\0\x21" + content[8:],  # stream info a byte short
        lambda content: content[:30],
        lambda content: content[: content.index(b"\xff\xf8")],  # no audio
        lambda content: content[:44] + b"\x11" + content[45:],  # a block with a size that lies
        lambda content: b"fLaC" + content[42:],
    ],
)
def test_flac_damage_is_refused(change: Callable[..., Any], make: CopySample) -> None:
    path = make("flac")
    content = change(path.read_bytes())
    path.write_bytes(content)
    with pytest.raises(TagError):
        write_key(path, A_MINOR)
    assert path.read_bytes() == content


# Ogg pages


def pages(content: bytes) -> list[bytes]:
    at, found = 0, []
    while at < len(content):
        assert content[at : at + 4] == b"OggS"
        count = content[at + 26]
        end = at + 27 + count + sum(content[at + 27 : at + 27 + count])
        found.append(content[at:end])
        at = end
    return found


@pytest.mark.parametrize("kind", ["ogg vorbis", "opus", "ogg flac"])
def test_ogg_pages_are_renumbered(kind: str, make: CopySample, decoded: BytesOf) -> None:
    path = make(kind)
    detected, old = decoded(path), pages(path.read_bytes())
    assert write_key(path, A_MINOR, [FieldRule(), FieldRule("comment", "camelot", "replace")])
    opened = mutagen.File(path)
    opened["COMMENT"] = ["x" * 200_000]
    opened.save()
    assert write_key(path, A_MINOR, [FieldRule("comment", "camelot", "append")])
    new = pages(path.read_bytes())
    assert len(new) > len(old)
    assert [int.from_bytes(page[18:22], "little") for page in new] == list(range(len(new)))
    assert [page[6:14] for page in new[-3:]] == [page[6:14] for page in old[-3:]]
    assert decoded(path) == detected
    assert remove_key(path, [FieldRule("comment", "camelot", "append")])
    opened = mutagen.File(path)
    assert opened["COMMENT"] == ["x" * 200_000]
    opened["COMMENT"] = []
    opened.save()
    assert write_key(path, Key.parse("C"))
    assert decoded(path) == detected


def test_ogg_comments_that_grow_by_a_page_move_all_later_ones(make: CopySample, decoded: BytesOf) -> None:
    path = make("ogg vorbis")
    opened = mutagen.oggvorbis.OggVorbis(path)
    opened["COMMENT"] = ["y" * 64_500]
    opened.save(padding=lambda info: 0)
    detected, before = decoded(path), pages(path.read_bytes())
    opened["COMMENT"] = ["y" * 64_500]
    assert write_key(path, A_MINOR, [FieldRule(), FieldRule("grouping")])
    after = pages(path.read_bytes())
    assert [int.from_bytes(page[18:22], "little") for page in after] == list(range(len(after)))
    assert len(after) != len(before)
    assert decoded(path) == detected


def test_a_stream_chained_after_the_first_stays(make: CopySample) -> None:
    path = make("ogg vorbis")
    first = path.read_bytes()
    path.write_bytes(first + first)
    assert write_key(path, A_MINOR, [FieldRule(), FieldRule("comment")])
    assert path.read_bytes().endswith(first)
    assert read_tags(path).text == "8A"


def test_streams_side_by_side(make: CopySample, tmp_path: Path) -> None:
    """A second stream between the pages of the first: every page of it stays."""
    one, two = pages(make("ogg vorbis", "a").read_bytes()), pages(make("opus", "b").read_bytes())
    mixed = [one[0], two[0], one[1], two[1], *one[2:4], *two[2:], *one[4:]]
    path = tmp_path / "song"
    path.write_bytes(b"".join(mixed))
    assert write_key(path, A_MINOR, [FieldRule(), FieldRule("comment")])
    after = pages(path.read_bytes())
    assert [page for page in after if page[14:18] == two[0][14:18]] == two
    assert after[:2] == mixed[:2]
    assert mutagen.oggvorbis.OggVorbis(path)["initialkey"] == ["8A"]
    assert "initialkey" not in mutagen.oggopus.OggOpus(path)


def test_data_after_the_comments_of_opus_stays(make: CopySample) -> None:
    path = make("opus")
    content = path.read_bytes()
    old = pages(content)
    body = old[1][28 + old[1][26] - 1 :]
    assert body.startswith(b"OpusTags")
    from stonecli.tags.formats.ogg import _sealed

    comments = b"OpusTags" + packed(b"A=1") + b"\x01kept"
    page = _sealed(old[1][:26] + bytes([1, len(comments)]), comments)
    path.write_bytes(old[0] + page + b"".join(old[2:]))
    assert write_key(path, A_MINOR)
    assert pages(path.read_bytes())[1].endswith(packed(b"A=1", b"INITIALKEY=8A") + b"\x01kept")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: content[:-1], "truncated"),
        (lambda content: content + b"garbage" * 9 + content, "unexpected data"),
        (lambda content: content[:-100] + bytes([content[-100] ^ 1]) + content[-99:], "checksum"),
        (lambda content: b"".join(pages(content)[:1]), "truncated|damaged"),
        (lambda content: b"".join([pages(content)[0], *pages(content)[2:]]), "."),
    ],
)
@pytest.mark.parametrize("kind", ["ogg vorbis", "opus", "ogg flac"])
def test_ogg_damage_is_refused(kind: str, change: Callable[..., Any], reason: str, make: CopySample) -> None:
    path = make(kind)
    content = change(path.read_bytes())
    path.write_bytes(content)
    with pytest.raises(TagError, match=reason):
        write_key(path, A_MINOR)
    assert path.read_bytes() == content


def test_ffmpeg_reads_our_comments(make: CopySample) -> None:
    path = make("opus")
    write_key(path, A_MINOR, [FieldRule(), FieldRule("comment", "musical", "append")])
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-v",
        "error",
        "-i",
        path,
        "-f",
        "ffmetadata",
        "-map_metadata",
        "0:s",
        "-",
    ]
    out = subprocess.run(command, capture_output=True, check=True).stdout
    lines = io.StringIO(out.decode()).read().lower().splitlines()
    assert "initialkey=8a" in lines
    assert "comment=am" in lines
