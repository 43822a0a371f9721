"""Splices: edits of a file as data, each one "at this offset, replace this many bytes by these bytes".

Every container module returns a list of splices. All bytes outside them stay the same. The splices, together with the
bytes that they remove, are all that is needed to undo the edit.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from stonecli.errors import TagError
from stonecli.tags.edit.digest import BLOCK

# To find where two versions of a tag match again, up to _PROBES pieces of _PROBE bytes of the old version are searched
# for in the next _MAX_GAP bytes of the new one. Pictures that only moved are thus not stored in the undo journal, and
# the time of the search is limited.
_PROBE, _PROBES, _MAX_GAP = 32, 256, 1 << 16


@dataclass(frozen=True)
class Splice:
    """Replaces ``length`` bytes at ``offset`` of the old file by ``data``."""

    offset: int
    length: int
    data: bytes


@dataclass(frozen=True)
class Span:
    """A range of a file: ``length`` bytes at ``offset``."""

    offset: int
    length: int


class UnchangedRange(NamedTuple):
    """``length`` bytes outside all splices: at offset ``old`` of the old file, at offset ``new`` of the new one."""

    old: int
    new: int
    length: int


def file_size(file: BinaryIO) -> int:
    """Size of an open file in bytes."""
    return file.seek(0, os.SEEK_END)


def read_at(file: BinaryIO, offset: int, length: int) -> bytes:
    """Exactly ``length`` bytes from ``offset``.

    Raises:
        TagError: the file ends earlier.
    """
    file.seek(offset)
    data = file.read(length) if length else b""
    if len(data) != length:
        raise TagError("the file is truncated")
    return data


def contains(file: BinaryIO, offset: int, text: bytes) -> bool:
    """Whether ``text``, at most 64 bytes, occurs between ``offset`` and the end of the file."""
    file.seek(offset)
    before = b""
    while block := file.read(BLOCK):
        if text in before + block:
            return True
        before = block[-64:]
    return False


def ordered(splices: Sequence[Splice]) -> list[Splice]:
    """The splices sorted by offset.

    Raises:
        TagError: two of them overlap, as in a structure that refers to itself.
    """
    result = sorted(splices, key=lambda splice: splice.offset)
    at = 0
    for splice in result:
        if splice.offset < at:
            raise TagError("two changes overlap")
        at = splice.offset + splice.length
    return result


def forward_and_inverse(file: BinaryIO, splices: Sequence[Splice]) -> tuple[list[Splice], list[Splice]]:
    """Minimal splices for the same edit, which hold only the bytes that differ, and the splices that undo it."""
    forward: list[Splice] = []
    inverse: list[Splice] = []
    growth = forward_growth = 0
    for splice in ordered(splices):
        start = splice.offset + growth
        for undo in _differences(read_at(file, splice.offset, splice.length), splice.data, start):
            data = splice.data[undo.offset - start :][: undo.length]
            forward.append(Splice(undo.offset - forward_growth, len(undo.data), data))
            inverse.append(undo)
            forward_growth += len(data) - len(undo.data)
        growth += len(splice.data) - splice.length
    return forward, inverse


def unchanged_ranges(splices: Sequence[Splice], size: int) -> Iterator[UnchangedRange]:
    """The ranges of an old file of ``size`` bytes that the splices do not change, sorted by offset."""
    at = growth = 0
    for splice in ordered(splices):
        if splice.offset > at:
            yield UnchangedRange(at, at + growth, splice.offset - at)
        at = splice.offset + splice.length
        growth += len(splice.data) - splice.length
    if size > at:
        yield UnchangedRange(at, at + growth, size - at)


def is_spliced(
    new: BinaryIO, old: BinaryIO, splices: Sequence[Splice], verified: Sequence[UnchangedRange] = ()
) -> bool:
    """Whether applying the splices to the file ``old`` results in the file ``new``, byte for byte.

    Ranges in ``verified`` are known to be equal and are not read again.
    """
    size = file_size(old)
    growth = 0
    for splice in ordered(splices):
        new.seek(splice.offset + growth)
        if splice.offset + splice.length > size or new.read(len(splice.data)) != splice.data:
            return False
        growth += len(splice.data) - splice.length
    ranges = unchanged_ranges(splices, size)
    return file_size(new) == size + growth and all(is_same_range(old, new, part, verified) for part in ranges)


def is_same_range(old: BinaryIO, new: BinaryIO, part: UnchangedRange, verified: Sequence[UnchangedRange] = ()) -> bool:
    """Whether a range exists in both files with the same bytes. Ranges in ``verified``, sorted, are not read again."""
    at, end, shift = part.old, part.old + part.length, part.new - part.old
    first = max(0, bisect_right(verified, at, key=lambda same: same.old) - 1)
    for index in range(first, len(verified)):
        start, known_end = verified[index].old, verified[index].old + verified[index].length
        if start >= end:
            break
        if verified[index].new - start == shift and known_end > at:
            if not _is_same(old, at, new, at + shift, start - at):
                return False
            at = known_end
    return _is_same(old, at, new, at + shift, end - at)


def _is_same(first: BinaryIO, first_offset: int, second: BinaryIO, second_offset: int, length: int) -> bool:
    return sum(map(len, same_blocks(first, first_offset, second, second_offset, length))) == max(0, length)


def same_blocks(
    first: BinaryIO, first_offset: int, second: BinaryIO, second_offset: int, length: int
) -> Iterator[memoryview]:
    """Blocks of a range as long as they are equal in both files; ends at the first difference or end of file.

    Each block is valid until the next one is requested.
    """
    second.seek(second_offset)
    buffer = bytearray(min(BLOCK, max(0, length)))
    for block in blocks(first, first_offset, length):
        if len(block) < len(buffer):
            buffer = bytearray(len(block))
        if second.readinto(buffer) != len(buffer) or block.obj != buffer:  # type: ignore[attr-defined]
            return
        yield block


def blocks(file: BinaryIO, offset: int, length: int) -> Iterator[memoryview]:
    """The bytes of a range in blocks, up to the first block that the file cannot fill.

    Each block is valid until the next one is requested.
    """
    file.seek(offset)
    buffer = bytearray(min(BLOCK, max(0, length)))
    while length > 0:
        if length < len(buffer):
            buffer = bytearray(length)
        if file.readinto(buffer) != len(buffer):  # type: ignore[attr-defined]
            return
        yield memoryview(buffer)
        length -= len(buffer)


def _differences(old: bytes, new: bytes, offset: int) -> Iterator[Splice]:
    """The splices that turn ``new``, found at ``offset`` of its file, into ``old``."""
    tail = _common_suffix(old, new)
    old, new = old[: len(old) - tail], new[: len(new) - tail]
    at_old = at_new = 0
    while True:
        same = _common_prefix(old, at_old, new, at_new)
        at_old, at_new = at_old + same, at_new + same
        if at_old == len(old) and at_new == len(new):
            return
        next_old, next_new = _next_match(old, at_old, new, at_new)
        yield Splice(offset + at_new, next_new - at_new, old[at_old:next_old])
        at_old, at_new = next_old, next_new


def _next_match(old: bytes, at_old: int, new: bytes, at_new: int) -> tuple[int, int]:
    """The offsets at which the two match again; their lengths if no match was found."""
    for start in range(at_old, min(len(old) - _PROBE + 1, at_old + _PROBES * _PROBE), _PROBE):
        found = new.find(old[start : start + _PROBE], at_new, at_new + start - at_old + _MAX_GAP)
        if found >= 0:
            return start, found
    return len(old), len(new)


def _common_prefix(first: bytes, first_at: int, second: bytes, second_at: int) -> int:
    """The number of equal bytes from the two offsets on."""
    limit = min(len(first) - first_at, len(second) - second_at)
    done, step = 0, 64
    while done < limit and step:
        size = min(step, limit - done)
        if first[first_at + done : first_at + done + size] == second[second_at + done : second_at + done + size]:
            done += size
            step = min(2 * step, BLOCK)
        elif size == 1:
            break
        else:
            step = size // 2
    return done


def _common_suffix(first: bytes, second: bytes) -> int:
    """The number of equal bytes at the two ends."""
    limit = min(len(first), len(second))
    low, high = 0, limit  # the last ``low`` bytes are equal
    while low < high:
        middle = (low + high + 1) // 2
        if first[len(first) - middle : len(first) - low] == second[len(second) - middle : len(second) - low]:
            low = middle
        else:
            high = middle - 1
    return low
