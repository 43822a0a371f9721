"""The digest of files and audio."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from stonecli.tags.edit.digest import BLOCK, Digest


def blocks(content: bytes | bytearray, size: int = BLOCK) -> Iterator[memoryview]:
    return (memoryview(content)[at : at + size] for at in range(0, len(content), size))


def digest_of(content: bytes | bytearray, size: int = BLOCK) -> bytes:
    digest = Digest()
    assert digest.add_chunk(blocks(content, size), len(content)) == len(content)
    return digest.digest()


@pytest.mark.parametrize("length", [1, BLOCK - 1, BLOCK + 1, 3 * BLOCK + 12345])
def test_every_byte_counts(length: int) -> None:
    chance = random.Random(length)
    content = bytearray(chance.randbytes(length))
    whole = digest_of(content)
    for index in {0, length - 1, *(chance.randrange(length) for _ in range(20))}:
        content[index] ^= 1
        assert digest_of(content) != whole, index
        content[index] ^= 1
    assert digest_of(content[:-1]) != whole
    assert digest_of(content + b"\0") != whole


def test_the_block_size_does_not_change_the_digest() -> None:
    content = random.Random(4).randbytes(2_345_678)
    assert digest_of(content, 1000) == digest_of(content, 70_001) == digest_of(content)


def test_a_copy_is_independent() -> None:
    first = Digest()
    first.add(b"a")
    second = first.copy()
    second.add(b"b")
    assert first.digest() != second.digest()
    first.add(b"b")
    assert first.digest() == second.digest()


def test_the_algorithm_is_xxh3_with_128_bits() -> None:
    """Records of users hold these digests, so the algorithm must not change unnoticed."""
    assert digest_of(b"abc").hex() == "06b05ab6733a618578af5f94892f3950"
