"""What a file's own bytes say of its length, where libsndfile is silent or mistaken: a few looks into it."""

from __future__ import annotations

import itertools
import os
import re
import struct
from dataclasses import dataclass
from typing import BinaryIO

from stonecli.errors import AudioError

TRUNCATION_TOLERANCE = 0.01  # share of the announced length that may be missing
_STREAMED_SIZES = (0, 0x7FFFFFFF, 0x7FFFF000, 0xFFFFFFFF)  # data sizes of programs that could not seek back
_ENDLESS = 1 << 62  # and sizes of 64 bits from which on they stand for no size
_LOOK = 1 << 16  # bytes read at one place; no page of Ogg is longer
_PROBES = (0.16, 0.3, 0.61, 0.91)  # of a file; in equal steps, copies of one recording could look like a longer one

# MPEG audio, layer III. Frames of free format, which have no length, are not looked for.
_FRAME = re.compile(
    rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb][%b]" % b"".join(rb"\x%x0-\x%xb" % (index, index) for index in range(1, 15))
)
_LENGTH_HEADER = re.compile(rb"Xing|Info|VBRI")
_KBITS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)  # of MPEG-1
_KBITS_LOW = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)  # of MPEG-2 and 2.5
_RATES = (44100, 48000, 32000)  # of MPEG-1; half of it in MPEG-2, a quarter in 2.5
_CHAIN = 3  # frames in a row that are hardly there by chance
_MP3_SLACK = 8192  # bytes behind an MP3 that need not be audio, besides the tags that are known


@dataclass(frozen=True)
class _Chunks:
    """How a container is made of chunks.

    Attributes:
        first: where they begin.
        samples: name of the one with the samples.
        header: struct of a chunk's name and size.
        step: of which a chunk's length is a multiple.
        counted: bytes of its header that a size counts.
    """

    first: int
    samples: bytes
    header: str
    step: int = 1
    counted: int = 0


_WAV = _Chunks(12, b"data", "<4sI", step=2)
_CONTAINERS = {
    b"RIFF": _WAV,
    b"RF64": _WAV,
    b"BW64": _WAV,
    b"FORM": _Chunks(12, b"SSND", ">4sI", step=2),
    b"riff": _Chunks(40, b"data" + bytes.fromhex("f3acd3118cd100c04f8edb8a"), "<16sq", step=8, counted=24),  # W64
    b"caff": _Chunks(8, b"data", ">4sq"),
}
_AU = {b".snd": ">II", b"dns.": "<II"}


def has_zero_length(file: BinaryIO) -> bool:
    """Whether the file is a WAV or AIFF with samples of length 0 and yet more bytes: a recorder that was cut off.

    libsndfile finds nothing in it; ffmpeg takes what there is.

    Raises:
        AudioError: the samples of any such file (RF64, W64, AU and CAF as well) are announced to be longer than it is;
            libsndfile would shrug.
    """
    position, size = _announced_samples(file) or (0, -1)
    there = file.seek(0, os.SEEK_END) - position
    is_known = size not in _STREAMED_SIZES and 0 < size < _ENDLESS
    if is_known and size - there > max(4096, TRUNCATION_TOLERANCE * size):
        raise AudioError(f"truncated: {there} of {size} bytes of audio are there")
    file.seek(0)
    return size == 0 and there > 0 and file.read(4) in (b"RIFF", b"FORM")


def _announced_samples(file: BinaryIO) -> tuple[int, int] | None:
    """Where the samples of an uncompressed file begin, and how many bytes they are said to be."""
    file.seek(0)
    start = file.read(36)
    if (order := _AU.get(start[:4])) and len(start) >= 12:
        offset, size = struct.unpack_from(order, start, 4)
        return offset, size
    container = _CONTAINERS.get(start[:4])
    if container is None:
        return None
    position = container.first
    for _ in range(1000):
        file.seek(position)
        header = file.read(struct.calcsize(container.header))
        if len(header) < struct.calcsize(container.header):
            return None
        name, size = struct.unpack(container.header, header)
        size -= container.counted
        position += len(header)
        if name == container.samples:
            if size == 0xFFFFFFFF and start[12:16] == b"ds64":
                (size,) = struct.unpack_from("<Q", start, 28)
            return position, size
        position += max(0, min(size, _ENDLESS)) + -size % container.step
    return None


def is_chained_ogg(file: BinaryIO) -> bool:
    """Whether an Ogg file holds several recordings one behind the other, of which libsndfile reads the first.

    Looked for at its ends and a few places between, for the last one may have the number of the first. Within a
    recording all pages belong to streams that begin at its beginning, and each stream counts its pages.
    """
    end = file.seek(0, os.SEEK_END)
    places = sorted({0, *(int(end * share) for share in _PROBES), max(0, end - _LOOK)})
    numbers: dict[int, int] = {}  # of the last page of each stream
    is_beginning = True
    for place, after in itertools.pairwise([*places, end]):
        file.seek(place)
        data = file.read(min(_LOOK, after - place))
        for page in re.finditer(rb"OggS\0([\0-\7]).{8}(.{4})(.{4})", data, re.DOTALL):
            begins_stream = page[1][0] & 2 != 0
            is_beginning = is_beginning and begins_stream
            stream, number = (int.from_bytes(page[part], "little") for part in (2, 3))
            is_known = stream in numbers and number > numbers[stream]
            if not is_beginning and (begins_stream or not is_known):
                return True
            numbers[stream] = number
    return False


