from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stonecli.evaluation.metrics import (
    CIRCLE,
    METRICS,
    NO_KEY,
    RELATIONS,
    calibration_error,
    confusion_matrix,
    mirex_score,
    relation,
    relations,
    reliability,
    scores,
    signature_confusion,
    signature_points,
    signatures,
    track_points,
)
from stonecli.key import Key


def indices(*names: str | None) -> npt.NDArray[Any]:
    return np.array([NO_KEY if name is None else Key.parse(name).index for name in names])


pairs = st.lists(st.tuples(st.integers(0, 23), st.integers(-1, 23)), min_size=1, max_size=40).map(
    lambda found: tuple(np.array(side) for side in zip(*found, strict=True))
)


def transposed(keys: npt.NDArray[Any], semitones: int) -> npt.NDArray[Any]:
    moved = [NO_KEY if key == NO_KEY else Key.from_index(key).transposed(semitones).index for key in keys]
    return np.array(moved)


@pytest.mark.parametrize(
    ("reference", "estimate", "name", "points"),
    [
        ("C", "C", "same", 1.0),
        ("C", "G", "fifth", 0.5),
        ("C", "F", "fifth", 0.5),
        ("C", "Am", "relative", 0.3),
        ("C", "Cm", "parallel", 0.2),
        ("C", "Em", "other", 0.0),  # the relative of a fifth
        ("C", "Gm", "other", 0.0),  # a fifth in the other mode
        ("C", "F#", "other", 0.0),
        ("Am", "Am", "same", 1.0),
        ("Am", "Em", "fifth", 0.5),
        ("Am", "Dm", "fifth", 0.5),
        ("Am", "C", "relative", 0.3),
        ("Am", "A", "parallel", 0.2),
        ("Am", "F#m", "other", 0.0),
        ("B", "F#", "fifth", 0.5),  # across the end of the octave
        ("Bbm", "Db", "relative", 0.3),
    ],
)
def test_parts_of_mirex(reference: str, estimate: str, name: str, points: float) -> None:
    assert relation(Key.parse(reference), Key.parse(estimate)) == name
    assert mirex_score(Key.parse(reference), Key.parse(estimate)) == points


def test_no_key_is_wrong() -> None:
    assert relation(Key.parse("C"), None) == "other"
    assert mirex_score(Key.parse("C"), None) == 0.0
    assert track_points(indices("C"), indices(None)).tolist() == [[0.0, 0.0, 0.0, 0.0]]


def test_fifths_above_only_as_mir_eval_by_default() -> None:
    assert relation(Key.parse("C"), Key.parse("G"), fifths="above") == "fifth"
    assert relation(Key.parse("C"), Key.parse("F"), fifths="above") == "other"
    assert relations(indices("C", "C"), indices("G", "F"), fifths="above").tolist() == [1, 4]
    assert track_points(indices("C"), indices("F"), fifths="above")[0].tolist() == [0.0, 0.0, 0.0, 0.5]


def test_every_key_has_as_many_relations_of_each_kind() -> None:
    for reference in range(24):
        codes = relations(np.full(24, reference), np.arange(24))
        assert np.bincount(codes).tolist() == [1, 2, 1, 1, 19]


def test_scores_by_hand() -> None:
    reference = indices("C", "C", "Am", "Eb", "C", "Dm", "G", "F#m", "C", "Bb")
    estimate = indices("C", "C", "Am", "Eb", "G", "Gm", "Em", "F#", "E", None)
    # MIREX: 4 same, 2 fifths, 1 relative, 1 parallel, 2 other: (4 + 1 + 0.3 + 0.2) / 10.
    # Signatures: right are the 4 and G/Em; fifths off are C/G and Dm/Gm; F#m (3 sharps)/F# (6 sharps), C/E are neither.
    found = scores(reference, estimate)
    assert found == pytest.approx({"mirex": 0.55, "accuracy": 0.4, "signature": 0.5, "ksea": 0.6})
    assert tuple(found) == METRICS


def test_ksea_of_one_fifth_in_the_other_mode() -> None:
    # Em has the signature of G: a fifth from C's for KSEA, "other" for MIREX.
    assert track_points(indices("C"), indices("Em"))[0].tolist() == [0.0, 0.0, 0.0, 0.5]


@pytest.mark.parametrize(
    ("right", "fifths", "percent"), [(1599, 981, 38), (3587, 1225, 77), (3883, 920, 79), (4090, 741, 81)]
)
def test_ksea_of_the_counts_that_the_stone_paper_gives(right: int, fifths: int, percent: int) -> None:
    estimate = np.concatenate([np.zeros(right, int), np.where(np.arange(fifths) % 2, 5, 7)])
    estimate = np.concatenate([estimate, np.full(5489 - len(estimate), 3)])
    assert round(100 * signature_points(np.zeros(5489, int), estimate).mean()) == percent


def test_signatures() -> None:
    assert signatures(indices("C", "Am", "Eb", "Cm", None)).tolist() == [0, 0, 3, 3, NO_KEY]


def test_circle_goes_by_fifths_with_relatives_in_the_same_order() -> None:
    names = [key.musical for key in CIRCLE]
    assert names[:12] == ["C", "G", "D", "A", "E", "B", "F#", "Db", "Ab", "Eb", "Bb", "F"]
    assert names[12:] == ["Am", "Em", "Bm", "F#m", "C#m", "G#m", "Ebm", "Bbm", "Fm", "Cm", "Gm", "Dm"]


