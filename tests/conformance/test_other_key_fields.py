"""After a new key was written, no field still names the old one: other key fields, second tags, tags in front."""

import base64
import subprocess
import sys
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import mutagen
import pytest
from mutagen.apev2 import APEv2
from mutagen.asf import ASF
from mutagen.asf._attrs import ASFUnicodeAttribute
from mutagen.flac import FLAC
from mutagen.id3 import GEOB, ID3, TIT2, TKEY, TXXX
from mutagen.mp4 import MP4

from stonecli.errors import TagError
from stonecli.key import Key
from stonecli.tags import FieldRule, read_tags, recorded, remove_key, undo_run, write_key
from tests.fixture_types import BytesOf, CopySample

A_MINOR = Key.parse("8A")
BLOCK = '{"algorithm":94,"key":"5A","source":"mixedinkey"}'
MIXED_IN_KEY = base64.b64encode(BLOCK.encode()).decode()
PREFIX = "----:com.apple.iTunes:"


def tags_of(opened: Any) -> Any:
    return opened.tags


def write_and_undo(path: Path) -> None:
    """Writes A minor; checks that it is read, and that undo gives the old file, to the byte; leaves it written."""
    content = path.read_bytes()
    with recorded() as run:
        assert write_key(path, A_MINOR, journal=run)
    new = path.read_bytes()
    assert read_tags(path).text == "8A"
    assert not write_key(path, A_MINOR)
    assert [undone.error for undone in undo_run(run.number)] == [None]
    assert path.read_bytes() == content
    assert write_key(path, A_MINOR)
    assert path.read_bytes() == new


def id3_tag(tmp_path: Path, *frames: TIT2 | TKEY | TXXX, version: int = 3) -> bytes:
    tag = ID3()
    for frame in frames:
        tag.add(frame)
    tag.save(tmp_path / "tag", v2_version=version, padding=lambda _: 20)
    return (tmp_path / "tag").read_bytes()


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("encoding", [0, 1, 3])
@pytest.mark.parametrize("kind", ["mp3", "wav", "aiff"])
def test_described_frames_follow(kind: str, encoding: int, version: int, make: CopySample, digest: BytesOf) -> None:
    if (version, encoding) == (3, 3):
        pytest.skip("v2.3 has no UTF-8")
    path = make(kind)
    opened = mutagen.File(path)
    if opened.tags is None:
        opened.add_tags()
    opened.tags.add(TKEY(encoding=0, text=["Cm"]))
    opened.tags.add(TXXX(encoding=encoding, desc="INITIALKEY", text=["Cm"]))
    opened.tags.add(TXXX(encoding=encoding, desc="Key", text=["5A", "so so"] if version == 4 else ["C minor (5A)"]))
    opened.tags.add(TXXX(encoding=encoding, desc="KEY", text=[MIXED_IN_KEY]))
    opened.tags.add(TXXX(encoding=encoding, desc="KEYWORD", text=["Cm"]))
    opened.tags.add(GEOB(encoding=0, mime="application/json", desc="Key", data=MIXED_IN_KEY.encode()))
    opened.save(v2_version=version)
    before = digest(path)
    write_and_undo(path)
    tags = mutagen.File(path).tags
    assert tags["TKEY"].text == tags["TXXX:INITIALKEY"].text == ["8A"]
    assert tags["TXXX:Key"].text == (["8A", "so so"] if version == 4 else ["8A"])
    assert (tags["TXXX:KEY"].text, tags["TXXX:KEYWORD"].text) == ([MIXED_IN_KEY], ["Cm"])
    assert tags["GEOB:Key"].data == MIXED_IN_KEY.encode()
    assert tags["TXXX:INITIALKEY"].encoding == encoding
    assert digest(path) == before
    assert remove_key(path)
    left = {frame.desc for frame in mutagen.File(path).tags.getall("TXXX")}
    assert left == ({"Key", "KEY", "KEYWORD"} if version == 4 else {"KEY", "KEYWORD"})


def test_described_frames_of_old_tags_follow(make: CopySample, samples: dict[str, bytes]) -> None:
    path = make("mp3")
    frames = b"TKE\0\0\x04\0Cm\0" + b"TXX\0\0\x07\0KEY\0Cm"
    path.write_bytes(b"ID3\x02\0\0\0\0\0" + bytes([len(frames)]) + frames + samples["mp3"])
    write_and_undo(path)
    assert b"TKE\0\0\x03\x008ATXX\0\0\x07\0KEY\x008A" in path.read_bytes()


