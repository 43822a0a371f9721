"""ID3v2 in MP3, WAV and AIFF: versions, flags, and the frames of other programs."""

import base64
import struct

import mutagen.apev2
import mutagen.id3
import pytest
from mutagen.id3 import (
    APIC,
    COMM,
    GEOB,
    GRP1,
    IPLS,
    PCNT,
    POPM,
    PRIV,
    RVA2,
    TCON,
    TDRC,
    TIT1,
    TIT2,
    TXXX,
    TYER,
    UFID,
)

from stonecli.errors import TagError
from stonecli.key import Key
from stonecli.tags import FieldRule, read_tags, remove_key, write_key
from stonecli.tags.formats.id3 import PADDING, edit_tag
from stonecli.tags.formats.sniff import id3v2_length
from tests.fixture_types import BytesOf, CopySample

A_MINOR = Key.parse("8A")
MIXED_IN_KEY = base64.b64encode(b'{"algorithm":94,"key":"5A","source":"mixedinkey"}')
COMMENT = FieldRule("comment", "camelot", "prepend")


def synchsafe(number: int) -> bytes:
    return bytes(number >> shift & 0x7F for shift in (21, 14, 7, 0))


def frame(version: int, name: bytes, body: bytes, flags: int = 0, plain: bool = False) -> bytes:
    if version == 2:
        return name + len(body).to_bytes(3) + body
    size = synchsafe(len(body)) if version == 4 and not plain else len(body).to_bytes(4)
    return name + size + flags.to_bytes(2) + body


def tag(
    version: int, *frames: bytes, flags: int = 0, padding: int = 0, before: bytes = b"", after: bytes = b""
) -> bytes:
    body = before + b"".join(frames) + bytes(padding)
    return b"ID3" + bytes([version, 0, flags]) + synchsafe(len(body)) + body + after


def split(data: bytes) -> list[bytes]:
    """The raw frames of a tag without extended header, by a walk of its own."""
    version, at, frames = data[3], 10, []
    head = 6 if version == 2 else 10
    while at < len(data) and data[at]:
        size = data[at + 3 : at + 6] if version == 2 else data[at + 4 : at + 8]
        length = int.from_bytes(size) if version < 4 else sum(b << 7 * (3 - i) for i, b in enumerate(size))
        frames.append(data[at : at + head + length])
        at += head + length
    return frames


FOREIGN = {  # frames that a library would sort, merge, drop or rewrite
    2: [
        frame(2, b"TT2", b"\x00Old title\x00"),
        frame(2, b"PIC", b"\x00PNG\x03\x00" + bytes(range(256))),
        frame(2, b"XYZ", b"anything"),
        frame(2, b"TYE", b"\x001999"),
    ],
    3: [
        frame(3, b"APIC", b"\x00PNG\x00\x03\x00" + bytes(range(256)) * 40),
        frame(3, b"TYER", b"\x001999\x00"),
        frame(3, b"TDAT", b"\x003112"),
        frame(3, b"IPLS", b"\x00producer\x00Eno\x00"),
        frame(3, b"RVAD", b"\x03\x10\x00\x01\x00\x01\x00\x00\x00\x00"),
        frame(3, b"TCON", b"\x00(17)(4)Rock\x00"),
        frame(3, b"TPE1", b"\x01\xfe\xff\x00A\x00B\x00\x00"),  # big-endian, terminated
        frame(3, b"TXXX", b"\x00same\x00one"),
        frame(3, b"TXXX", b"\x00same\x00two"),
        frame(3, b"GEOB", b"\x00application/octet-stream\x00\x00Serato Overview\x00" + bytes(range(256))),
        frame(3, b"GEOB", b"\x00application/json\x00Key\x00Key\x00" + MIXED_IN_KEY),
        frame(3, b"PRIV", b"TRAKTOR4\x00" + bytes(range(256)) * 3),
        frame(3, b"NITR", b"\xff\xff\x00\xe0 not a known frame"),
        frame(3, b"POPM", b"me@home\x00\xc4\x00\x00\x00\x07"),
        frame(3, b"COMM", b"\x00engiTunNORM\x00 00000A"),
        frame(3, b"COMM", b"\x00deu\x00von mir"),
        frame(3, b"TLAN", b"\x00eng", flags=0x8000),  # to be discarded if unknown
        frame(3, b"TCOP", b""),
        frame(3, b"TT2\x00", b"\x00a v2.2 name"),
    ],
}
FOREIGN[4] = [
    frame(4, b"TDRC", b"\x032001-02-03T04\x002002"),
    frame(4, b"TIPL", b"\x03producer\x00Eno"),
    frame(4, b"TPE1", b"\x03one\x00two\x00"),
    frame(4, b"TXXX", b"\x03zipped\x00", flags=0x0009),
    frame(4, b"RVA2", b"track\x00\x01\xff\x00\x00"),
    frame(4, b"CHAP", b"ch0\x00" + bytes(16) + frame(4, b"TIT2", b"\x03Intro")),
    frame(4, b"APIC", b"\x03image/png\x00\x03\x00" + bytes(range(256)) * 9),
]


