import io
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stonecli.errors import TagError
from stonecli.tags.edit.splice import (
    Splice,
    UnchangedRange,
    forward_and_inverse,
    is_same_range,
    is_spliced,
    unchanged_ranges,
)


def spliced(content: bytes, splices: list[Splice]) -> bytes:
    for splice in sorted(splices, key=lambda splice: splice.offset)[::-1]:  # not reverse=True, which keeps equal ones
        content = content[: splice.offset] + splice.data + content[splice.offset + splice.length :]
    return content


@st.composite
def contents_and_splices(draw: st.DrawFn) -> tuple[bytes, list[Splice]]:
    content = draw(st.binary(max_size=400))
    edges = sorted(draw(st.lists(st.integers(0, len(content)), max_size=8)))
    splices = [
        Splice(start, end - start, draw(st.binary(max_size=80)))
        for start, end in zip(edges[::2], edges[1::2], strict=False)
    ]
    return content, splices


@given(contents_and_splices())
def test_the_inverse_restores_the_original(drawn: tuple[bytes, list[Splice]]) -> None:
    content, splices = drawn
    changed = spliced(content, splices)
    there, back = forward_and_inverse(io.BytesIO(content), splices)
    assert spliced(changed, back) == content
    assert spliced(content, there) == changed
    assert [UnchangedRange(same.new, same.old, same.length) for same in unchanged_ranges(back, len(changed))] == list(
        unchanged_ranges(there, len(content))
    )
    assert is_spliced(io.BytesIO(content), io.BytesIO(changed), back)
    assert is_spliced(io.BytesIO(changed), io.BytesIO(content), splices)


@pytest.mark.parametrize("place", ["before", "within", "after", "longer", "shorter"])
def test_a_difference_from_the_splices_is_found(place: str) -> None:
    old = random.Random(1).randbytes(3_000_000)
    splices = [Splice(1_500_000, 10, b"other data")]
    new = bytearray(spliced(old, splices))
    assert is_spliced(io.BytesIO(new), io.BytesIO(old), splices)
    if place == "longer":
        new += b"\0"
    elif place == "shorter":
        del new[-1]
    else:
        new[{"before": 7, "within": 1_500_003, "after": 2_999_999}[place]] ^= 1
    assert not is_spliced(io.BytesIO(new), io.BytesIO(old), splices)


@given(contents_and_splices(), st.data())
def test_verified_ranges_are_not_read_again(drawn: tuple[bytes, list[Splice]], data: st.DataObject) -> None:
    content, splices = drawn
    changed = spliced(content, splices)
    known = list(unchanged_ranges(splices, len(content)))
    assert all(content[same.old :][: same.length] == changed[same.new :][: same.length] for same in known)
    _, back = forward_and_inverse(io.BytesIO(content), splices)
    swapped = [UnchangedRange(same.new, same.old, same.length) for same in known]
    blank = bytearray(content)
    for same in known:
        blank[same.old : same.old + same.length] = bytes(same.length)
    assert is_spliced(io.BytesIO(blank), io.BytesIO(changed), back, swapped)  # it cannot have read what is blank
    old, new = data.draw(st.integers(0, len(content))), data.draw(st.integers(0, len(changed)))
    part = UnchangedRange(old, new, data.draw(st.integers(0, min(len(content) - old, len(changed) - new))))
    is_same = content[old : old + part.length] == changed[new : new + part.length]
    assert is_same_range(io.BytesIO(content), io.BytesIO(changed), part, known) == is_same


def test_a_picture_that_only_moves_is_not_stored() -> None:
    """As in FLAC, where the padding after the picture takes up what the comments before it need."""
    picture = random.Random(2).randbytes(500_000)
    old = b"comments, short" + picture + bytes(1000)
    new = b"comments that have grown, and say more" + picture + bytes(977)
    there, back = forward_and_inverse(io.BytesIO(old), [Splice(0, len(old), new)])
    assert spliced(new, back) == old
    assert sum(len(splice.data) for splice in there) < 200
    assert sum(len(splice.data) for splice in back) < 200


def test_data_without_common_parts_is_stored_whole() -> None:
    chance = random.Random(3)
    old, new = chance.randbytes(200_000), chance.randbytes(150_000)
    there, back = forward_and_inverse(io.BytesIO(old), [Splice(0, len(old), new)])
    assert back == [Splice(0, len(new), old)]
    assert there == [Splice(0, len(old), new)]


def test_changes_that_overlap_are_refused() -> None:
    with pytest.raises(TagError, match="overlap"):
        forward_and_inverse(io.BytesIO(bytes(10)), [Splice(0, 5, b""), Splice(4, 1, b"xx")])