def test_none_of_these_fields_is_made(sample: str, make: CopySample) -> None:
    path = make(sample)
    write_and_undo(path)
    content = path.read_bytes().lower()
    assert b"txxx" not in content
    assert content.count(b"key") - content.count(b"tkey") == content.count(b"initialkey")


@pytest.mark.parametrize("name", ["KEY", "key", "Key"])
def test_mp4_items_follow(name: str, make: CopySample) -> None:
    path = make("mp4")
    opened: Any = MP4(path)
    opened.tags[PREFIX + name] = [b"Cm", b"so so", MIXED_IN_KEY.encode()]
    opened.tags["----:com.other:KEY"] = [b"Cm"]
    opened.save()
    write_and_undo(path)
    tags: Any = MP4(path).tags
    assert [bytes(value) for value in tags[PREFIX + name]] == [b"8A", b"so so", MIXED_IN_KEY.encode()]
    assert tags["----:com.other:KEY"] == [b"Cm"]
    assert remove_key(path)
    assert [bytes(value) for value in tags_of(MP4(path))[PREFIX + name]] == [b"so so", MIXED_IN_KEY.encode()]


def test_vorbis_comments_follow(make: CopySample) -> None:
    for kind in ("flac", "ogg vorbis", "opus", "ogg flac"):
        path = make(kind)
        opened = mutagen.File(path)
        opened["KEY"], opened["initial_key"] = ["8d (C♯/D♭)", MIXED_IN_KEY, "so so"], "Cm"
        opened.save()
        write_and_undo(path)
        assert mutagen.File(path)["key"] == ["8A", MIXED_IN_KEY, "so so"]
        assert mutagen.File(path)["initial_key"] == ["8A"]


def test_ape_and_asf_items_follow(make: CopySample) -> None:
    path = make("wavpack")
    tags = APEv2()
    tags["Key"] = ["Cm", MIXED_IN_KEY]
    tags.save(path)
    write_and_undo(path)
    assert list(APEv2(path)["Key"]) == ["8A", MIXED_IN_KEY]
    path = make("asf")
    opened: Any = ASF(path)
    opened.tags["InitialKey"] = ["Cm"]
    opened.save()
    write_and_undo(path)
    assert [str(value) for value in tags_of(ASF(path))["InitialKey"]] == ["8A"]


def test_doubled_key_items_become_one(make: CopySample) -> None:
    path = make("musepack")
    items = b"".join(
        (2).to_bytes(4, "little") + bytes(4) + name + b"\0" + text
        for name, text in ((b"InitialKey", b"Cm"), (b"INITIALKEY", b"Dm"), (b"KEY", b"Em"), (b"Key", b"Fm"))
    )
    end = b"APETAGEX" + b"".join(number.to_bytes(4, "little") for number in (2000, len(items) + 32, 4, 0)) + bytes(8)
    path.write_bytes(path.read_bytes() + items + end)
    write_and_undo(path)
    end = path.read_bytes()[-150:]
    assert end.count(b"8A") == 3
    assert not any(old in end for old in (b"Cm", b"Dm", b"Em", b"Fm"))


def test_the_documented_way_to_get_a_key_field_for_engine_dj(make: CopySample) -> None:
    """The lines in docs/tags.md make ``KEY`` once; from then on it follows."""
    text = (Path(__file__).parents[2] / "docs" / "tags.md").read_text(encoding="utf-8")
    code = text[text.index('python -c "') + len('python -c "') : text.index('" *.flac')]
    path = make("flac")
    assert write_key(path, Key.parse("Cm"))
    subprocess.run([sys.executable, "-c", code, path], check=True)
    assert FLAC(path)["key"] == ["5A"]
    write_and_undo(path)
    assert FLAC(path)["key"] == FLAC(path)["initialkey"] == ["8A"]


# Second tags


def comments(*entries: bytes) -> bytes:
    data = (5).to_bytes(4, "little") + b"maker" + len(entries).to_bytes(4, "little")
    return data + b"".join(len(entry).to_bytes(4, "little") + entry for entry in entries)


def two_blocks(content: bytes, first: bytes, second: bytes) -> bytes:
    """A FLAC file with two comment blocks, and nothing else but the description of the stream."""
    at, last = 4, False
    while not last:
        last, length = bool(content[at] & 0x80), int.from_bytes(content[at + 1 : at + 4])
        at += 4 + length
    start = content[:4] + b"\0" + content[5:42]
    blocks = [(4, first), (2, b"riff1234"), (4, second), (1, bytes(60))]
    rendered = [bytes([kind | (0x80 if kind == 1 else 0)]) + len(data).to_bytes(3) + data for kind, data in blocks]
    return start + b"".join(rendered) + content[at:]