@pytest.mark.parametrize("version", [2, 3, 4])
@pytest.mark.parametrize("padding", [0, 7, 3000])
def test_version_and_all_other_frames_stay(version: int, padding: int, make: CopySample, digest: BytesOf) -> None:
    path = make("mp3")
    old = tag(version, *FOREIGN[version], padding=padding)
    path.write_bytes(old + path.read_bytes())
    before = digest(path)
    assert write_key(path, A_MINOR)
    content = path.read_bytes()
    new = content[: id3v2_length(content)]
    assert new[:3] == b"ID3"
    assert new[3] == version
    name = b"TKE" if version == 2 else b"TKEY"
    assert split(new) == [*FOREIGN[version], frame(version, name, b"\x008A")]
    assert len(new) == (len(old) if padding == 3000 else len(new))
    assert digest(path) == before
    assert read_tags(path).text == "8A"
    assert remove_key(path)
    content = path.read_bytes()
    assert split(content[: id3v2_length(content)]) == FOREIGN[version]


def test_a_new_tag_is_version_3_and_has_room(make: CopySample) -> None:
    path = make("mp3")
    write_key(path, A_MINOR)
    content = path.read_bytes()
    assert content.startswith(b"ID3\x03\x00\x00")
    assert split(content[: id3v2_length(content)]) == [frame(3, b"TKEY", b"\x008A")]
    size = len(content)
    assert id3v2_length(content) > PADDING
    write_key(path, Key.parse("F#m"), [FieldRule("key", "musical"), COMMENT])
    assert path.stat().st_size == size


def test_one_key_frame_remains_at_the_position_of_the_first() -> None:
    first, last = frame(3, b"TIT2", b"\x00a"), frame(3, b"TPE1", b"\x00b")
    old = tag(3, first, frame(3, b"TKEY", b"\x00Cm"), last, frame(3, b"TKEY", b"\x01\xff\xfeD\x00"), padding=99)
    new = edit_tag(old, {"key": "8A"})
    assert split(new) == [first, frame(3, b"TKEY", b"\x008A"), last]
    assert len(new) == len(old)


def test_id3v1_and_ape_blocks_at_the_end_stay(make: CopySample) -> None:
    path = make("mp3")
    ape = mutagen.apev2.APEv2()
    ape["MP3GAIN_MINMAX"] = "089,179"
    ape.save(path)
    v1 = b"TAG" + b"Title".ljust(124, b"\0") + b"\x11"
    path.write_bytes(path.read_bytes() + v1)
    content = path.read_bytes()
    write_key(path, A_MINOR)
    assert path.read_bytes().endswith(content)
    remove_key(path)
    assert path.read_bytes() == content


def test_a_key_in_an_ape_tag_follows_and_the_rest_stays(make: CopySample) -> None:
    path = make("mp3")
    ape = mutagen.apev2.APEv2()
    ape["MP3GAIN_MINMAX"] = "089,179"
    ape["Initialkey"] = "Cm"
    ape.save(path)
    v1 = b"TAG" + b"Title".ljust(124, b"\0") + b"\x11"
    path.write_bytes(path.read_bytes() + v1)
    write_key(path, A_MINOR)
    after = mutagen.apev2.APEv2(path)
    assert (str(after["Initialkey"]), str(after["MP3GAIN_MINMAX"])) == ("8A", "089,179")
    assert path.read_bytes().endswith(v1)


