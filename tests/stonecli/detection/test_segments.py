import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stonecli.detection.segments import find_segments, relation
from stonecli.key import Key

Floats = npt.NDArray[np.float64]
C, G, AM = Key.parse("C"), Key.parse("G"), Key.parse("Am")


def detected(keys: list[Key], sureness: float = 0.8) -> npt.NDArray[np.float32]:
    """Windows with these keys and this confidence."""
    rows = np.full((len(keys), 24), (1 - sureness) / 23, dtype=np.float32)
    rows[np.arange(len(keys)), [key.index for key in keys]] = sureness
    return rows


def times(count: int, step: float = 15.0, length: float = 15.0) -> tuple[Floats, Floats]:
    starts = np.arange(count, dtype=np.float64) * step
    return starts, starts + length


def keys_of(rows: npt.NDArray[np.float32]) -> list[Key]:
    return [segment.key for segment in find_segments(*times(len(rows)), rows)]


def test_nothing_has_no_segments() -> None:
    assert find_segments(*times(0), np.zeros((0, 24), dtype=np.float32)) == ()


@pytest.mark.parametrize("flicker", [G, AM, C.parallel, C.transposed(6)])
@pytest.mark.parametrize("sureness", [0.5, 0.8, 0.999])
@pytest.mark.parametrize("place", [0, 4, 9])
def test_one_window_in_another_key_does_not_split_a_song(flicker: Key, sureness: float, place: int) -> None:
    rows = detected([C] * 10)
    rows[place] = detected([flicker], sureness)[0]
    assert keys_of(rows) == [C]


def test_many_single_flickers_do_not_split_it_either() -> None:
    assert keys_of(detected([C, C, G, C, C, AM, C, C, G, C, C])) == [C]


def test_a_lasting_change_of_key_splits_a_song() -> None:
    segments = find_segments(*times(12), detected([C] * 6 + [G] * 6))
    assert [segment.key for segment in segments] == [C, G]
    assert [(segment.start, segment.end) for segment in segments] == [
        (0.0, pytest.approx(90.0)),
        (pytest.approx(90.0), 180.0),
    ]
    assert all(segment.confidence == pytest.approx(0.8) for segment in segments)


def test_a_change_30_s_before_the_end_is_found() -> None:
    assert keys_of(detected([C] * 10 + [C.transposed(1)] * 2, 0.99)) == [C, C.transposed(1)]
    assert keys_of(detected([C] * 10 + [C.transposed(1)] * 3)) == [C, C.transposed(1)]  # or less sure, but longer


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_window_that_holds_the_change_is_shared(share: float) -> None:
    rows = detected([C] * 4 + [C] + [G] * 4)
    rows[4] = share * detected([C])[0] + (1 - share) * detected([G])[0]
    first, second = find_segments(*times(9), rows)
    assert first.end == second.start == pytest.approx(60 + 15 * share, abs=0.5)


@pytest.mark.parametrize(("least", "count"), [(0.0, 3), (30.0, 3), (61.0, 2), (500.0, 1)])
def test_too_short_segments_join_a_neighbor(least: float, count: int) -> None:
    rows = detected([C] * 6 + [AM] * 4 + [G] * 8, 0.99)
    segments = find_segments(*times(18), rows, min_seconds=least)
    assert len(segments) == count
    assert all(segment.end - segment.start >= least - 0.1 for segment in segments) or count == 1


@pytest.mark.parametrize("step", [3.0, 7.5, 15.0])
def test_overlap_does_not_add_evidence(step: float) -> None:
    """15 s in another key at the end are no change, 45 s are."""
    for seconds, changes in ((15.0, 0), (45.0, 1)):
        rows = detected([C] * round(150 / step) + [G] * round(seconds / step))
        assert len(find_segments(*times(len(rows), step), rows)) == 1 + changes


def test_there_and_back() -> None:
    assert keys_of(detected([C] * 6 + [AM] * 6 + [C] * 6)) == [C, AM, C]


def test_windows_in_several_related_keys_join_one_key() -> None:
    rows = detected([Key.parse("Gm")] * 5 + [G, AM, C, Key.parse("F"), C.parallel])
    assert keys_of(rows) == [Key.parse("Gm"), C]


@pytest.mark.parametrize(("other", "windows", "found"), [(G, 4, False), (G, 6, True), (C.transposed(6), 3, True)])
def test_a_change_to_a_related_key_must_be_longer(other: Key, windows: int, found: bool) -> None:
    assert keys_of(detected([C] * 6 + [other] * windows + [C] * 6)) == ([C, other, C] if found else [C])


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ("C", "same"),
        ("Am", "relative"),
        ("F G", "fifth"),
        ("Cm", "parallel"),
        ("Em Dm", "diagonal"),
        ("D Gm Bm F# Ebm", "far"),
    ],
)
def test_relations(others: str, expected: str) -> None:
    for other in map(Key.parse, others.split()):
        assert relation(C, other) == relation(other, C) == expected


def test_uncertain_windows_change_nothing() -> None:
    rows = detected([C] * 4 + [C] * 6 + [G] * 4)
    rows[4:10] = 1 / 24
    assert keys_of(rows) == [C, G]


def test_overlapping_windows_meet_in_the_middle_of_the_overlap() -> None:
    starts, ends = times(12, step=7.5)
    first, second = find_segments(starts, ends, detected([C] * 6 + [G] * 6))
    assert first.end == second.start == (starts[6] + ends[5]) / 2


@given(st.data())
def test_segments_tile_the_windows(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 30))
    seed = data.draw(st.integers(0, 2**32 - 1))
    sharpness = data.draw(st.sampled_from([0.1, 1.0, 5.0, 50.0]))
    step = data.draw(st.floats(0.75, 15.0))
    scores = np.random.default_rng(seed).standard_normal((count, 24)) * sharpness
    rows = np.exp(scores - scores.max(axis=1, keepdims=True))
    rows = (rows / rows.sum(axis=1, keepdims=True)).astype(np.float32)
    starts, ends = times(count, step)
    segments = find_segments(starts, ends, rows)
    assert segments[0].start == starts[0]
    assert segments[-1].end == ends[-1]
    for one, other in itertools.pairwise(segments):
        assert one.end == other.start
        assert one.key != other.key
    assert all(segment.start < segment.end for segment in segments)
    assert all(0.0 <= segment.confidence <= 1.0 for segment in segments)
