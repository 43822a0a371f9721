from collections.abc import Callable
from pathlib import Path

import pytest

from stonecli.cache.content_hash import hash_content
from stonecli.key import Key
from stonecli.tags import FieldRule, write_key

Song = Callable[..., Path]
A_MINOR = Key.parse("Am")


@pytest.mark.parametrize("container", ["mp3", "flac", "ogg vorbis", "opus", "m4a aac", "wav 16 bit", "aiff", "wma"])
def test_the_content_hash_survives_moving_and_tagging(song: Song, container: str) -> None:
    path = song(container)
    content_hash = hash_content(path)
    assert content_hash is not None
    write_key(path, A_MINOR, [FieldRule(), FieldRule("comment", "camelot", "prepend")])
    path = path.rename(path.with_name("elsewhere"))
    assert hash_content(path) == content_hash
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 1
    path.write_bytes(content)
    assert hash_content(path) != content_hash


def test_the_content_hash_of_a_file_without_tags(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"RF64" + bytes(100))
    first = hash_content(path)
    path.write_bytes(b"RF64" + bytes(99) + b"1")
    assert None is not first != hash_content(path) is not None
    assert hash_content(tmp_path / "nothing") is None