def test_mutagen_reads_the_same_frames_as_before(make: CopySample) -> None:
    """The same again on a tag that mutagen has written, compared as mutagen reads it."""
    for v2_version in (3, 4):
        path = make("mp3")
        tags = mutagen.id3.ID3()
        for item in (
            APIC(encoding=0, mime="image/jpeg", type=3, desc="x", data=b"\xff\xd8" * 700),
            GEOB(encoding=0, mime="", filename="", desc="Serato Markers2", data=bytes(range(256))),
            GEOB(encoding=0, mime="application/json", filename="", desc="Key", data=MIXED_IN_KEY),
            PRIV(owner="TRAKTOR4", data=b"\0\xff\xfe"),
            POPM(email="a@b", rating=196, count=3),
            PCNT(count=9),
            TXXX(encoding=1, desc="replaygain_track_gain", text=["-3.1 dB"]),
            UFID(owner="http://musicbrainz.org", data=b"1"),
            COMM(encoding=1, lang="fra", desc="", text=["déjà vu"]),
            COMM(encoding=0, lang="eng", desc="ID3v1 Comment", text=["old"]),
            TIT2(encoding=1, text=["Überall"]),
            TCON(encoding=0, text=["(17)"]),
            TYER(encoding=0, text=["1999"]) if v2_version == 3 else TDRC(encoding=0, text=["1999"]),
            IPLS(encoding=0, people=[["a", "b"]]) if v2_version == 3 else RVA2(desc="t", channel=1, gain=1, peak=0.5),
        ):
            tags.add(item)
        tags.save(path, v2_version=v2_version)
        before = mutagen.id3.ID3(path, translate=False)
        write_key(path, A_MINOR, [FieldRule(), COMMENT])
        after = mutagen.id3.ID3(path, translate=False)
        assert after.version == before.version == (2, v2_version, 0)
        assert after.pop("TKEY").text == ["8A"]
        assert after["COMM::fra"].text == ["8A - déjà vu"]
        after["COMM::fra"].text = ["déjà vu"]
        assert dict(after) == dict(before)


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        ([frame(3, b"TKEY", b"\x00Am\x00"), frame(3, b"TXXX", b"\x00KEY\x00C")], "Am"),
        ([frame(3, b"TXXX", b"\x00KEY\x00C"), frame(3, b"TXXX", b"\x00initialkey\x00D")], "D"),
        ([frame(3, b"TXXX", b"\x00Key\x00C")], "C"),
        ([frame(3, b"TKEY", b"\x00  "), frame(3, b"TXXX", b"\x00KEY\x00C")], "C"),
        ([frame(3, b"TKEY", b"\x01\xff\xfeF\x00o\x00o\x00")], "Foo"),
        ([frame(3, b"GEOB", b"\x00application/json\x00\x00Key\x00" + MIXED_IN_KEY)], MIXED_IN_KEY.decode()),
        ([frame(3, b"GEOB", b"\x00application/json\x00\x00Other\x00" + MIXED_IN_KEY)], None),
    ],
)
def test_reading_order(frames: list[bytes], text: str | None, make: CopySample) -> None:
    path = make("mp3")
    path.write_bytes(tag(3, *frames) + path.read_bytes())
    tags = read_tags(path)
    assert tags.text == text
    expected = {"Foo": None, None: None, MIXED_IN_KEY.decode(): Key.parse("5A")}
    assert tags.key == (expected[text] if text in expected else Key.parse(text or ""))


def test_text_keeps_language_encoding_and_further_values(make: CopySample) -> None:
    cases = [
        (3, frame(3, b"COMM", b"\x00deu\x00sch\xf6n\x00"), frame(3, b"COMM", b"\x00deu\x008A - sch\xf6n")),
        (
            3,
            frame(3, b"COMM", b"\x01rus\xff\xfe\x00\x00\xff\xfe" + "да".encode("utf-16-le")),
            frame(3, b"COMM", b"\x01rus\xff\xfe\x00\x00\xff\xfe" + "8A - да".encode("utf-16-le")),
        ),
        (
            3,
            frame(3, b"COMM", b"\x01rus\xfe\xff\x00\x00\xfe\xff" + "да".encode("utf-16-be") + b"\0\0"),
            frame(3, b"COMM", b"\x01rus\xff\xfe\x00\x00\xff\xfe" + "8A - да".encode("utf-16-le")),
        ),
        (4, frame(4, b"COMM", b"\x03eng\x00one\x00two"), frame(4, b"COMM", b"\x03eng\x008A - one\x00two")),
        (
            4,
            frame(4, b"COMM", b"\x02eng\x00\x00\x00x"),
            frame(4, b"COMM", b"\x02eng\x00\x00" + "8A - x".encode("utf-16-be")),
        ),
        (2, frame(2, b"COM", b"\x00eng\x00x"), frame(2, b"COM", b"\x00eng\x008A - x")),
    ]
    for version, old, new in cases:
        path = make("mp3")
        described = frame(version, b"COM" if version == 2 else b"COMM", b"\x00engiTunNORM\x00 0000")
        path.write_bytes(tag(version, described, old, padding=100) + path.read_bytes())
        assert write_key(path, A_MINOR, [COMMENT])
        content = path.read_bytes()
        assert split(content[: id3v2_length(content)]) == [described, new]
        assert remove_key(path, [COMMENT])


