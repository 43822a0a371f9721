"""A copy is verified, or it is not used."""

import io
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stonecli.errors import TagError
from stonecli.tags.edit import verified_copy as module
from stonecli.tags.edit.digest import BLOCK, Digest
from stonecli.tags.edit.splice import Span, Splice, unchanged_ranges
from stonecli.tags.edit.verified_copy import verified_copy
from stonecli.tags.undo.record import digest_outside

SPLICES = [
    Splice(2_000_000, 0, b"put in"),
    Splice(0, 4, b"1234"),
    Splice(100, 50, b""),
    Splice(3_000_000, 0, b"end"),
]


class Disk(io.FileIO):
    """A file that applies ``damage`` to written data, and records the sizes of the writes."""

    def __init__(self, path: Path, damage: Callable[..., Any] = lambda number, data: data) -> None:
        super().__init__(path, "w+b")
        self.damage = damage
        self.sizes: list[int] = []

    def write(self, data: Any, /) -> int:
        data = bytes(data)
        self.sizes.append(len(data))
        return super().write(self.damage(len(self.sizes) - 1, data))


@pytest.fixture
def content() -> bytes:
    return random.Random(1).randbytes(3_000_000)


@pytest.fixture
def old(tmp_path: Path, content: bytes) -> Iterator[BinaryIO]:
    (tmp_path / "old").write_bytes(content)
    with (tmp_path / "old").open("rb") as file:
        yield file


def spliced(content: bytes) -> bytes:
    return b"1234" + content[4:100] + content[150:2_000_000] + b"put in" + content[2_000_000:] + b"end"


