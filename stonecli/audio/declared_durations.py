"""Checks of the duration that a file declares, for formats in which libsndfile ignores or misreads it.

Each check reads a few blocks of the file.
"""

from __future__ import annotations

import itertools
import os
import re
import struct
from dataclasses import dataclass
from typing import BinaryIO

from stonecli.errors import AudioError

TRUNCATION_TOLERANCE = 0.01  # share of the declared length that may be missing
_STREAMED_SIZES = (0, 0x7FFFFFFF, 0x7FFFF000, 0xFFFFFFFF)  # data sizes of programs that could not seek back
_UNKNOWN_SIZE = 1 << 62  # 64-bit sizes from here on mean "unknown"
_READ_BYTES = 1 << 16  # read at one offset; no Ogg page is longer
# Positions in the file, 0 to 1. Not evenly spaced: copies of one recording, concatenated, could look like a longer one.
_PROBES = (0.16, 0.3, 0.61, 0.91)

# MPEG audio, layer III. Free-format frames are not matched: their header does not give their length.
_FRAME = re.compile(
    rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb][%b]" % b"".join(rb"\x%x0-\x%xb" % (index, index) for index in range(1, 15))
)
_LENGTH_HEADER = re.compile(rb"Xing|Info|VBRI")
_KBITS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)  # of MPEG-1
_KBITS_LOW = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)  # of MPEG-2 and 2.5
_RATES = (44100, 48000, 32000)  # of MPEG-1; half of that in MPEG-2, a quarter in MPEG-2.5
_MIN_CHAIN = 3  # consecutive frames; fewer may be a coincidence in other data
_MP3_SLACK = 8192  # bytes after the audio that may be something other than audio or a known tag


@dataclass(frozen=True)
class _ChunkLayout:
    """The chunk structure of a container.

    Attributes:
        first: offset of the first chunk.
        samples: name of the chunk with the samples.
        header: struct format of a chunk's name and size.
        step: chunks are padded to a multiple of this many bytes.
        counted: bytes of the header that are included in the size.
    """

    first: int
    samples: bytes
    header: str
    step: int = 1
    counted: int = 0


_WAV = _ChunkLayout(12, b"data", "<4sI", step=2)
_CONTAINERS = {
    b"RIFF": _WAV,
    b"RF64": _WAV,
    b"BW64": _WAV,
    b"FORM": _ChunkLayout(12, b"SSND", ">4sI", step=2),
    b"riff": _ChunkLayout(40, b"data" + bytes.fromhex("f3acd3118cd100c04f8edb8a"), "<16sq", step=8, counted=24),  # W64
    b"caff": _ChunkLayout(8, b"data", ">4sq"),
}
_AU = {b".snd": ">II", b"dns.": "<II"}


def has_zero_length(file: BinaryIO) -> bool:
    """Whether the file is a WAV or AIFF that declares 0 bytes of samples but has some: its recorder was interrupted.

    libsndfile reads no samples from it; ffmpeg reads all that follow.

    Raises:
        AudioError: the file (WAV, AIFF, RF64, W64, AU or CAF) is shorter than the size of the samples that it declares.
            libsndfile does not report that.
    """
    position, size = _declared_samples(file) or (0, -1)
    available = file.seek(0, os.SEEK_END) - position
    is_known = size not in _STREAMED_SIZES and 0 < size < _UNKNOWN_SIZE
    if is_known and size - available > max(4096, TRUNCATION_TOLERANCE * size):
        raise AudioError(f"truncated ({available} of {size} bytes of audio); re-rip or re-download it")
    file.seek(0)
    return size == 0 and available > 0 and file.read(4) in (b"RIFF", b"FORM")


def _declared_samples(file: BinaryIO) -> tuple[int, int] | None:
    """Offset and declared size in bytes of the samples of an uncompressed file; None for other formats."""
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
        position += max(0, min(size, _UNKNOWN_SIZE)) + -size % container.step
    return None


def is_chained_ogg(file: BinaryIO) -> bool:
    """Whether an Ogg file is chained: several recordings in a row, of which libsndfile reads only the first.

    The pages at both ends and at a few offsets between them are compared, because the last recording may have the same
    serial number as the first. Within one recording, all streams start at its start, and each numbers its pages.
    """
    end = file.seek(0, os.SEEK_END)
    offsets = sorted({0, *(int(end * share) for share in _PROBES), max(0, end - _READ_BYTES)})
    last_page: dict[int, int] = {}  # serial number of a stream -> number of its last page
    is_start = True
    for offset, next_offset in itertools.pairwise([*offsets, end]):
        file.seek(offset)
        data = file.read(min(_READ_BYTES, next_offset - offset))
        for page in re.finditer(rb"OggS\0([\0-\7]).{8}(.{4})(.{4})", data, re.DOTALL):
            starts_stream = page[1][0] & 2 != 0
            is_start = is_start and starts_stream
            stream, number = (int.from_bytes(page[part], "little") for part in (2, 3))
            is_known = stream in last_page and number > last_page[stream]
            if not is_start and (starts_stream or not is_known):
                return True
            last_page[stream] = number
    return False


