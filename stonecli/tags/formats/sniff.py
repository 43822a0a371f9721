"""Detects the container of a file by its content; the file name is not used."""

from __future__ import annotations

from typing import BinaryIO

from stonecli.errors import TagError
from stonecli.tags.edit.splice import Span, file_size
from stonecli.tags.formats.containers import CONTAINERS, MAGIC_BYTES

_REFUSED = {
    b"RF64": "RF64 files have no tag that can be written safely",
    b"BW64": "BW64 files have no tag that can be written safely",
    b"RIFX": "RIFX files have no tag that can be written safely",
    b"ADIF": "raw AAC has no tags that can be written safely",
    b"APETAGEX": "an APE tag at the start of a file is not supported",
    b"ID3": "the ID3 tag at the start is damaged",
}

_SCAN = 256 * 1024  # an MPEG stream must start within this many bytes after the tag
_BITRATES = {  # kbit/s by (MPEG-1?, layer); indices 1..14 of the header field
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # Hz by version bits


def sniff(file: BinaryIO) -> str:
    """The container of an open file: the name of a row of :data:`stonecli.tags.formats.containers.CONTAINERS`.

    Raises:
        TagError: stone cannot read and write the tags of this kind of file.
    """
    offset = id3v2_end(file)
    file.seek(offset)
    head = file.read(MAGIC_BYTES)
    if not head:
        raise TagError("nothing follows the ID3 tag" if offset else "the file is empty")
    for magic, reason in _REFUSED.items():
        if head.startswith(magic):
            raise TagError(reason)
    for container in CONTAINERS.values():
        if container.matches(head):
            if offset and container.id3_followers is None:
                raise TagError("an ID3 tag precedes the file, which this format does not allow")
            return container.name
    if head.startswith(b"OggS"):
        raise TagError("the first stream of the Ogg file is not Vorbis, Opus, FLAC or Speex")
    if head[:1] == b"\xff" and len(head) > 1 and head[1] & 0xF6 == 0xF0:
        raise TagError("raw AAC (ADTS) has no tags that can be written safely")
    if _has_mpeg_frames(file, offset):
        return "mp3"
    raise TagError("not a music format that stone can tag")


def id3v2_end(file: BinaryIO) -> int:
    """The offset of the end of the ID3v2 tags at the start of the file; 0 if there are none."""
    return sum(span.length for span in id3v2_spans(file))


def id3v2_spans(file: BinaryIO) -> list[Span]:
    """The spans of the consecutive ID3v2 tags at the start of the file."""
    found: list[Span] = []
    offset = 0
    while True:
        file.seek(offset)
        length = id3v2_length(file.read(10))
        if not length:
            return found
        found.append(Span(offset, length))
        offset += length


def id3v2_length(header: bytes) -> int:
    """Length in bytes, with header and footer, of the ID3v2 tag that starts with these 10 bytes; 0 if there is none."""
    if len(header) < 10 or header[:3] != b"ID3" or header[3] == 0xFF or any(byte & 0x80 for byte in header[6:10]):
        return 0
    size = header[6] << 21 | header[7] << 14 | header[8] << 7 | header[9]
    return 10 + size + (10 if header[3] == 4 and header[5] & 0x10 else 0)


def _has_mpeg_frames(file: BinaryIO, offset: int) -> bool:
    """Whether there are consecutive MPEG audio frames near ``offset``."""
    size = file_size(file)
    file.seek(offset)
    window = file.read(_SCAN)
    at = window.find(b"\xff")
    while at >= 0:
        if _mpeg_frame_length(window[at : at + 4]) and _frames_follow(file, offset + at, size):
            return True
        at = window.find(b"\xff", at + 1)
    return False


def _frames_follow(file: BinaryIO, at: int, size: int) -> bool:
    """Whether three frames of one kind start at ``at``, or fewer before the end of the audio; the last may be cut."""
    kind = None
    for frame in range(3):
        file.seek(at)
        header = file.read(4)
        if frame and (len(header) < 4 or header[:3] == b"TAG" or header == b"APET"):
            return at <= size or frame > 1
        length = _mpeg_frame_length(header)
        if not length or kind not in (None, header[1]):
            return False
        kind, at = header[1], at + length
    return True


def _mpeg_frame_length(header: bytes) -> int:
    """Length in bytes of the MPEG audio frame with this header; 0 if it is no frame, or in free format."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return 0
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    bitrate, rate, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version == 1 or layer == 4 or bitrate in (0, 15) or rate == 3:
        return 0
    bits = _BITRATES[version == 3, layer][bitrate - 1] * 1000
    hertz = _RATES[version][rate]
    if layer == 1:
        return (12 * bits // hertz + padding) * 4
    samples_by_8 = 72 if layer == 3 and version != 3 else 144
    return samples_by_8 * bits // hertz + padding
