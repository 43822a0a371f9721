"""The digest of earlier versions: any change is detected, in long chunks and in short ones."""

import hashlib
import random

import numpy as np
import pytest

from stonecli.tags.edit.digest import BLOCK
from stonecli.tags.edit.old_digest import LONG, OldDigest

ROW = 1 << 16


def digest_of(content: bytes | bytearray, block: int = BLOCK) -> bytes:
    digest = OldDigest()
    blocks = (memoryview(content)[at : at + block] for at in range(0, len(content), block))
    assert digest.add_chunk(blocks, len(content)) == len(content)
    return digest.digest()


@pytest.mark.parametrize("length", [1, ROW, LONG - 1, LONG, LONG + 1, 3 * BLOCK + LONG, LONG + ROW + 12345])
@pytest.mark.parametrize("kind", ["noise", "silence"])
def test_every_byte_counts(length: int, kind: str) -> None:
    chance = random.Random(length)
    content = bytearray(chance.randbytes(length) if kind == "noise" else length)
    whole = digest_of(content)
    edges = {0, 7, 8, ROW - 1, ROW, BLOCK - 1, BLOCK, LONG - 1, LONG, length // ROW * ROW, length - 2, length - 1}
    for index in {index for index in edges if 0 <= index < length} | {chance.randrange(length) for _ in range(20)}:
        for bit in (1, 1 << 7):
            content[index] ^= bit
            assert digest_of(content) != whole, (index, bit)
            content[index] ^= bit
    assert digest_of(content) == whole
    assert digest_of(content[:-1]) != whole
    assert digest_of(content + b"\0") != whole


@pytest.mark.parametrize("shift", [ROW, 2 * ROW, BLOCK, 5 * BLOCK])
@pytest.mark.parametrize("bit", [1, 1 << 7])
def test_changes_of_one_column_do_not_cancel_out(shift: int, bit: int) -> None:
    content = bytearray(random.Random(3).randbytes(3 << 20))
    whole = digest_of(content)
    for index in (7, 100_007):  # the highest bit of a number of 64 bits, which no sum and no product carries on
        content[index] ^= bit
        content[index + shift] ^= bit
        assert digest_of(content) != whole
        content[index] ^= bit
        content[index + shift] ^= bit
    swapped = bytearray(content)
    swapped[:ROW], swapped[shift : shift + ROW] = content[shift : shift + ROW], content[:ROW]
    assert digest_of(swapped) != whole


@pytest.mark.parametrize("how", ["louder", "inverted", "channels swapped", "backwards", "a sample later", "unsigned"])
def test_audio_edited_in_place_changes_the_digest(how: str) -> None:
    sound = np.random.default_rng(1).integers(-8000, 8000, (1 << 20, 2)).astype(np.int16)
    changed = {
        "louder": sound * np.int16(2),
        "inverted": -sound,
        "channels swapped": sound[:, ::-1],
        "backwards": sound[::-1],
        "a sample later": np.roll(sound, 1, axis=0),
        "unsigned": sound ^ np.int16(-(1 << 15)),
    }[how]
    assert digest_of(changed.tobytes()) != digest_of(sound.tobytes())


def test_the_old_digest_does_not_depend_on_the_block_size() -> None:
    content = random.Random(4).randbytes(2_345_678)
    assert digest_of(content, ROW) == digest_of(content, 5 * ROW) == digest_of(content)


def test_a_copy_of_a_digest_is_independent() -> None:
    first = OldDigest()
    first.add(b"a")
    second = first.copy()
    second.add(b"b")
    assert first.digest() != second.digest()
    first.add(b"b")
    assert first.digest() == second.digest()


def test_short_chunks_are_hashed_by_sha_256() -> None:
    assert digest_of(b"abc") == hashlib.sha256(b"abc").digest()
