"""A change to a file as data: which bytes go, which come.

Every container module answers with a list of these. The rest of the file is not theirs to touch: what no splice names
is the same byte for byte afterwards. A splice together with the bytes it takes out is all that is needed to go back.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from stonecli.errors import TagError
from stonecli.tags.edit.digest import BLOCK

# Two versions of a tag agree again where so many bytes of the old one are found in the new one, looked for from so many
# places, so far ahead. Pictures that have only moved are thus not kept twice, and the search ends soon.
_PROBE, _PROBES, _REACH = 32, 256, 1 << 16


@dataclass(frozen=True)
class Splice:
    """``length`` bytes at ``offset`` of the old file become ``data``."""

    offset: int
    length: int
    data: bytes


@dataclass(frozen=True)
class Span:
    """``length`` bytes at ``offset`` of a file, not read yet."""

    offset: int
    length: int


class Kept(NamedTuple):
    """``length`` bytes that no splice names: at ``old`` of the old file, at ``new`` of the new one."""

    old: int
    new: int
    length: int


def file_size(file: BinaryIO) -> int:
    """Size of an open file in bytes."""
    return file.seek(0, os.SEEK_END)


def read_at(file: BinaryIO, offset: int, length: int) -> bytes:
    """Exactly ``length`` bytes from ``offset``.

    Raises:
        TagError: the file ends before.
    """
    file.seek(offset)
    data = file.read(length) if length else b""
    if len(data) != length:
        raise TagError("the file is cut short")
    return data


def contains(file: BinaryIO, offset: int, text: bytes) -> bool:
    """Whether ``text``, at most 64 bytes, stands anywhere from ``offset`` to the end of the file."""
    file.seek(offset)
    before = b""
    while block := file.read(BLOCK):
        if text in before + block:
            return True
        before = block[-64:]
    return False


def ordered(splices: Sequence[Splice]) -> list[Splice]:
    """The splices from the start of the file to its end.

    Raises:
        TagError: two of them overlap, as those of a structure that refers to itself.
    """
    result = sorted(splices, key=lambda splice: splice.offset)
    at = 0
    for splice in result:
        if splice.offset < at:
            raise TagError("two changes overlap")
        at = splice.offset + splice.length
    return result


def both_ways(file: BinaryIO, splices: Sequence[Splice]) -> tuple[list[Splice], list[Splice]]:
    """The same change of the file in splices that hold only what differs, and the splices that take it back."""
    there: list[Splice] = []
    back: list[Splice] = []
    growth = growth_there = 0
    for splice in ordered(splices):
        start = splice.offset + growth
        for undo in _differences(read_at(file, splice.offset, splice.length), splice.data, start):
            data = splice.data[undo.offset - start :][: undo.length]
            there.append(Splice(undo.offset - growth_there, len(undo.data), data))
            back.append(undo)
            growth_there += len(data) - len(undo.data)
        growth += len(splice.data) - splice.length
    return there, back


def kept(splices: Sequence[Splice], size: int) -> Iterator[Kept]:
    """What the splices leave of an old file of ``size`` bytes, in order."""
    at = growth = 0
    for splice in ordered(splices):
        if splice.offset > at:
            yield Kept(at, at + growth, splice.offset - at)
        at = splice.offset + splice.length
        growth += len(splice.data) - splice.length
    if size > at:
        yield Kept(at, at + growth, size - at)


def is_spliced(new: BinaryIO, old: BinaryIO, splices: Sequence[Splice], known: Sequence[Kept] = ()) -> bool:
    """Whether the file ``new`` is, byte for byte, what the splices make of the file ``old``.

    What is ``known`` to be the same is not read again.
    """
    size = file_size(old)
    growth = 0
    for splice in ordered(splices):
        new.seek(splice.offset + growth)
        if splice.offset + splice.length > size or new.read(len(splice.data)) != splice.data:
            return False
        growth += len(splice.data) - splice.length
    ranges = kept(splices, size)
    return file_size(new) == size + growth and all(is_same_range(old, new, part, known) for part in ranges)


def is_same_range(old: BinaryIO, new: BinaryIO, part: Kept, known: Sequence[Kept] = ()) -> bool:
    """Whether these bytes of two files are there and the same; what is ``known``, in order, to be so is not read."""
    at, end, shift = part.old, part.old + part.length, part.new - part.old
    first = max(0, bisect_right(known, at, key=lambda same: same.old) - 1)
    for place in range(first, len(known)):
        start, known_end = known[place].old, known[place].old + known[place].length
        if start >= end:
            break
        if known[place].new - start == shift and known_end > at:
            if not _is_same(old, at, new, at + shift, start - at):
                return False
            at = known_end
    return _is_same(old, at, new, at + shift, end - at)


def _is_same(first: BinaryIO, first_offset: int, second: BinaryIO, second_offset: int, length: int) -> bool:
    return sum(map(len, same_blocks(first, first_offset, second, second_offset, length))) == max(0, length)


def same_blocks(
    first: BinaryIO, first_offset: int, second: BinaryIO, second_offset: int, length: int
) -> Iterator[memoryview]:
    """What is the same, byte for byte, in a range of two files, up to the block in which they differ or one ends.

    Each block is overwritten by the next one.
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
    """The bytes of a range, as far as the file has whole blocks; each block is overwritten by the next one."""
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
    """The splices that turn ``new``, which stands at ``offset`` of its file, into ``old``."""
    tail = _common_end(old, new)
    old, new = old[: len(old) - tail], new[: len(new) - tail]
    at_old = at_new = 0
    while True:
        same = _common_start(old, at_old, new, at_new)
        at_old, at_new = at_old + same, at_new + same
        if at_old == len(old) and at_new == len(new):
            return
        next_old, next_new = _agreement(old, at_old, new, at_new)
        yield Splice(offset + at_new, next_new - at_new, old[at_old:next_old])
        at_old, at_new = next_old, next_new


def _agreement(old: bytes, at_old: int, new: bytes, at_new: int) -> tuple[int, int]:
    """Where the two agree again; their ends if that is not to be found."""
    for start in range(at_old, min(len(old) - _PROBE + 1, at_old + _PROBES * _PROBE), _PROBE):
        found = new.find(old[start : start + _PROBE], at_new, at_new + start - at_old + _REACH)
        if found >= 0:
            return start, found
    return len(old), len(new)


def _common_start(first: bytes, first_at: int, second: bytes, second_at: int) -> int:
    """How many bytes are the same from the two places on."""
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


def _common_end(first: bytes, second: bytes) -> int:
    """How many bytes are the same at the two ends."""
    limit = min(len(first), len(second))
    low, high = 0, limit  # the last ``low`` bytes are the same
    while low < high:
        middle = (low + high + 1) // 2
        if first[len(first) - middle : len(first) - low] == second[len(second) - middle : len(second) - low]:
            low = middle
        else:
            high = middle - 1
    return low
