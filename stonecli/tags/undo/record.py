"""How a change is taken back, and how the file is known again that it can be taken back from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from stonecli.tags.edit.digest import Digest
from stonecli.tags.edit.splice import Span, Splice, blocks, file_size, kept, ordered, read_at


@dataclass(frozen=True)
class Undo:
    """All that is needed to take a change back.

    The two digests are of every byte of the file, first of those that the splices leave and then of those at the
    splices: so what both have in common, which is nearly all, is read and hashed once.

    Attributes:
        before, after: size in bytes and digest of the whole file, before and after the change.
        splices: what turns the file after the change into the file before it.
    """

    before: tuple[int, bytes]
    after: tuple[int, bytes]
    splices: tuple[Splice, ...]

    def is_before(self, file: BinaryIO) -> bool:
        """Whether an open file is, byte for byte, what it was before the change."""
        return _is(file, self.before, places_before(self.splices))

    def is_after(self, file: BinaryIO) -> bool:
        """Whether an open file is, byte for byte, what it was after the change."""
        return _is(file, self.after, places_after(self.splices))


def places_before(splices: Sequence[Splice]) -> list[Span]:
    """Where in the file before the change that is which the splices of an :class:`Undo` bring back."""
    places = []
    growth = 0
    for splice in ordered(splices):
        places.append(Span(splice.offset + growth, len(splice.data)))
        growth += len(splice.data) - splice.length
    return places


def places_after(splices: Sequence[Splice]) -> list[Span]:
    """Where in the file after the change that is which the splices of an :class:`Undo` take out."""
    return [Span(splice.offset, splice.length) for splice in ordered(splices)]


def digest_of_rest(file: BinaryIO, places: Sequence[Span]) -> Digest:
    """Of everything in an open file but these places, which are in order; memory does not grow with it."""
    digest = Digest()
    for rest in kept([Splice(place.offset, place.length, b"") for place in places], file_size(file)):
        digest.add_stretch(blocks(file, rest.old, rest.length), rest.length)
    return digest


def whole_digest(rest: Digest, file: BinaryIO, places: Sequence[Span]) -> bytes:
    """Digest of a file whose ``rest`` is hashed: with what is at the places. ``rest`` stays as it is."""
    digest = rest.copy()
    for place in places:
        digest.add(read_at(file, place.offset, place.length))
    return digest.digest()


def _is(file: BinaryIO, state: tuple[int, bytes], places: Sequence[Span]) -> bool:
    return file_size(file) == state[0] and whole_digest(digest_of_rest(file, places), file, places) == state[1]