def test_grouping_is_written_to_the_frame_that_exists(make: CopySample) -> None:
    rule = FieldRule("grouping", "camelot", "append")
    for frames, changed in (([], "TIT1"), ([TIT1(text=["a"])], "TIT1"), ([TIT1(text=["w"]), GRP1(text=["a"])], "GRP1")):
        path = make("mp3")
        tags = mutagen.id3.ID3()
        for item in [TIT2(text=["t"]), *frames]:
            tags.add(item)
        tags.save(path, v2_version=3)
        write_key(path, A_MINOR, [rule])
        after = mutagen.id3.ID3(path)
        assert after[changed].text == (["a - 8A"] if frames else ["8A"])
        assert len(after) == len(tags) + (not frames)


def test_flags_of_the_tag_stay() -> None:
    key = frame(4, b"TKEY", b"\x008A")
    title = frame(4, b"TIT2", b"\x03x")
    footed = tag(4, title, flags=0x10) + b"3DI" + tag(4, title, flags=0x10)[3:10]
    new = edit_tag(footed, {"key": "8A"})
    assert id3v2_length(new) == len(new)
    assert new[10:-10] == title + key
    assert new[-10:] == b"3DI" + new[3:10]

    extended = b"\x00\x00\x00\x06\x01\x00"
    new = edit_tag(tag(4, title, flags=0x40, before=extended, padding=50), {"key": "8A"})
    assert new[5] == 0x40
    assert new[10:].rstrip(b"\0") == extended + title + key

    title = frame(3, b"TIT2", b"\x00x")
    extended = bytes([0, 0, 0, 6, 0, 0, 0, 0, 0, 50])
    new = edit_tag(tag(3, title, flags=0x40, before=extended, padding=50), {"key": "8A"})
    assert new[10:20] == bytes([0, 0, 0, 6, 0, 0, 0, 0, 0, 50 - 13])
    assert new[20:].rstrip(b"\0") == title + frame(3, b"TKEY", b"\x008A")


def test_an_unsynchronized_tag_keeps_its_flag(make: CopySample) -> None:
    picture = b"\x00PNG\x00\x03\x00\xff\xe0\xff\x00\xff\x00\x00\xff\x01"
    for version in (2, 3):
        plain = frame(version, b"PIC" if version == 2 else b"PRIV", picture)
        body = plain.replace(b"\xff\x00", b"\xff\x00\x00").replace(b"\xff\xe0", b"\xff\x00\xe0")
        path = make("mp3")
        path.write_bytes(tag(version, body, flags=0x80, padding=60) + path.read_bytes())
        size = path.stat().st_size
        assert write_key(path, A_MINOR, [FieldRule(), FieldRule("comment", "camelot", "prepend")])
        content = path.read_bytes()
        assert path.stat().st_size == size
        assert content[5] == 0x80
        assert content[10 : 10 + len(body)] == body
        assert read_tags(path).text == "8A"

    unsynchronised = frame(4, b"PRIV", b"x\x00\xff\x00\xe0", flags=0x0002)
    comment = frame(4, b"COMM", b"\x01eng\xff\x00\xfe\x00\x00\xff\x00\xfea\x00", flags=0x0002)
    path = make("mp3")
    path.write_bytes(tag(4, unsynchronised, comment, flags=0x80) + path.read_bytes())
    assert write_key(path, A_MINOR, [FieldRule(), COMMENT])
    after = mutagen.id3.ID3(path)
    assert (after["TKEY"].text, after["COMM::eng"].text) == (["8A"], ["8A - a"])
    content = path.read_bytes()
    assert split(content[: id3v2_length(content)])[0] == unsynchronised
    assert content[5] == 0x80


def test_a_data_length_indicator_is_dropped_when_text_changes(make: CopySample) -> None:
    title = frame(4, b"TIT2", synchsafe(5) + b"\x03Song", flags=0x0001)
    comment = frame(4, b"COMM", synchsafe(10) + b"\x01eng\xff\x00\xfe\x00\x00\xff\x00\xfea\x00", flags=0x0003)
    other = frame(4, b"TALB", synchsafe(3) + b"\x03ab", flags=0x0001)
    path = make("mp3")
    path.write_bytes(tag(4, title, comment, other, padding=200) + path.read_bytes())
    assert write_key(path, A_MINOR, [FieldRule("title", "camelot", "append"), COMMENT])
    content = path.read_bytes()
    assert split(content[: id3v2_length(content)]) == [
        frame(4, b"TIT2", b"\x03Song - 8A"),
        frame(4, b"COMM", b"\x01eng\xff\xfe\x00\x00\xff\xfe" + "8A - a".encode("utf-16-le")),
        other,
    ]