def is_mp3_without_length(file: BinaryIO) -> bool:
    """Whether an MP3 has no Xing, Info or VBRI header, or one that declares too little, as in concatenated files.

    libsndfile stops at the declared length. Without a header it estimates the length from the first frame's bit rate,
    and stops there: in a file with a variable bit rate, that may be after a sixth of the recording.
    """
    position = _id3_end(file)
    end = _trailing_tags_start(file)
    file.seek(position)
    start = file.read(_READ_BYTES)
    offset = _first_frame(start)
    if offset is None:  # free format, or layer I or II
        return _LENGTH_HEADER.search(start[:_MP3_SLACK]) is None
    size = _frame_size(start[offset:])
    header = _LENGTH_HEADER.search(start, offset, offset + 200)
    if header is None:
        return True
    frames, declared = _declared_counts(header[0], start[header.end() :])
    audio = end - position - offset
    if frames <= 1 or (declared and _exceeds(audio, declared)):
        return True
    following = start[offset + size :]  # the frame with the header may have another bit rate than all others
    is_constant = header[0] == b"Info" and _FRAME.match(following)
    return _exceeds(audio, frames * (_frame_size(following) + 1 if is_constant else _max_frame_size(start[offset:])))


def ends_with_whole_frame(file: BinaryIO) -> bool:
    """Whether the audio of an MP3 ends at the end of a frame, as after trimming by a program.

    A file that ends within a frame, as after an interrupted download, is damaged.
    """
    end = _trailing_tags_start(file)
    start = max(_id3_end(file), end - _READ_BYTES)
    file.seek(start)
    data = file.read(max(0, end - start))
    dead_ends: set[int] = set()
    for found in _FRAME.finditer(data, 0, len(data)):
        chain: list[int] = []
        position = found.start()
        while position not in dead_ends and (header := _FRAME.match(data, position)):
            chain.append(position)
            position += _frame_size(header[0])
        if position == len(data) and len(chain) >= _MIN_CHAIN:
            return True
        dead_ends.update(chain)
    return False


def _exceeds(size: int, declared: int) -> bool:
    return size > declared * (1 + TRUNCATION_TOLERANCE) + _MP3_SLACK


def _declared_counts(kind: bytes, content: bytes) -> tuple[int, int]:
    """The numbers of frames and bytes that a Xing, Info or VBRI header declares; 0 if it does not declare them."""
    if len(content) < 14:
        return 0, 0
    if kind == b"VBRI":  # after version, delay and quality
        size, frames = struct.unpack_from(">II", content, 6)
        return frames, size
    flags, *numbers = struct.unpack_from(">III", content)
    frames = numbers.pop(0) if flags & 1 else 0
    return frames, numbers[0] if flags & 2 else 0


def _first_frame(start: bytes) -> int | None:
    """Offset of the first layer III frame that a frame of the same kind follows; any bytes may look like one frame."""
    for found in _FRAME.finditer(start):
        offset = found.start()
        after = start[offset + _frame_size(found[0]) :][:3]
        if _FRAME.match(after) and (after[1] | 1, after[2] & 0x0C) == (found[0][1] | 1, found[0][2] & 0x0C):
            return offset
    return None


def _frame_size(header: bytes) -> int:
    """Length in bytes of the layer III frame with this header, with its padding byte if it has one."""
    return _size_at(header, header[2] >> 4) + (header[2] >> 1 & 1)


def _max_frame_size(header: bytes) -> int:
    """Length in bytes of the longest frame in a recording with frames of this kind."""
    return _size_at(header, 14) + 1


def _size_at(header: bytes, index: int) -> int:
    is_mpeg1 = header[1] & 0x08 != 0
    divisor = 1 if is_mpeg1 else 2 if header[1] & 0x10 else 4
    bits = (_KBITS if is_mpeg1 else _KBITS_LOW)[index - 1] * 1000
    return (144 if is_mpeg1 else 72) * bits * divisor // _RATES[header[2] >> 2 & 3]


def _id3_end(file: BinaryIO) -> int:
    """Offset of the first byte after the ID3v2 tags at the start of the file."""
    position = 0
    while True:
        file.seek(position)
        head = file.read(10)
        if len(head) < 10 or not head.startswith(b"ID3"):
            return position
        position += 10 + _syncsafe(head[6:]) + (10 if head[5] & 0x10 else 0)


def _trailing_tags_start(file: BinaryIO) -> int:
    """Offset of the tags at the end of an MP3: ID3v1, APEv2, Lyrics3 v2 and appended ID3v2.4."""
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
    """The value of a synchsafe integer: four bytes with seven bits each."""
    return (number[0] & 0x7F) << 21 | (number[1] & 0x7F) << 14 | (number[2] & 0x7F) << 7 | number[3] & 0x7F