def test_confusion_matrix_by_hand() -> None:
    matrix = confusion_matrix(indices("C", "C", "C", "Am", "Dm"), indices("C", "G", "G", "C", None))
    assert matrix.shape == (24, 25)
    found = {(int(row), int(column)): int(matrix[row, column]) for row, column in zip(*matrix.nonzero(), strict=True)}
    assert found == {(0, 0): 1, (0, 1): 2, (12, 0): 1, (23, 24): 1}


@pytest.mark.parametrize(
    ("reference", "estimate"),
    [([0, 1], [0]), ([[0]], [[0]]), ([24], [0]), ([-1], [0]), ([0], [24]), ([0], [-2]), ([0.0], [0])],
)
def test_invalid_keys_are_refused(
    reference: list[float] | list[int] | list[list[int]], estimate: list[int] | list[list[int]]
) -> None:
    with pytest.raises(ValueError, match=r"\d|integers"):
        track_points(np.array(reference), np.array(estimate))


def test_no_tracks() -> None:
    nothing = np.array([], dtype=int)
    assert track_points(nothing, nothing).shape == (0, 4)
    assert confusion_matrix(nothing, nothing).sum() == 0
    with pytest.raises(ValueError, match="no tracks"):
        scores(nothing, nothing)


@given(pairs, st.integers(-24, 24))
def test_transposing_labels_and_answers_changes_nothing(pair: tuple[npt.NDArray[Any], ...], semitones: int) -> None:
    reference, estimate = pair
    moved = track_points(transposed(reference, semitones), transposed(estimate, semitones))
    assert np.array_equal(track_points(reference, estimate), moved)


@given(pairs)
def test_scores_stay_within_bounds_and_order(pair: tuple[npt.NDArray[Any], ...]) -> None:
    found = scores(*pair)
    assert all(0 <= value <= 1 for value in found.values())
    assert found["accuracy"] <= found["mirex"]
    assert found["accuracy"] <= found["signature"] <= found["ksea"]
    assert scores(*pair, fifths="above")["mirex"] <= found["mirex"]


@given(pairs)
def test_confusion_matrix_counts_every_track_once(pair: tuple[npt.NDArray[Any], ...]) -> None:
    reference, estimate = pair
    matrix = confusion_matrix(reference, estimate)
    assert matrix.sum() == len(reference)
    assert matrix[:, 24].sum() == (estimate == NO_KEY).sum()
    assert np.trace(matrix[:, :24]) == (reference == estimate).sum()


@given(pairs)
def test_arrays_agree_with_single_keys(pair: tuple[npt.NDArray[Any], ...]) -> None:
    for reference, estimate, code in zip(*pair, relations(*pair), strict=True):
        key = None if estimate == NO_KEY else Key.from_index(estimate)
        assert RELATIONS[code] == relation(Key.from_index(reference), key)


@given(pairs)
def test_only_the_signature_counts_for_ksea(pair: tuple[npt.NDArray[Any], ...]) -> None:
    reference, estimate = pair
    relatives = np.array([NO_KEY if key == NO_KEY else Key.from_index(key).relative.index for key in estimate])
    ours, theirs = track_points(reference, estimate), track_points(reference, relatives)
    assert np.array_equal(ours[:, 2:], theirs[:, 2:])


def test_calibration_error_of_hand_made_answers() -> None:
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.55, 0.55])
    right = np.array([True, True, True, False, True, False])
    table = reliability(confidence, right)
    assert [(round(mean, 2), share, count) for mean, share, count in table] == [(0.55, 0.5, 2), (0.95, 0.75, 4)]
    assert calibration_error(confidence, right) == pytest.approx((2 * 0.05 + 4 * 0.2) / 6)
    assert calibration_error(np.array([1.0, 0.0]), np.array([True, False])) == 0.0
    assert reliability(np.array([]), np.array([], dtype=bool)) == []
    with pytest.raises(ValueError, match="no answers"):
        calibration_error(np.array([]), np.array([], dtype=bool))


def test_confusions_of_key_signatures() -> None:
    """Relative keys count as one: C major, detected as A minor, is right; as G major or E minor, a fifth beside."""
    names = [("C", "Am"), ("Am", "C"), ("C", "G"), ("Am", "Em"), ("F#", "F#")]
    reference = np.array([Key.parse(label).index for label, _ in names] + [Key.parse("F").index])
    estimate = np.array([Key.parse(answer).index for _, answer in names] + [NO_KEY])
    matrix = signature_confusion(confusion_matrix(reference, estimate))
    indices = {key.musical: index for index, key in enumerate(CIRCLE[:12])}
    assert matrix.shape == (12, 13)
    assert matrix.sum() == 6
    assert matrix[indices["C"], indices["C"]] == 2
    assert matrix[indices["C"], indices["G"]] == 2
    assert matrix[indices[Key.parse("F#").musical], indices[Key.parse("F#").musical]] == 1
    assert matrix[indices["F"], 12] == 1
    assert all(one.relative == other for one, other in zip(CIRCLE[:12], CIRCLE[12:], strict=True))
