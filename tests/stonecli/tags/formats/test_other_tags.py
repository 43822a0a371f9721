"""A new ID3v2 tag has the texts of the file's other tags, which many programs then ignore."""

import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import imageio_ffmpeg
import mutagen
import pytest
from mutagen.apev2 import APEv2
from mutagen.id3 import ID3

from stonecli.key import Key
from stonecli.tags import FieldRule, read_tags, recorded, remove_key, undo_run, write_key
from stonecli.tags.formats.other_tags import other_texts
from tests.fixture_types import BytesOf, ListLeftovers

A_MINOR = Key.parse("8A")
TITLE = FieldRule("title", "camelot", "prepend")
COMMENT = FieldRule("comment", "camelot", "append")


def id3v1(
    title: bytes = b"",
    artist: bytes = b"",
    album: bytes = b"",
    year: bytes = b"",
    comment: bytes = b"",
    track: int = 0,
    genre: int = 255,
) -> bytes:
    comment = comment.ljust(28, b"\0") + bytes([0, track]) if track else comment.ljust(30, b"\0")
    fields = (title.ljust(30, b"\0"), artist.ljust(30, b" "), album.ljust(30, b"\0"), year.ljust(4, b"\0"), comment)
    return b"TAG" + b"".join(fields) + bytes([genre])


def ape(*items: tuple[Any, ...], count: int | None = None, size: int | None = None) -> bytes:
    """An APE tag without header, of name and value, or of name, value and kind."""
    body = b""
    for name, value, *kind in items:
        body += len(value).to_bytes(4, "little") + (2 * sum(kind)).to_bytes(4, "little") + name + b"\0" + value
    numbers = (2000, len(body) + 32 if size is None else size, len(items) if count is None else count, 0)
    return body + b"APETAGEX" + b"".join(number.to_bytes(4, "little") for number in numbers) + bytes(8)


def chunk(name: bytes, content: bytes, order: Literal["little", "big"] = "little") -> bytes:
    return name + len(content).to_bytes(4, order) + content + b"\0" * (len(content) % 2)


def info(*items: tuple[bytes, ...]) -> bytes:
    return chunk(b"LIST", b"INFO" + b"".join(chunk(name, text) for name, text in items))


def with_chunks(content: bytes, *chunks: bytes, order: Literal["little", "big"] = "little") -> bytes:
    content += b"".join(chunks)
    return content[:4] + (len(content) - 8).to_bytes(4, order) + content[8:]


V1 = id3v1(b"Caf\xe9", b"Mine", b"Album", b"1999", b"from the radio", 7, 17)
APE = ape(
    (b"Title", "Über die Brücke, die weit länger ist ♯".encode()),
    (b"ARTIST", b"One\0Two"),
    (b"Album Artist", b"All"),
    (b"Year", b"2001-05-03"),
    (b"Track", b"3/12"),
    (b"BPM", b"128"),
    (b"Cover Art (Front)", b"front.png\0\x89PNG\xff" + bytes(70_000), 1),
    (b"REPLAYGAIN_TRACK_GAIN", b"-3.1 dB"),
)
INFO = info(
    (b"INAM", b"Caf\xc3\xa9\0"),
    (b"IART", b"Mine"),
    (b"IPRD", b"Album\0\0"),
    (b"ICRD", b"1999"),
    (b"ITRK", b"7"),
    (b"IGNR", b"Rock"),
    (b"ICMT", b"from the radio"),
    (b"ISFT", b"Lavf"),
)
V1_TEXTS = {
    "TIT2": "Café",
    "TPE1": "Mine",
    "TALB": "Album",
    "TYER": "1999",
    "TRCK": "7",
    "TCON": "Rock",
    "COMM": "from the radio",
}
APE_TEXTS = {
    "TIT2": "Über die Brücke, die weit länger ist ♯",
    "TPE1": "One/Two",
    "TPE2": "All",
    "TYER": "2001",
    "TDAT": "0305",
    "TRCK": "3/12",
    "TBPM": "128",
}
FILES = {
    "ID3v1": ("mp3", lambda audio: audio + V1, V1_TEXTS),
    "APEv2": ("mp3", lambda audio: audio + APE, APE_TEXTS),
    "APEv2 before ID3v1": ("mp3", lambda audio: audio + APE + V1, V1_TEXTS | APE_TEXTS),
    "INFO": ("wav", lambda audio: with_chunks(audio, INFO), V1_TEXTS),
    "AIFF": (
        "aiff",
        lambda audio: with_chunks(
            audio,
            *(chunk(*item, "big") for item in [(b"NAME", b"Song"), (b"AUTH", b"Mine\0"), (b"ANNO", b"a note")]),
            order="big",
        ),
        {"TIT2": "Song", "TPE1": "Mine", "COMM": "a note"},
    ),
}


def frames(path: Path) -> dict[str, str]:
    """The frames of a file, as mutagen reads them: by name, the text."""
    mp3 = path.suffix == ".mp3"
    tags = ID3(path, translate=False, load_v1=False) if mp3 else mutagen.File(path).tags
    return {name[:4]: "/".join(map(str, frame.text)) for name, frame in tags.items()}


