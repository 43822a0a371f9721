"""Damaged files: never a traceback, a hang, or half a change."""

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stonecli.errors import TagError
from stonecli.key import Key
from stonecli.tags import FieldRule, read_tags, remove_key, write_key
from tests.fixture_types import BytesOf, CopySample, ListLeftovers

A_MINOR = Key.parse("8A")
RULES = [FieldRule(), FieldRule("comment", "camelot", "prepend"), FieldRule("title", "musical", "append")]


def attempt(path: Path, content: bytes, digest: Callable[..., Any]) -> bool:
    """Reads and writes whatever ``content`` is; True if it could be written."""
    path.write_bytes(content)
    for act in (lambda: read_tags(path), lambda: write_key(path, A_MINOR, RULES), lambda: remove_key(path, RULES)):
        before = path.read_bytes()
        try:
            act()
        except TagError as error:
            reason = str(error)
        else:
            continue
        assert reason.isprintable()
        assert 5 < len(reason) < 120
        assert path.read_bytes() == before
        return False
    digest(path)  # raises if what was written is not whole
    return True


@pytest.fixture
def tagged(make: CopySample) -> Callable[..., Any]:
    """A sample with a key, a comment and a title in it."""

    def of(sample: str) -> Path:
        path = make(sample)
        write_key(path, Key.parse("3B"), [FieldRule(), FieldRule("comment"), FieldRule("grouping")])
        return path

    return of


def test_cut_off_anywhere(sample: str, tagged: Callable[..., Any], digest: BytesOf, left_over: ListLeftovers) -> None:
    path = tagged(sample)
    content = path.read_bytes()
    chance = random.Random(1)
    for size in [0, 1, 3, 4, 8, 11, 12, 27, 31, *(chance.randrange(len(content)) for _ in range(12))]:
        attempt(path, content[:size], digest)
    assert left_over() == []


def test_bytes_changed_at_random(
    sample: str, tagged: Callable[..., Any], digest: BytesOf, left_over: ListLeftovers
) -> None:
    path = tagged(sample)
    content = path.read_bytes()
    chance = random.Random(2)
    for _ in range(25):
        damaged = bytearray(content)
        for _ in range(chance.choice([1, 1, 2, 8])):
            near = chance.choice([64, 600, len(content)])  # most structure stands at the ends
            at = chance.randrange(min(near, len(content)))
            damaged[at if chance.random() < 0.6 else -1 - at] = chance.choice(
                [0, 0x7F, 0x80, 0xFF, chance.randrange(256)]
            )
        attempt(path, bytes(damaged), digest)
    assert left_over() == []


def test_pieces_removed_doubled_or_zeroed(
    sample: str, tagged: Callable[..., Any], digest: BytesOf, left_over: ListLeftovers
) -> None:
    path = tagged(sample)
    content = path.read_bytes()
    chance = random.Random(3)
    for _ in range(12):
        start = chance.randrange(min(3000, len(content)))
        end = start + chance.choice([1, 2, 4, 8, 100])
        piece = chance.choice([b"", bytes(end - start), content[start:end] * 2, b"\xff" * (end - start)])
        attempt(path, content[:start] + piece + content[end:], digest)
    assert left_over() == []


def test_noise_behind_every_magic(make: CopySample, digest: BytesOf) -> None:
    path = make("mp3")
    chance = random.Random(4)
    magics = [b"ID3\x03\0\0\0\0\x01\0", b"fLaC", b"OggS\0\x02", b"RIFF\x50\0\0\0WAVE", b"FORM\0\0\0\x50AIFF", b"wvpk"]
    magics += [
        b"\0\0\0\x18ftypM4A ",
        b"0&\xb2u\x8ef\xcf\x11\xa6\xd9\0\xaa\0b\xcel",
        b"MAC ",
        b"MPCK",
        b"\xff\xfb\x90\0",
        b"",
    ]
    for magic in magics:
        for size in (0, 7, 80, 5000):
            if attempt(path, magic + chance.randbytes(size), digest):
                assert magic in (b"MAC ", b"MPCK", b"\xff\xfb\x90\0")  # nothing else identifies these containers


def test_nested_atoms_do_not_exhaust_the_stack(make: CopySample, digest: BytesOf) -> None:
    path = make("mp4")
    content = path.read_bytes()
    nest = b""
    for _ in range(5000):
        nest = (8 + len(nest)).to_bytes(4) + b"udta" + nest
    assert not attempt(path, content + (8 + len(nest)).to_bytes(4) + b"moov" + nest, digest)


@pytest.mark.usefixtures("unmeasured")
def test_no_heavy_import() -> None:
    code = "import sys, stonecli.tags; print(sorted({'mutagen', 'numpy', 'torch', 'onnxruntime'} & sys.modules.keys()))"
    root = Path(__file__).parents[2]
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert result.stdout == "[]\n"