def comment_blocks(path: Path) -> list[list[str]]:
    return [[f"{name}={value}" for name, value in block] for block in FLAC(path).metadata_blocks if block.code == 4]


@pytest.mark.parametrize(
    ("first", "second", "read", "after"),
    [
        ([b"INITIALKEY=Cm"], [b"INITIALKEY=Dm"], "Cm", [["INITIALKEY=8A"], ["INITIALKEY=8A"]]),
        ([b"KEY=Cm"], [b"Key=Dm"], "Cm", [["KEY=8A", "INITIALKEY=8A"], ["Key=8A"]]),
        ([b"A=1"], [b"INITIALKEY=Dm", b"B=2"], "Dm", [["A=1", "INITIALKEY=8A"], ["INITIALKEY=8A", "B=2"]]),
        ([], [b"INITIALKEY=8A"], "8A", [["INITIALKEY=8A"], ["INITIALKEY=8A"]]),
        ([b"INITIALKEY=8A"], [b"INITIALKEY=Dm"], "8A", [["INITIALKEY=8A"], ["INITIALKEY=8A"]]),
        (
            [b"INITIALKEY=Cm"],
            [b"KEY=" + MIXED_IN_KEY.encode(), b"INITIALKEY=so so"],
            "Cm",
            [["INITIALKEY=8A"], [f"KEY={MIXED_IN_KEY}", "INITIALKEY=so so"]],
        ),
    ],
)
def test_flac_with_two_comment_blocks(
    first: list[bytes],
    second: list[bytes],
    read: str,
    after: list[list[str]],
    make: CopySample,
    samples: dict[str, bytes],
    digest: BytesOf,
) -> None:
    path = make("flac")
    path.write_bytes(two_blocks(samples["flac"], comments(*first), comments(*second)))
    before = digest(path)
    assert read_tags(path).text == read
    write_and_undo(path)
    assert comment_blocks(path) == after
    assert digest(path) == before
    show = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", path, "-f", "ffmetadata", "-"]
    shown = subprocess.run(show, capture_output=True, check=True).stdout
    assert b"INITIALKEY=8A" in shown
    assert not any(b"=" + old in shown or b";" + old in shown for old in (b"Cm", b"Dm"))
    assert remove_key(path)
    assert "8A" not in str(comment_blocks(path))


def test_a_damaged_second_comment_block_is_refused(make: CopySample, samples: dict[str, bytes]) -> None:
    path = make("flac")
    damaged = comments(b"INITIALKEY=Dm").replace(b"\x0d\0\0\0INITIALKEY", b"\xff\xff\xff\x7fINITIALKEY")
    path.write_bytes(two_blocks(samples["flac"], comments(b"A=1"), damaged))
    content = path.read_bytes()
    with pytest.raises(TagError):
        write_key(path, A_MINOR)
    assert path.read_bytes() == content


@pytest.mark.parametrize("version", [3, 4])
def test_mp3_with_two_id3_tags(
    version: int, make: CopySample, samples: dict[str, bytes], tmp_path: Path, digest: BytesOf
) -> None:
    path = make("mp3")
    first = id3_tag(tmp_path, TIT2(encoding=0, text="one"))
    second = id3_tag(
        tmp_path,
        TIT2(encoding=1, text="two ♯"),
        TKEY(encoding=1, text=["Dm"]),
        TXXX(encoding=1, desc="KEY", text=["Dm"]),
        version=version,
    )
    path.write_bytes(first + second + samples["mp3"])
    before = digest(path)
    assert read_tags(path).text == "Dm"
    write_and_undo(path)
    content = path.read_bytes()
    assert content.endswith(samples["mp3"])
    assert content.count("Dm".encode("utf-16-le")) == 0
    at = content.index(b"ID3", 3)
    (tmp_path / "second").write_bytes(content[at:])
    tags = ID3(tmp_path / "second")
    assert (tags["TIT2"].text, tags["TKEY"].text, tags["TXXX:KEY"].text) == (["two ♯"], ["8A"], ["8A"])
    assert digest(path) == before
    assert remove_key(path)
    assert "TKEY" not in ID3(path)
    assert read_tags(path).text is None


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("end", [b"", b"TAG" + b"Old title".ljust(125, b"\0")])
@pytest.mark.parametrize("has_id3", [True, False])
def test_the_ape_tag_of_an_mp3(
    has_id3: bool,
    end: bytes,
    header: bool,
    make: CopySample,
    samples: dict[str, bytes],
    tmp_path: Path,
    digest: BytesOf,
) -> None:
    """Mixxx writes keys there, and foobar2000 reads them first."""
    path = make("mp3")
    tags = APEv2()
    tags["Title"], tags["InitialKey"], tags["KEY"], tags["MP3GAIN_MINMAX"] = "one", "Dm", ["D minor", "so so"], "1,2"
    tags.save(path)
    content = path.read_bytes()
    if not header:
        at = content.index(b"APETAGEX")
        content = content[:at] + content[at + 32 : -12] + bytes(12)
    front = id3_tag(tmp_path, TIT2(encoding=0, text="one"), TKEY(encoding=0, text=["Cm"])) if has_id3 else b""
    path.write_bytes(front + content + end)
    before = digest(path)
    assert read_tags(path).text == ("Cm" if has_id3 else "Dm")
    write_and_undo(path)
    (tmp_path / "tail").write_bytes(path.read_bytes())
    after = APEv2(tmp_path / "tail")
    assert (str(after["InitialKey"]), list(after["KEY"])) == ("8A", ["8A", "so so"])
    assert (str(after["Title"]), str(after["MP3GAIN_MINMAX"])) == ("one", "1,2")
    assert path.read_bytes().endswith(end)
    assert digest(path) == before
    assert remove_key(path)
    left = APEv2(path)
    assert ("InitialKey" in left, list(left["KEY"])) == (False, ["so so"])
    assert read_tags(path).text == "so so"


