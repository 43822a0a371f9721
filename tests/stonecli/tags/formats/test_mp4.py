"""MP4: chunk offsets that follow the audio, atoms that stay, files that are refused."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import pytest
from mutagen.mp4 import MP4, MP4Cover, MP4FreeForm

from stonecli.errors import TagError
from stonecli.key import Key
from stonecli.tags import FieldRule, read_tags, remove_key, write_key
from tests.fixture_types import BytesOf, CopySample, MakePicture

A_MINOR = Key.parse("8A")
PREFIX = "----:com.apple.iTunes:"
KINDS = ["mp4", "alac", "faststart"]


def tags_of(path: Path) -> Any:
    return MP4(path).tags


def atom(name: bytes, content: bytes) -> bytes:
    return (8 + len(content)).to_bytes(4) + name + content


def top(content: bytes) -> list[tuple[bytes, int, int]]:
    """Name, start and end of every atom of the file."""
    at, found = 0, []
    while at < len(content):
        length = int.from_bytes(content[at : at + 4]) or len(content) - at
        if length == 1:
            length = int.from_bytes(content[at + 8 : at + 16])
        found.append((content[at + 4 : at + 8], at, at + length))
        at += length
    return found


def rebuilt(content: bytes, name: bytes, change: Callable[..., Any]) -> bytes:
    """The file with the content of one top-level atom changed; only right if no audio moves."""
    parts = []
    for found, start, end in top(content):
        parts.append(atom(name, change(content[start + 8 : end])) if found == name else content[start:end])
    return b"".join(parts)


@pytest.mark.parametrize("kind", KINDS)
def test_every_other_item_stays(
    kind: str, make: CopySample, digest: BytesOf, decoded: BytesOf, png: MakePicture
) -> None:
    path = make(kind)
    opened: Any = MP4(path)
    opened.tags.update(
        {
            "\xa9nam": ["Frühling"],
            "\xa9cmt": ["one", "two"],
            "trkn": [(3, 12)],
            "tmpo": [128],
            "cpil": True,
            "covr": [MP4Cover(png(90_000), MP4Cover.FORMAT_PNG)],
            "----:com.serato.dj:markers": [MP4FreeForm(bytes(range(256)), 0)],
            PREFIX + "replaygain_track_gain": [b"-3.1 dB"],
            PREFIX + "KEY": [b"Cm"],
            "abcd": ["unknown"],
        }
    )
    opened.save(padding=lambda info: 0)
    before, items, detected = digest(path), dict(tags_of(path)), decoded(path)
    rules = [FieldRule(), FieldRule("comment", "camelot", "prepend")]
    for key in (A_MINOR, Key.parse("3B")):
        assert write_key(path, key, rules)
        after = dict(tags_of(path))
        assert after.pop(PREFIX + "initialkey") == [MP4FreeForm(key.camelot.encode())]
        assert after.pop("\xa9cmt") == [f"{key.camelot} - one", "two"]
        assert after.pop(PREFIX + "KEY") == [MP4FreeForm(key.camelot.encode())]
        assert after == {name: value for name, value in items.items() if name not in ("\xa9cmt", PREFIX + "KEY")}
        assert digest(path) == before
        assert decoded(path) == detected
    size = path.stat().st_size
    assert remove_key(path, rules)
    assert path.stat().st_size == size
    assert dict(tags_of(path)) == {name: value for name, value in items.items() if name != PREFIX + "KEY"}


def test_raw_items_stay_as_they_are(make: CopySample) -> None:
    """A numeric genre, doubled atoms, a locale: mutagen would rewrite all of these."""
    path = make("mp4")
    path.write_bytes(without_udta(path.read_bytes()))
    odd = atom(b"gnre", atom(b"data", bytes(8) + b"\x00\x12"))
    odd += atom(b"\xa9ART", atom(b"data", b"\0\0\0\x01\0\0\x15\xc7one")) * 2
    odd += atom(b"zero", b"")
    handler = atom(b"hdlr", bytes(8) + b"mdirappl" + bytes(9))
    lists = atom(b"udta", atom(b"meta", bytes(4) + handler + atom(b"ilst", odd)) + atom(b"name", b"x"))
    path.write_bytes(rebuilt(path.read_bytes(), b"moov", lambda content: content + lists))
    assert write_key(path, A_MINOR)
    content = path.read_bytes()
    assert odd in content
    assert atom(b"name", b"x") in content
    assert content[content.index(odd) + len(odd) :].startswith(
        atom(
            b"----",
            atom(b"mean", bytes(4) + b"com.apple.iTunes")
            + atom(b"name", bytes(4) + b"initialkey")
            + atom(b"data", b"\0\0\0\x01\0\0\0\x008A"),
        )
    )


def without_udta(content: bytes) -> bytes:
    def drop(moov: bytes) -> bytes:
        at = 0
        while at < len(moov):
            length = int.from_bytes(moov[at : at + 4])
            if moov[at + 4 : at + 8] == b"udta":
                return moov[:at] + moov[at + length :]
            at += length
        return moov

    return rebuilt(content, b"moov", drop)


@pytest.mark.parametrize("udta", [b"", atom(b"udta", b""), atom(b"udta", atom(b"abcd", b"x"))])
def test_a_file_without_tags_gets_them(udta: bytes, make: CopySample, digest: BytesOf, decoded: BytesOf) -> None:
    path = make("mp4")  # with moov at the end: taking atoms out of it moves no audio
    path.write_bytes(rebuilt(without_udta(path.read_bytes()), b"moov", lambda content: content + udta))
    before, detected = digest(path), decoded(path)
    assert read_tags(path).text is None
    assert write_key(path, A_MINOR)
    assert tags_of(path)[PREFIX + "initialkey"] == [b"8A"]
    assert (digest(path), decoded(path)) == (before, detected)
    assert path.read_bytes().count(b"abcd") == udta.count(b"abcd")


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_that_grows_moves_the_audio_and_its_offsets(kind: str, make: CopySample, decoded: BytesOf) -> None:
    path = make(kind)
    opened: Any = MP4(path)
    opened.tags["\xa9lyr"] = ["la"]
    opened.save(padding=lambda info: 0)
    detected = decoded(path)
    start = next(start for name, start, _ in top(path.read_bytes()) if name == b"mdat")
    assert write_key(path, A_MINOR, [FieldRule(), FieldRule("grouping")])
    moved = next(start for name, start, _ in top(path.read_bytes()) if name == b"mdat") - start
    assert (moved > 0) == (kind == "faststart")
    assert decoded(path) == detected


def chunk_table(content: bytes) -> bytes:
    """The start of the table of chunk offsets, with its first entry."""
    at = content.index(b"stco")
    return content[at : at + 16]


def test_large_sizes_and_a_last_atom_without_size(make: CopySample, decoded: BytesOf) -> None:
    path = make("faststart")
    content = path.read_bytes()
    (_, start, _) = next(found for found in top(content) if found[0] == b"mdat")
    path.write_bytes(content[:start] + bytes(4) + content[start + 4 :])
    detected = decoded(path)
    assert write_key(path, A_MINOR, [FieldRule(), FieldRule("comment", "camelot", "replace")])
    assert decoded(path) == detected

    path = make("mp4")
    content = path.read_bytes()
    parts = [content[start:end] for _, start, end in top(content)]
    moov = next(part for part in parts if part[4:8] == b"moov")
    parts[parts.index(moov)] = (1).to_bytes(4) + b"moov" + (len(moov) + 8).to_bytes(8) + moov[8:]
    path.write_bytes(b"".join(parts))
    detected = decoded(path)
    assert write_key(path, A_MINOR, [FieldRule(), FieldRule("comment", "camelot", "replace")])
    assert decoded(path) == detected
    top(path.read_bytes())


@pytest.mark.parametrize("name", ["initialkey", "INITIALKEY", "InitialKey"])
def test_the_name_of_the_key_item_in_any_case(name: str, make: CopySample) -> None:
    path = make("mp4")
    opened: Any = MP4(path)
    opened.tags[PREFIX + name] = [b"Cm", b"D"]
    opened.tags[PREFIX + "key"] = [b"E"]
    opened.save()
    assert read_tags(path).text == "Cm"
    write_key(path, A_MINOR)
    tags = tags_of(path)
    assert {key: value for key, value in tags.items() if key.lower() == PREFIX.lower() + "initialkey"} == {
        PREFIX + "initialkey": [b"8A"]
    }
    assert tags[PREFIX + "key"] == [b"8A"]
    remove_key(path)
    assert read_tags(path).text is None


def test_chapters_stay(make: CopySample, tmp_path: Path) -> None:
    chapters = tmp_path / "chapters.txt"
    chapters.write_text(";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=700\ntitle=One\n"
                        "[CHAPTER]\nTIMEBASE=1/1000\nSTART=700\nEND=1500\ntitle=Two\n")  # fmt: skip
    path = tmp_path / "song.m4a"
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    command = [ffmpeg, "-v", "error", "-i", make("faststart"), "-i", chapters, "-map_chapters", "1", "-c", "copy"]
    subprocess.run([*command, "-movflags", "+faststart", path], check=True)

    def listed() -> list[str]:
        show = [ffmpeg, "-v", "error", "-i", path, "-f", "ffmetadata", "-"]
        text = subprocess.run(show, capture_output=True, check=True).stdout.decode()
        return [line for line in text.splitlines() if line.startswith(("START", "END", "title"))]

    before = listed()
    assert "title=Two" in before
    assert write_key(path, A_MINOR, [FieldRule(), FieldRule("comment")])
    assert listed() == before


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: content[:-1], "inconsistent|damaged"),
        (lambda content: content + atom(b"moof", bytes(8)), "fragmented|damaged"),
        (lambda content: content + atom(b"moov", bytes(8)), "one header|damaged|inconsistent"),
        (lambda content: rebuilt(content, b"moov", lambda moov: moov + atom(b"mvex", b"")), "fragmented"),
        (lambda content: content + atom(b"meta", bytes(4) + atom(b"iloc", bytes(8))), "items"),
        (lambda content: content.replace(chunk_table(content), chunk_table(content)[:12] + b"\x7f\0\0\0"), "outside"),
        (lambda content: content.replace(b"mdirappl", b"mdtaappl"), "iTunes"),
    ],
)
def test_a_file_with_an_unknown_structure_is_refused(change: Callable[..., Any], reason: str, make: CopySample) -> None:
    path = make("mp4")
    content = change(path.read_bytes())
    path.write_bytes(content)
    with pytest.raises(TagError, match=reason):
        write_key(path, A_MINOR)
    assert path.read_bytes() == content


def test_text_that_is_not_utf8_is_not_replaced(make: CopySample) -> None:
    path = make("mp4")
    opened: Any = MP4(path)
    opened.tags["\xa9cmt"] = ["AAAA"]
    opened.save()
    content = path.read_bytes().replace(b"AAAA", b"A\xfcAA")
    path.write_bytes(content)
    with pytest.raises(TagError):
        write_key(path, A_MINOR, [FieldRule("comment", "camelot", "prepend")])
    assert path.read_bytes() == content
