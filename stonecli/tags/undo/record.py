"""The undo record of one change: how to restore the file, and how to recognize the file that can be restored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO, TypeVar

from stonecli.tags.edit.digest import AnyDigest, Digest
from stonecli.tags.edit.old_digest import LENGTH as OLD_LENGTH
from stonecli.tags.edit.old_digest import OldDigest
from stonecli.tags.edit.splice import Span, Splice, blocks, file_size, ordered, read_at, unchanged_ranges

DigestT = TypeVar("DigestT", bound=AnyDigest)


@dataclass(frozen=True)
class Undo:
    """All that is needed to undo a change.

    Both digests cover every byte of the file: first the unchanged ranges, then the ranges of the splices. So the
    unchanged ranges, which are nearly all of the file, are read and hashed once for both.

    Attributes:
        before, after: size in bytes and digest of the whole file, before and after the change. Records of earlier
            versions have the old digest, which is longer.
        splices: the edits that turn the file after the change into the file before it.
    """

    before: tuple[int, bytes]
    after: tuple[int, bytes]
    splices: tuple[Splice, ...]

    def is_before(self, file: BinaryIO) -> bool:
        """Whether an open file is, byte for byte, what it was before the change."""
        return _is(file, self.before, spans_before(self.splices))

    def is_after(self, file: BinaryIO) -> bool:
        """Whether an open file is, byte for byte, what it was after the change."""
        return _is(file, self.after, spans_after(self.splices))


def spans_before(splices: Sequence[Splice]) -> list[Span]:
    """The ranges of the file before the change that the splices of an :class:`Undo` restore."""
    spans = []
    growth = 0
    for splice in ordered(splices):
        spans.append(Span(splice.offset + growth, len(splice.data)))
        growth += len(splice.data) - splice.length
    return spans


def spans_after(splices: Sequence[Splice]) -> list[Span]:
    """The ranges of the file after the change that the splices of an :class:`Undo` replace."""
    return [Span(splice.offset, splice.length) for splice in ordered(splices)]


def digest_outside(file: BinaryIO, spans: Sequence[Span], kind: Callable[[], DigestT]) -> DigestT:
    """The digest of everything in an open file outside these spans, which are sorted; memory use is constant."""
    digest = kind()
    for rest in unchanged_ranges([Splice(span.offset, span.length, b"") for span in spans], file_size(file)):
        digest.add_chunk(blocks(file, rest.old, rest.length), rest.length)
    return digest


def file_digest(rest: AnyDigest, file: BinaryIO, spans: Sequence[Span]) -> bytes:
    """The digest of a whole file: first ``rest``, which covers all but the spans, then the spans."""
    digest = rest.copy()
    for span in spans:
        digest.add(read_at(file, span.offset, span.length))
    return digest.digest()


def _is(file: BinaryIO, state: tuple[int, bytes], spans: Sequence[Span]) -> bool:
    kind: type[Digest | OldDigest] = OldDigest if len(state[1]) == OLD_LENGTH else Digest
    return file_size(file) == state[0] and file_digest(digest_outside(file, spans, kind), file, spans) == state[1]
