import io

import pytest

from stonecli.errors import TagError
from stonecli.tags.formats.sniff import id3v2_end, id3v2_length, sniff
from tests.fixture_types import CopySample

ID3 = b"ID3\x03\x00\x00\x00\x00\x00\x0a" + bytes(10)
FRAME = b"\xff\xfb\x90\x00" + bytes(413)  # MPEG 1 layer 3, 128 kbit/s, 44.1 kHz: 417 bytes


def test_samples_are_recognized_by_content(sample: str, make: CopySample) -> None:
    names = {"alac": "mp4", "faststart": "mp4"}
    with make(sample).open("rb") as file:
        assert sniff(file) == names.get(sample, sample)


@pytest.mark.parametrize(
    ("content", "container"),
    [
        (FRAME * 3, "mp3"),
        (FRAME, "mp3"),  # a single frame
        (FRAME * 2 + FRAME[:100], "mp3"),  # cut short
        (ID3 + FRAME * 3, "mp3"),
        (ID3 + ID3 + FRAME * 3, "mp3"),
        (ID3 + bytes(5000) + FRAME * 3, "mp3"),  # padding that the tag does not know of
        (FRAME + b"TAG" + bytes(125), "mp3"),
        (FRAME + b"APETAGEX" + bytes(24), "mp3"),
        (b"\xff\xf3\x40\xc0" + bytes(100), "mp3"),  # MPEG 2 layer 3, 32 kbit/s, 22.05 kHz: 104 bytes
        (ID3 + b"fLaC" + bytes(60), "flac"),
        (ID3 + b"MP+\x07" + bytes(60), "musepack"),
        (b"MPCK" + bytes(60), "musepack"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "wav"),
        (b"FORM\0\0\0\x24AIFC", "aiff"),
    ],
)
def test_formats_are_recognized(content: bytes, container: str) -> None:
    assert sniff(io.BytesIO(content)) == container


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (ID3, "nothing follows"),
        (ID3[:-3], "nothing follows"),
        (b"RF64\xff\xff\xff\xffWAVE", "RF64"),
        (b"ADIF" + bytes(60), "raw AAC"),
        (b"\xff\xf1\x50\x80\x02\x1f\xfc" * 9, "raw AAC"),
        (ID3 + b"\xff\xf1\x50\x80\x02\x1f\xfc" * 9, "raw AAC"),
        (ID3 + b"RIFF\x24\0\0\0WAVEfmt ", "precedes the file"),
        (b"ID3\x03\x00\x00\xff\x00\x00\x0a" + FRAME * 3, "damaged"),
        (b"OggS" + bytes(24) + b"\x80theora", "first stream"),
        (b"APETAGEX" + FRAME * 3, "start of a file"),
        (b"RIFF\x24\0\0\0AVI LIST", "not a music format"),
        (b"FORM\0\0\0\x248SVX", "not a music format"),
        (b"%PDF-1.7" + bytes(500), "not a music format"),
        (FRAME + bytes(1000), "not a music format"),  # one header by chance
        (b"\xff" * 5000, "not a music format"),
        (b"caff" + bytes(60), "not a music format"),
    ],
)
def test_refused(content: bytes, reason: str) -> None:
    with pytest.raises(TagError, match=reason):
        sniff(io.BytesIO(content))


def test_length_of_an_id3_tag() -> None:
    assert id3v2_length(b"ID3\x03\x00\x00\x00\x00\x02\x01") == 10 + 257
    assert id3v2_length(b"ID3\x04\x00\x10\x00\x00\x00\x05") == 10 + 5 + 10  # with a footer
    assert id3v2_length(b"ID3\x03\x00\x00\x00\x00\x80\x01") == 0
    assert id3v2_length(b"ID3") == id3v2_length(b"fLaC" + bytes(6)) == 0
    assert id3v2_end(io.BytesIO(ID3 + ID3 + b"x")) == 40