def is_mp3_without_length(file: BinaryIO) -> bool:
    """Whether an MP3 has no Xing, Info or VBRI header, or one that says less than there is: files laid end to end.

    libsndfile stops where the header says. Without one it guesses the length from the first frame's bit rate, and stops
    there: of a file with variable bit rate it may read a sixth.
    """
    position = _end_of_id3(file)
    end = _beginning_of_last_tags(file)
    file.seek(position)
    start = file.read(_LOOK)
    place = _first_frame(start)
    if place is None:  # free format, or layer I or II
        return _LENGTH_HEADER.search(start[:_MP3_SLACK]) is None
    size = _frame_size(start[place:])
    mark = _LENGTH_HEADER.search(start, place, place + 200)
    if mark is None:
        return True
    frames, announced = _announced(mark[0], start[mark.end() :])
    audio = end - position - place
    if frames <= 1 or (announced and _is_more(audio, announced)):
        return True
    following = start[place + size :]  # of a constant bit rate, which may not be that of the frame with the header
    is_constant = mark[0] == b"Info" and _FRAME.match(following)
    return _is_more(audio, frames * (_frame_size(following) + 1 if is_constant else _largest_frame(start[place:])))


def ends_with_whole_frame(file: BinaryIO) -> bool:
    """Whether the audio of an MP3 ends where its last frame does, as when a program trimmed it between two frames.

    A file that was cut at any other byte, as by a broken download, is damaged.
    """
    end = _beginning_of_last_tags(file)
    start = max(_end_of_id3(file), end - _LOOK)
    file.seek(start)
    data = file.read(max(0, end - start))
    dead_ends: set[int] = set()
    for found in _FRAME.finditer(data, 0, len(data)):
        chain: list[int] = []
        position = found.start()
        while position not in dead_ends and (header := _FRAME.match(data, position)):
            chain.append(position)
            position += _frame_size(header[0])
        if position == len(data) and len(chain) >= _CHAIN:
            return True
        dead_ends.update(chain)
    return False


def _is_more(size: int, announced: int) -> bool:
    return size > announced * (1 + TRUNCATION_TOLERANCE) + _MP3_SLACK


def _announced(kind: bytes, content: bytes) -> tuple[int, int]:
    """Frames and bytes by a header, 0 where it says nothing of them."""
    if len(content) < 14:
        return 0, 0
    if kind == b"VBRI":  # version, delay and quality come before
        size, frames = struct.unpack_from(">II", content, 6)
        return frames, size
    flags, *numbers = struct.unpack_from(">III", content)
    frames = numbers.pop(0) if flags & 1 else 0
    return frames, numbers[0] if flags & 2 else 0


def _first_frame(start: bytes) -> int | None:
    """Where the first frame of layer III is that another of its kind follows: by chance any bytes may look like one."""
    for found in _FRAME.finditer(start):
        place = found.start()
        after = start[place + _frame_size(found[0]) :][:3]
        if _FRAME.match(after) and (after[1] | 1, after[2] & 0x0C) == (found[0][1] | 1, found[0][2] & 0x0C):
            return place
    return None


def _frame_size(header: bytes) -> int:
    """Length in bytes of a frame of layer III that begins so."""
    return _size_at(header, header[2] >> 4) + (header[2] >> 1 & 1)  # a byte of padding


def _largest_frame(header: bytes) -> int:
    """Length in bytes of the longest frame of a recording with such frames."""
    return _size_at(header, 14) + 1


def _size_at(header: bytes, index: int) -> int:
    is_first = header[1] & 0x08 != 0  # MPEG-1
    divisor = 1 if is_first else 2 if header[1] & 0x10 else 4
    bits = (_KBITS if is_first else _KBITS_LOW)[index - 1] * 1000
    return (144 if is_first else 72) * bits * divisor // _RATES[header[2] >> 2 & 3]


def _end_of_id3(file: BinaryIO) -> int:
    """Where what comes after the ID3v2 tags at the beginning begins."""
    position = 0
    while True:
        file.seek(position)
        head = file.read(10)
        if len(head) < 10 or not head.startswith(b"ID3"):
            return position
        position += 10 + _syncsafe(head[6:]) + (10 if head[5] & 0x10 else 0)


def _beginning_of_last_tags(file: BinaryIO) -> int:
    """Where the tags at the end of an MP3 begin: ID3v1, APEv2, Lyrics3 v2 and ID3v2.4 that was appended."""
    end = file.seek(0, os.SEEK_END)
    for _ in range(8):
        file.seek(max(0, end - 128))
        tail = file.read(min(128, end))
        if tail.startswith(b"TAG"):
            end -= 128
        elif tail[-32:].startswith(b"APETAGEX"):
            has_header = tail[-9] & 0x80 != 0
            end -= int.from_bytes(tail[-20:-16], "little") + (32 if has_header else 0)
        elif tail.endswith(b"LYRICS200") and tail[-15:-9].isdigit():
            end -= int(tail[-15:-9]) + 15
        elif tail[-10:].startswith(b"3DI"):
            end -= _syncsafe(tail[-4:]) + 20
        else:
            break
        end = max(0, end)
    return end


def _syncsafe(number: bytes) -> int:
    """What four bytes of seven bits stand for."""
    return (number[0] & 0x7F) << 21 | (number[1] & 0x7F) << 14 | (number[2] & 0x7F) << 7 | number[3] & 0x7F
