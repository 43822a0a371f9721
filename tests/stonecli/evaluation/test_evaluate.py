from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stonecli.evaluation.evaluate import compare, compare_answers, evaluate_answers, score
from stonecli.evaluation.labels import Label
from stonecli.evaluation.metrics import NO_KEY
from stonecli.key import Key


def label(name: str, key: str, genre: str = "", source: str = "", line: int = 2, folder: Path = Path("music")) -> Label:
    return Label(folder / name, name, Key.parse(key), genre, source, line)


ROWS = st.lists(st.tuples(st.integers(0, 23), st.integers(-1, 23), st.integers(-1, 23)), min_size=1, max_size=30)


class TestIntervals:
    def test_interval_of_ten_right_of_twenty_is_that_of_the_binomial(self) -> None:
        # Binomial(20, 1/2): P(X <= 5) = 0.021, P(X <= 6) = 0.058. So the 2.5 % quantile is 6 of 20, the 97.5 % one 14.
        reference = np.zeros(20, int)
        estimate = np.repeat([0, 6], 10)  # C or F# for C
        found = score(reference, estimate, resamples=20_000).metrics["accuracy"]
        assert (found.value, found.low, found.high) == (0.5, 0.3, 0.7)

    def test_a_single_track_has_no_spread(self) -> None:
        found = score(np.array([0]), np.array([7]), resamples=100)
        assert found.metrics["mirex"] == found.metrics["ksea"]
        assert (found.metrics["mirex"].value, found.metrics["mirex"].low, found.metrics["mirex"].high) == (
            0.5,
            0.5,
            0.5,
        )

    def test_seed_decides(self) -> None:
        rng = np.random.default_rng(5)
        reference, estimate = rng.integers(0, 24, 57), rng.integers(-1, 24, 57)
        first = score(reference, estimate, resamples=200, seed=1)
        assert first == score(reference, estimate, resamples=200, seed=1)
        assert first.metrics != score(reference, estimate, resamples=200, seed=2).metrics

    @settings(max_examples=40)
    @given(ROWS, st.randoms(use_true_random=False))
    def test_the_order_of_tracks_does_not_change_the_scores(self, rows: list[tuple[int, ...]], random: Random) -> None:
        reference, ours, theirs = np.array(rows).T
        found = score(reference, ours, resamples=200)
        assert sum(found.parts.values()) == found.count == len(rows)
        assert all(0 <= metric.low <= metric.high <= 1 for metric in found.metrics.values())
        random.shuffle(rows)
        shuffled = np.array(rows).T
        again = score(shuffled[0], shuffled[1], resamples=200)
        assert again.parts == found.parts
        assert [(m.low, m.high) for m in again.metrics.values()] == [(m.low, m.high) for m in found.metrics.values()]
        there, back = compare(reference, ours, theirs, resamples=200), compare(reference, theirs, ours, resamples=200)
        for metric, difference in there.items():
            assert difference.value == pytest.approx(difference.ours - difference.theirs)
            assert difference.value == -back[metric].value
            assert difference.p_value == back[metric].p_value
            assert 0 < difference.p_value <= 1
            assert (difference.better, difference.worse) == (back[metric].worse, back[metric].better)

    def test_nothing_to_score(self) -> None:
        nothing = np.array([], dtype=int)
        with pytest.raises(ValueError, match="no tracks"):
            score(nothing, nothing)
        with pytest.raises(ValueError, match="no tracks"):
            compare_answers([label("a", "C")], (0,), (None,))


class TestComparison:
    def test_a_paired_comparison_finds_small_differences(self) -> None:
        # 100 tracks in C. Both wrong on 40 (F#); of the other 60, theirs is wrong on 6 more.
        reference = np.zeros(100, int)
        ours = np.repeat([6, 0], [40, 60])
        theirs = np.repeat([6, 0], [46, 54])
        difference = compare(reference, ours, theirs, resamples=20_000)["accuracy"]
        assert (difference.ours, difference.theirs, difference.value) == (0.6, 0.54, 0.06)
        assert (difference.better, difference.worse) == (6, 0)
        # Binomial(100, 0.06): P(X <= 1) = 0.015, P(X <= 2) = 0.057; P(X <= 10) = 0.962, P(X <= 11) = 0.983.
        assert (difference.low, difference.high) == (0.02, 0.11)
        assert difference.share_above == pytest.approx(1 - 0.94**100, abs=0.002)
        assert difference.p_value == 2 / 2**6
        alone = [score(reference, answers).metrics["accuracy"] for answers in (ours, theirs)]
        assert alone[0].low < alone[1].high

    def test_equal_estimators(self) -> None:
        reference, answers = np.arange(24), np.arange(24)[::-1].copy()
        for difference in compare(reference, answers, answers, resamples=100).values():
            assert (difference.value, difference.low, difference.high, difference.share_above) == (0, 0, 0, 0)
            assert (difference.p_value, difference.better, difference.worse) == (1.0, 0, 0)

    def test_only_tracks_that_both_have_answered_are_compared(self) -> None:
        tracks = [label("a", "C"), label("b", "C"), label("c", "C"), label("d", "C")]
        found = compare_answers(tracks, (0, 0, None, NO_KEY), (0, 6, 0, None), resamples=100)
        assert found.count == 2
        assert (found.metrics["accuracy"].ours, found.metrics["accuracy"].theirs) == (1.0, 0.5)


class TestGroups:
    def test_groups_by_genre_and_source(self) -> None:
        tracks = [
            label("a", "C", genre="rock", source="x"),
            label("b", "C", genre="Jazz", source="x"),
            label("c", "C", genre="rock", source="x"),
            label("d", "C", source="x"),
            label("e", "C", genre="gone", source="x"),
        ]
        found = evaluate_answers(tracks, (0, 7, 9 + 12, NO_KEY, None), resamples=100)
        assert found.overall.count == 4
        assert found.overall.parts == {"same": 1, "fifth": 1, "relative": 1, "parallel": 0, "other": 1}
        assert found.overall.no_key == 1
        assert list(found.genres) == ["Jazz", "rock", ""]  # by name, those without one last
        assert [scores.count for scores in found.genres.values()] == [1, 2, 1]
        assert found.genres["rock"].metrics["mirex"].value == pytest.approx(0.65)
        assert found.sources["x"] == found.overall
        assert found.confusion.sum() == 4

    def test_no_groups_without_the_columns(self) -> None:
        found = evaluate_answers([label("a", "C")], (0,), resamples=100)
        assert (found.genres, found.sources) == ({}, {})