def test_version_4_with_the_frame_sizes_of_old_itunes() -> None:
    picture = frame(4, b"APIC", b"\x00image/png\x00\x03\x00" + bytes(range(256)) * 3, plain=True)
    title = frame(4, b"TIT2", b"\x03x", plain=True)
    old = tag(4, picture, title, padding=700)
    new = edit_tag(old, {"key": "8A", "comment": "c" * 300})
    comment = frame(4, b"COMM", b"\x00eng\x00" + b"c" * 300, plain=True)
    assert new[10:].rstrip(b"\0") == picture + title + frame(4, b"TKEY", b"\x008A") + comment
    assert len(new) == len(old)


def test_remains_in_the_padding_stay() -> None:
    title = frame(3, b"TIT2", b"\x00x")
    old = tag(3, title, bytes(20) + b"forgotten" + bytes(9))
    new = edit_tag(old, {"key": "8A"})
    assert new[10:] == title + frame(3, b"TKEY", b"\x008A") + bytes(20) + b"forgotten" + bytes(9)


@pytest.mark.parametrize(
    ("old", "reason"),
    [
        (tag(5, frame(3, b"TIT2", b"\x00x")), "unknown version"),
        (tag(2, frame(2, b"TT2", b"\x00x"), flags=0x40), "compressed"),
        (tag(3, frame(3, b"TIT2", b"\x00x")[:-1]), "are inconsistent"),
        (tag(3, b"TIT2\x7f\x00\x00\x00\x00\x00\x00x"), "are inconsistent"),
        (tag(3, b"\x01\x02\x03\x04" + bytes(20)), "are inconsistent"),
        (tag(4, frame(4, b"TIT2", b"\x00x"), b"\x01junk!" * 5), "are inconsistent"),
        (tag(3, frame(3, b"TIT2", b"\x00x"), flags=0x40, before=b"\0\0\0\x0a\x80" + bytes(9)), "checksum"),
        (tag(4, frame(4, b"TIT2", b"\x00x"), flags=0x40, before=b"\0\0\0\x0c\x01\x20" + bytes(6)), "checksum"),
    ],
)
def test_damage_is_refused(old: bytes, reason: str, make: CopySample) -> None:
    with pytest.raises(TagError, match=reason):
        edit_tag(old, {"key": "8A"})
    path = make("mp3")
    content = old + path.read_bytes()
    path.write_bytes(content)
    with pytest.raises(TagError):
        write_key(path, A_MINOR)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "comment",
    [
        frame(4, b"COMM", synchsafe(9) + b"\x00eng\x00x", flags=0x0009),  # compressed
        frame(4, b"COMM", synchsafe(9) + b"\x00eng\x00x", flags=0x0005),  # encrypted
        frame(4, b"COMM", synchsafe(9), flags=0x0001),
        frame(3, b"COMM", struct.pack(">I", 7) + b"x", flags=0x0080),  # compressed
        frame(3, b"COMM", b"\x01eng\xff\xfe\x00\x00\xff\xfe\x00\xd8"),  # half of a surrogate pair
        frame(3, b"COMM", b"\x07eng\x00x"),
        frame(3, b"COMM", b"\x01eng\xff"),
    ],
)
def test_text_that_cannot_be_read_is_not_replaced(comment: bytes, make: CopySample) -> None:
    path = make("mp3")
    path.write_bytes(tag(4 if comment[9] & 0x0F else 3, comment, padding=100) + path.read_bytes())
    content = path.read_bytes()
    with pytest.raises(TagError):
        write_key(path, A_MINOR, [COMMENT])
    assert path.read_bytes() == content
    assert write_key(path, A_MINOR)  # the key alone can be written
    new = path.read_bytes()
    assert split(new[: id3v2_length(new)])[0] == comment


def test_a_key_frame_that_cannot_be_read_is_replaced() -> None:
    for damaged in (frame(3, b"TKEY", b"\x09?"), frame(3, b"TKEY", b"\x00\x00\x00\x09zz", flags=0x0080)):
        assert split(edit_tag(tag(3, damaged), {"key": "8A"})) == [frame(3, b"TKEY", b"\x008A")]
