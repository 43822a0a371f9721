"""The content hash of a recording: a hash of its audio, whatever its name and its tags are."""

from __future__ import annotations

import hashlib

from stonecli.errors import TagError
from stonecli.library.music_file import Source, opened
from stonecli.tags.edit.audio_digest import audio_digest
from stonecli.tags.edit.digest import Digest
from stonecli.tags.edit.old_digest import OldDigest
from stonecli.tags.formats.sniff import sniff
from stonecli.tags.read import as_tag_error
from stonecli.tags.undo.record import digest_outside

HASH_VERSION = b"\x02"  # first byte of a content hash; those of earlier versions have 16 random bytes instead


def hash_content(path: Source, kind: type[Digest | OldDigest] = Digest) -> bytes | None:
    """The content hash of the recording in a file, given by its path or open; None if the file cannot be read.

    For damaged files, and formats without tags, it covers the whole file. With :class:`OldDigest` for ``kind``, it is
    the hash that earlier versions stored.
    """
    try:
        with as_tag_error(), opened(path) as music:
            file = music.file
            try:
                container = sniff(file)
                digest = b"audio " + container.encode() + audio_digest(file, container, kind)
            except TagError:
                digest = b"file " + digest_outside(file, (), kind).digest()
    except TagError:
        return None
    content_hash = hashlib.sha256(digest).digest()[:16]
    return content_hash if kind is OldDigest else HASH_VERSION + content_hash
