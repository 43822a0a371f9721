"""The digest of everything in a file that an edit of its tags must not change: first of all, the audio."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import BinaryIO

from stonecli.errors import TagError
from stonecli.tags.edit.digest import AnyDigest, Digest
from stonecli.tags.edit.splice import Span, UnchangedRange, blocks, is_same_range
from stonecli.tags.formats.containers import CONTAINERS


def audio_digest(file: BinaryIO, container: str, kind: Callable[[], AnyDigest] = Digest) -> bytes:
    """Digest of the audio payload, equal before and after an edit of the tags; memory use is constant.

    Raises:
        TagError: the structure of the file is damaged or truncated.
    """
    digest = kind()
    for piece in CONTAINERS[container].editor.payload(file, container):
        if isinstance(piece, Span):
            digest.add(b"span" + piece.length.to_bytes(8))
            if digest.add_chunk(blocks(file, piece.offset, piece.length), piece.length) != piece.length:
                raise TagError("the file is truncated")
        else:
            digest.add(b"data" + len(piece).to_bytes(8) + piece)
    return digest.digest()


def is_same_audio(old: BinaryIO, new: BinaryIO, container: str, verified: Sequence[UnchangedRange] = ()) -> bool:
    """Whether two files of one container have the same audio payload; faster than comparing digests.

    Ranges in ``verified``, sorted, are known to be equal and are not read again.

    Raises:
        TagError: the structure of a file is damaged or truncated.
    """
    editor = CONTAINERS[container].editor
    for one, other in zip_longest(editor.payload(old, container), editor.payload(new, container)):
        if isinstance(one, Span) and isinstance(other, Span):
            part = UnchangedRange(one.offset, other.offset, one.length)
            if one.length != other.length or not is_same_range(old, new, part, verified):
                return False
        elif one != other:
            return False
    return True