@pytest.mark.parametrize("without", ["nothing", "the hint", "the hint's success"])
def test_the_copy_is_the_file_with_the_changes(
    without: str, old: BinaryIO, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WRITEBACK_BYTES", 1 << 20)
    hints = []

    def hint(descriptor: int, offset: int, length: int, advice: int) -> None:
        hints.append((offset, length))
        if without == "the hint's success":
            raise OSError(22, "Invalid argument")

    if without == "the hint":
        monkeypatch.delattr(os, "posix_fadvise", raising=False)
    else:
        monkeypatch.setattr(os, "posix_fadvise", hint, raising=False)
        monkeypatch.setattr(os, "POSIX_FADV_DONTNEED", 4, raising=False)
    digest = Digest()
    with (tmp_path / "new").open("w+b") as copy:
        parts = verified_copy(old, copy, SPLICES, digest)
        assert copy.tell() == len(spliced(content))
    assert (tmp_path / "new").read_bytes() == spliced(content)
    assert parts == list(unchanged_ranges(SPLICES, len(content)))
    spans = [Span(0, 4), Span(100, 50), Span(2_000_000, 0), Span(3_000_000, 0)]
    assert digest.digest() == digest_outside(old, spans, Digest).digest()
    assert hints == ([] if without == "the hint" else [(0, 1 << 20), (1 << 20, 1 << 20)])


@given(
    start=st.integers(0, BLOCK),
    moved=st.integers(0, 100),
    length=st.sampled_from([1, 1000, BLOCK - 1, BLOCK, BLOCK + 1, 6 * BLOCK + 77]),
)
@settings(max_examples=40, deadline=None)
def test_the_digest_does_not_depend_on_the_offset_of_a_chunk(
    start: int, moved: int, length: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The blocks of the copy are aligned to the file, those of undo to the chunk."""
    content = random.Random(length).randbytes(start + length)
    folder = tmp_path_factory.mktemp("digest")
    (folder / "old").write_bytes(content)
    digest = Digest()
    with (folder / "old").open("rb") as file, (folder / "new").open("w+b") as copy:
        assert verified_copy(file, copy, [Splice(0, start, bytes(moved))], digest)
    with (folder / "new").open("rb") as copy:
        assert copy.read() == bytes(moved) + content[start:]
        assert digest.digest() == digest_outside(copy, [Span(0, moved)], Digest).digest()


def test_blocks_are_aligned_to_those_of_the_system(old: BinaryIO, tmp_path: Path) -> None:
    disk = Disk(tmp_path / "new")
    with io.BufferedRandom(disk) as copy:
        verified_copy(old, copy, [Splice(5, 0, b"moved")])
    assert disk.sizes[2:] == [BLOCK - 10] + [BLOCK] * 10 + [3_000_005 - 11 * BLOCK]


def test_every_damaged_write_is_found(old: BinaryIO, content: bytes, tmp_path: Path) -> None:
    """A bit that flips, or a block that is dropped: all but the few bytes of the changes, which the caller reads."""
    changes = {b"1234", b"put in", b"end"}
    whole = Disk(tmp_path / "new")
    with io.BufferedRandom(whole) as copy:
        verified_copy(old, copy, SPLICES)
    seen = 0
    for damaged in range(len(whole.sizes)):
        for harm in (
            lambda data: bytes([data[0] ^ 1]) + data[1:],
            lambda data: data[:-1] + b"\0",
            lambda data: bytes(len(data)),
        ):
            original: list[tuple[bytes, bytes]] = []

            def damage(
                number: int,
                data: bytes,
                harm: Callable[..., Any] = harm,
                damaged: int = damaged,
                original: list[tuple[bytes, bytes]] = original,
            ) -> bytes:
                if number != damaged:
                    return data
                original.append((data, harm(data)))
                return original[0][1]

            with io.BufferedRandom(Disk(tmp_path / "new", damage)) as copy:
                parts = verified_copy(old, copy, SPLICES)
            ((before, after),) = original
            if before != after and before not in changes:
                assert parts is None, (damaged, len(before))
                seen += 1
    assert seen > 30


def test_a_disk_that_accepts_short_writes(old: BinaryIO, content: bytes, tmp_path: Path) -> None:
    disk = Disk(tmp_path / "new", lambda number, data: data[: max(1, len(data) // 2)])
    with io.BufferedRandom(disk) as copy:
        assert verified_copy(old, copy, SPLICES)
    assert (tmp_path / "new").read_bytes() == spliced(content)


def test_a_full_disk_is_an_error_and_not_a_wrong_copy(old: BinaryIO, tmp_path: Path) -> None:
    def full(number: int, data: bytes) -> bytes | None:
        if number == 7:
            raise OSError(28, "No space left on device")
        return data[: len(data) // 2] if number == 6 else data

    with io.BufferedRandom(Disk(tmp_path / "new", full)) as copy, pytest.raises(OSError, match="No space left"):
        verified_copy(old, copy, SPLICES)


def test_a_file_truncated_during_the_read_is_an_error(old: BinaryIO, tmp_path: Path) -> None:
    def cut(number: int, data: bytes) -> bytes:
        if number == 8:
            os.truncate(tmp_path / "old", 2_100_000)
        return data

    with io.BufferedRandom(Disk(tmp_path / "new", cut)) as copy:
        assert verified_copy(old, copy, SPLICES) is None


@pytest.mark.parametrize("is_right", [True, False])
def test_a_clone_is_patched_and_compared(
    is_right: bool, old: BinaryIO, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Btrfs and XFS, where the copy shares the blocks of the file."""

    def clone(file: BinaryIO, copy: Disk) -> bool:
        file.seek(0)
        copy.write(file.read() if is_right else file.read().replace(content[2_500_000:2_500_010], bytes(10)))
        return True

    monkeypatch.setattr(module, "_clone", clone)
    disk = Disk(tmp_path / "new")
    with io.BufferedRandom(disk) as copy:
        parts = verified_copy(old, copy, [Splice(7, 2, b"ab"), Splice(0, 1, b"c")])
    if not is_right:
        assert parts is None
        return
    assert parts == list(unchanged_ranges([Splice(0, 1, b"c"), Splice(7, 2, b"ab")], len(content)))
    assert disk.sizes == [len(content), 1, 2]
    assert (tmp_path / "new").read_bytes() == b"c" + content[1:7] + b"ab" + content[9:]


def test_moved_ranges_are_not_cloned(old: BinaryIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_clone", lambda file, copy: pytest.fail("cloned"))
    with (tmp_path / "new").open("w+b") as copy:
        assert verified_copy(old, copy, SPLICES)


def test_changes_that_overlap_are_refused(old: BinaryIO, tmp_path: Path) -> None:
    with (tmp_path / "new").open("w+b") as copy, pytest.raises(TagError, match="overlap"):
        verified_copy(old, copy, [Splice(0, 5, b""), Splice(4, 1, b"xx")])