@pytest.fixture(params=FILES)
def old_file(request: pytest.FixtureRequest, samples: dict[str, bytes], tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A file without an ID3v2 tag, and what its other tags say."""
    sample, make, texts = FILES[request.param]
    path = tmp_path / f"song.{sample}"
    path.write_bytes(make(samples[sample]))
    return path, texts


def test_a_new_tag_copies_the_texts_of_the_old_ones(
    old_file: tuple[Path, dict[str, str]], digest: BytesOf, left_over: ListLeftovers
) -> None:
    path, texts = old_file
    content, audio = path.read_bytes(), digest(path)
    assert write_key(path, A_MINOR)
    found = frames(path)
    found["TYER"] = found.pop("TDRC", "")[:4] or found.get("TYER", "")  # mutagen makes one frame of year and day
    assert {name: found[name] for name in texts if name != "TDAT"} | {"TKEY": found["TKEY"]} == {
        name: text for name, text in texts.items() if name != "TDAT"
    } | {"TKEY": "8A"}
    assert content[12 if path.suffix != ".mp3" else 0 :] in path.read_bytes()  # the others are what they were
    assert digest(path) == audio
    assert left_over() == []


def test_other_programs_still_show_it(old_file: tuple[Path, dict[str, str]]) -> None:
    taglib = pytest.importorskip("taglib")
    path, texts = old_file
    write_key(path, A_MINOR)
    with taglib.File(path) as file:
        tags = {name: value[0] for name, value in file.tags.items()}
    names = {"TITLE": "TIT2", "ARTIST": "TPE1", "ALBUM": "TALB", "TRACKNUMBER": "TRCK", "GENRE": "TCON"}
    assert {name: tags.get(name) for name in names} == {name: texts.get(frame) for name, frame in names.items()}
    assert tags["INITIALKEY"] == "8A"
    assert tags.get("DATE", "").startswith(texts.get("TYER", ""))
    assert tags.get("COMMENT") == texts.get("COMM")
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", path, "-f", "ffmetadata", "-"]
    shown = subprocess.run(command, capture_output=True, check=True).stdout.decode(errors="replace")
    assert f"title={texts['TIT2']}\n" in shown
    assert f"artist={texts['TPE1']}\n" in shown
    if path.suffix == ".mp3":
        tag = pytest.importorskip("eyed3").load(path).tag
        assert (tag.title, tag.artist, tag.album) == tuple(texts.get(name) for name in ("TIT2", "TPE1", "TALB"))


def test_undo_and_remove_restore_every_byte(old_file: tuple[Path, dict[str, str]]) -> None:
    path, _ = old_file
    content = path.read_bytes()
    with recorded() as run:
        assert write_key(path, A_MINOR, journal=run)
    assert [undone.error for undone in undo_run(run.number)] == [None]
    assert path.read_bytes() == content
    rules = [FieldRule(), TITLE, COMMENT]
    assert write_key(path, A_MINOR, rules)
    assert write_key(path, Key.parse("Db"), rules)
    assert remove_key(path, rules)
    assert path.read_bytes() == content
    assert not remove_key(path, rules)


def test_a_key_in_front_of_the_title_that_another_tag_has(old_file: tuple[Path, dict[str, str]]) -> None:
    path, texts = old_file
    assert write_key(path, A_MINOR, [TITLE, COMMENT], write=False)
    assert write_key(path, A_MINOR, [TITLE, COMMENT])
    found = frames(path)
    assert found["TIT2"] == f"8A - {texts['TIT2']}"
    assert found["COMM"] == (f"{texts['COMM']} - 8A" if "COMM" in texts else "8A")
    assert found["TPE1"] == texts["TPE1"]
    assert not write_key(path, A_MINOR, [TITLE, COMMENT])


def test_keys_of_other_programs_in_other_tags_stay(samples: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "song.mp3"
    content = samples["mp3"] + id3v1(b"8A - Song", comment=b"8A")
    path.write_bytes(content)
    assert not remove_key(path, [FieldRule(), TITLE, FieldRule("comment")])
    assert path.read_bytes() == content


def test_a_tag_with_more_than_the_other_tags_stays(old_file: tuple[Path, dict[str, str]]) -> None:
    path, texts = old_file
    write_key(path, A_MINOR)
    tags = mutagen.File(path)
    tags.tags.add(mutagen.id3.TCOM(encoding=3, text="somebody"))
    tags.save()
    assert remove_key(path)
    assert read_tags(path).text is None
    assert (frames(path)["TIT2"], frames(path)["TCOM"]) == (texts["TIT2"], "somebody")


def test_a_tag_with_only_the_key_is_removed_with_it(samples: dict[str, bytes], tmp_path: Path) -> None:
    """As stone made it before it looked at the others."""
    path = tmp_path / "song.mp3"
    path.write_bytes(samples["mp3"])
    write_key(path, A_MINOR)
    path.write_bytes(path.read_bytes() + V1)
    assert remove_key(path, [FieldRule(), TITLE, COMMENT])
    assert path.read_bytes() == samples["mp3"] + V1


def test_where_an_id3v2_tag_is_nothing_is_added(samples: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "song.mp3"
    path.write_bytes(samples["mp3"])
    tags = ID3()
    tags.add(mutagen.id3.TPE1(encoding=0, text="Mine"))
    tags.save(path, v2_version=3)
    path.write_bytes(path.read_bytes() + APE + V1)
    assert not write_key(path, A_MINOR, [TITLE])
    assert write_key(path, A_MINOR)
    assert frames(path) == {"TPE1": "Mine", "TKEY": "8A"}


def test_as_mutagen_writes_it(samples: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "song.mp3"
    path.write_bytes(samples["mp3"])
    tags = APEv2()
    tags["Title"], tags["Artist"], tags["Genre"] = "Song", ["A", "B"], "House"
    tags["Track"] = "4"
    tags.save(path)
    write_key(path, A_MINOR)
    assert frames(path) == {"TIT2": "Song", "TPE1": "A/B", "TCON": "House", "TRCK": "4", "TKEY": "8A"}


MANY = [(b"n%04d" % number, b"") for number in range(1001)]


@pytest.mark.parametrize(
    ("kind", "make", "texts"),
    [
        ("mp3", lambda audio: audio + id3v1(), {}),
        ("mp3", lambda audio: audio + id3v1(b"  \0after", year=b"19xx", genre=200), {}),
        ("mp3", lambda audio: audio + id3v1(b"Song", year=b"0", genre=0), {"TIT2": "Song", "TCON": "Blues"}),
        ("mp3", lambda audio: audio + V1[:-1], {}),
        ("mp3", lambda audio: audio + ape((b"Title", b"a"), count=2), {}),
        ("mp3", lambda audio: audio + ape((b"Title", b"a"), count=1 << 31), {}),
        ("mp3", lambda audio: audio + ape((b"Title", b"a"), size=1 << 31), {}),
        ("mp3", lambda audio: audio + ape((b"Title", b"a"), size=0), {}),
        ("mp3", lambda audio: audio + ape((b"Title", b"a"), size=33), {}),
        ("mp3", lambda audio: audio + ape(*MANY, (b"Title", b"a")), {}),
        ("mp3", lambda audio: audio + ape((b"x" * 300, b"a"), (b"Title", b"a")), {}),
        ("mp3", lambda audio: audio + ape((b"Title", b"a" * 70_000), (b"Artist", b"b")), {"TPE1": "b"}),
        ("mp3", lambda audio: audio + ape((b"Title", b"\xff\xfe"), (b"Title", b"two")), {"TIT2": "ÿþ"}),
        ("mp3", lambda audio: audio + ape((b"Title", b"one"), (b"TITLE", b"two")), {"TIT2": "one"}),
        ("mp3", lambda audio: audio + ape((b"Title", "\ufeffa\ufeffb♯ \n".encode())), {"TIT2": "a\ufeffb♯"}),
        ("mp3", lambda audio: audio + ape((b"Year", b"unknown"), (b"Title", b"\0\0")), {}),
        ("mp3", lambda audio: audio + ape((b"Title", b"a"), count=2) + V1, V1_TEXTS),
        ("wav", lambda audio: with_chunks(audio, info((b"INAM", b"\0ab"))), {}),
        ("wav", lambda audio: with_chunks(audio, info((b"INAM", b"a" * 70_000), (b"IART", b"b"))), {"TPE1": "b"}),
        (
            "wav",
            lambda audio: with_chunks(audio, chunk(b"LIST", b"INFOINAM\x01\0\0\0a\0IART\xff\xff\xff\x7fb")),
            {"TIT2": "a"},
        ),
        ("wav", lambda audio: with_chunks(audio, chunk(b"LIST", b"adtl"), chunk(b"LIST", b"INFO")), {}),
        ("aiff", lambda audio: with_chunks(audio, chunk(b"NAME", b"", "big"), order="big"), {}),
    ],
)
def test_damaged_fields_are_ignored(
    kind: str, make: Callable[[bytes], bytes], texts: dict[str, str], samples: dict[str, bytes], tmp_path: Path
) -> None:
    path = tmp_path / f"song.{kind}"
    content = make(samples[kind])
    path.write_bytes(content)
    with path.open("rb") as file:
        assert other_texts(file, kind) == texts
    assert write_key(path, A_MINOR, [FieldRule(), TITLE])
    found = frames(path)
    assert found.pop("TKEY") == "8A"
    title = {"TIT2": f"8A - {texts['TIT2']}"} if "TIT2" in texts else {}
    assert found == texts | title
    assert remove_key(path, [FieldRule(), TITLE])
    assert path.read_bytes() == content


def test_damage_at_random_raises_nothing(old_file: tuple[Path, dict[str, str]]) -> None:
    path, _ = old_file
    content = path.read_bytes()
    chance = random.Random(5)
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(chance.choice([1, 2, 8])):
            damaged[-1 - chance.randrange(400)] = chance.choice([0, 0x7F, 0xFF, chance.randrange(256)])
        path.write_bytes(damaged[: len(damaged) - chance.choice([0, 0, 0, 1, 40, 128])])
        with path.open("rb") as file:
            other_texts(file, path.suffix[1:])
