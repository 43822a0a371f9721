from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stonecli_train.data import (
    cut,
    draw_shifts,
    two_starts,
)


class TestTwoStarts:
    @settings(max_examples=500, deadline=None)
    @given(length=st.integers(1, 400), frames=st.integers(1, 100), seed=st.integers(0, 10_000))
    def test_two_segments_are_in_the_track_and_disjoint(self, length: int, frames: int, seed: int) -> None:
        starts = two_starts(length, frames, np.random.default_rng(seed))
        early, late = sorted(starts)
        assert early >= 0
        if length >= 2 * frames:
            assert late + frames <= length
            assert late - early >= frames
        elif length >= frames:
            assert (early, late) == (0, length - frames)
        else:
            assert starts == (0, 0)

    @pytest.mark.parametrize("length", range(6, 13))
    def test_all_pairs_without_overlap_are_drawn(self, length: int) -> None:
        """Tracks of two to four segments of three frames."""
        rng = np.random.default_rng(0)
        drawn = Counter(two_starts(length, 3, rng) for _ in range(6000))
        possible = {(a, b) for a, b in itertools.product(range(length - 2), repeat=2) if abs(a - b) >= 3}
        assert set(drawn) == possible
        assert min(drawn.values()) > 6000 / len(possible) / 3


class TestShifts:
    @pytest.mark.parametrize("spare", [1, 5, 11, 12, 15, 30])
    def test_shifts(self, spare: int) -> None:
        rng = np.random.default_rng(0)
        drawn = [draw_shifts(spare, rng) for _ in range(6000)]
        most = min(11, spare)
        assert all(0 <= shift <= spare for pair in drawn for shift in pair)
        differences = Counter(transposed - plain for plain, transposed in drawn)
        assert set(differences) == {difference for difference in range(-most, most + 1) if difference}
        assert min(differences.values()) > 6000 / (2 * most) / 2
        assert {plain for plain, _ in drawn} == {transposed for _, transposed in drawn} == set(range(spare + 1))


class TestCut:
    @settings(max_examples=100, deadline=None)
    @given(length=st.integers(1, 60), frames=st.integers(1, 50), start=st.integers(0, 70))
    def test_a_segment_has_the_given_length(self, length: int, frames: int, start: int) -> None:
        features = np.arange(length, dtype=np.uint8)[:, None] * np.ones((1, 4), np.uint8)
        start = min(start, max(0, length - frames))
        segment = cut(features, start, frames)
        assert segment.shape == (frames, 4)
        assert segment[:, 0].tolist() == [(start + number) % length for number in range(frames)]