def test_an_ape_tag_without_a_key_stays_unchanged(make: CopySample) -> None:
    path = make("mp3")
    tags = APEv2()
    tags["Title"], tags["KEY"] = "one", MIXED_IN_KEY
    tags.save(path)
    content = path.read_bytes()
    assert read_tags(path).key == Key.parse("5A")
    write_and_undo(path)
    assert path.read_bytes().endswith(content)


@pytest.mark.parametrize("kind", ["flac", "musepack", "monkey's audio", "wavpack"])
def test_an_id3_tag_in_front(
    kind: str, make: CopySample, samples: dict[str, bytes], tmp_path: Path, digest: BytesOf
) -> None:
    path = make(kind)
    front = id3_tag(tmp_path, TIT2(encoding=0, text="one"), TKEY(encoding=0, text=["Dm"]))
    path.write_bytes(front + path.read_bytes())
    before = digest(path)
    assert read_tags(path).text == "Dm"
    write_and_undo(path)
    assert (ID3(path)["TKEY"].text, ID3(path)["TIT2"].text) == (["8A"], ["one"])
    assert digest(path) == before
    assert remove_key(path)
    assert "TKEY" not in ID3(path)


def test_a_second_tag_without_a_key_stays_unchanged(
    make: CopySample, samples: dict[str, bytes], tmp_path: Path
) -> None:
    path = make("mp3")
    damaged = b"ID3\x03\0\0\0\0\0\x14" + b"????" * 5
    whole = id3_tag(tmp_path, TIT2(encoding=1, text="two ♯"))
    path.write_bytes(id3_tag(tmp_path, TIT2(encoding=0, text="one")) + damaged + whole + samples["mp3"])
    write_and_undo(path)
    assert path.read_bytes().endswith(damaged + whole + samples["mp3"])


def test_a_key_in_the_metadata_library_of_wma_is_refused(make: CopySample) -> None:
    path = make("asf")
    opened: Any = ASF(path)
    opened.tags["WM/InitialKey"] = [ASFUnicodeAttribute("Cm", language=1)]
    opened.save()
    content = path.read_bytes()
    assert read_tags(path).text == "Cm"
    with pytest.raises(TagError, match="metadata library"):
        write_key(path, A_MINOR)
    assert path.read_bytes() == content
    assert write_key(path, A_MINOR, [FieldRule("comment")])


def test_two_lists_of_an_mp4_are_refused(make: CopySample) -> None:
    path = make("mp4")
    write_key(path, Key.parse("Cm"))
    content = path.read_bytes()
    at = content.index(b"ilst") - 4
    length = int.from_bytes(content[at : at + 4])
    free = content.index(b"free", at + length)
    room = int.from_bytes(content[free - 4 : free])
    assert (free, room > length + 16) == (at + length + 4, True)
    doubled = content[at : at + length] * 2 + (room - length).to_bytes(4) + b"free" + bytes(room - length - 8)
    path.write_bytes(content[:at] + doubled + content[at + length + room :])
    content = path.read_bytes()
    with pytest.raises(TagError, match="more than one tag list"):
        write_key(path, A_MINOR)
    assert path.read_bytes() == content
