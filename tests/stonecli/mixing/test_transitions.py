import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stonecli.detection.estimate import KeyEstimate
from stonecli.key import Key
from stonecli.mixing.transitions import (
    KEY_COSTS,
    OVER_LIMIT_COST,
    CostRules,
    Track,
    cost_matrix,
    end_keys,
    key_transition,
    transition,
)

EstimateOf = Callable[..., KeyEstimate]


def track(key: str, cents: float | None = None, bpm: float | None = None) -> Track:
    return Track(Path(key), Key.parse(key), "tag", cents, bpm)


@pytest.mark.parametrize(
    ("first", "second", "move"),
    [
        ("8A", "8A", "same key"),
        ("8A", "9A", "one up"),
        ("12A", "1A", "one up"),
        ("8A", "7A", "one down"),
        ("8A", "8B", "relative"),
        ("8B", "8A", "relative"),
        ("8A", "9B", "diagonal"),
        ("8A", "7B", "diagonal"),
        ("8A", "10A", "energy boost"),
        ("8A", "3A", "energy boost"),
        ("8A", "6A", "energy drop"),
        ("8A", "1A", "energy drop"),
        ("8A", "11B", "parallel"),
        ("11B", "8A", "parallel"),
        ("8A", "2A", "clash"),
        ("8A", "10B", "clash"),
    ],
)
def test_the_moves_of_the_wheel(first: str, second: str, move: str) -> None:
    assert key_transition(Key.parse(first), Key.parse(second)) == move


def test_seven_up_is_a_semitone_and_two_up_a_tone() -> None:
    for key in Key.all():
        assert key_transition(key, key.transposed(1)) == "energy boost"
        assert key_transition(key, key.transposed(2)) == "energy boost"
        assert key_transition(key, key.transposed(-1)) == "energy drop"
        assert all(key_transition(key, other) in ("one up", "one down", "relative") for other in key.neighbors())


def test_each_key_mixes_with_ten_keys() -> None:
    for key in Key.all():
        moves = [key_transition(key, other) for other in Key.all()]
        assert moves.count("clash") == 24 - 11
        assert (moves.count("diagonal"), moves.count("energy boost"), moves.count("parallel")) == (2, 2, 1)


@pytest.mark.parametrize(
    ("cents", "other", "cost"), [(0, 10, 0.0), (-5, 5, 0.0), (0, 20, 1.0), (-25, 25, 4.0), (None, 30, 0.0)]
)
def test_tuning(cents: float | None, other: float, cost: float) -> None:
    assert transition(track("Am", cents), track("Am", other)).tuning_cost == pytest.approx(cost)


def test_keys_are_compared_as_they_sound() -> None:
    between = transition(track("C", 48), track("C#", -48))
    assert (between.name, between.cost) == ("same key", 0.0)
    apart = transition(track("C", 48), track("C", -48))  # nearly a semitone
    assert apart.name == "energy drop"
    assert apart.cost == pytest.approx(4.0)
    assert transition(track("C"), track("Db")).name == "energy boost"  # nothing is known, so nothing is shifted


@pytest.mark.parametrize(
    ("bpm", "other", "cost"),
    [(120, 120, 0.0), (100, 106, 3.0), (106, 100, 3.0), (87, 174, 1.0), (174, 87, 1.0), (100, 140, 6.0), (None, 9, 0)],
)
def test_tempo(bpm: float | None, other: float, cost: float) -> None:
    assert transition(track("Am", None, bpm), track("Am", None, other)).tempo_cost == pytest.approx(cost, abs=1e-4)


def test_the_matrix_has_the_same_costs() -> None:
    random = np.random.default_rng(3)
    tracks = [
        Track(
            Path(str(number)),
            Key.from_index(int(random.integers(24))),
            "tag",
            None if number % 5 == 0 else float(random.uniform(-50, 50)),
            None if number % 7 == 0 else float(random.uniform(70, 180)),
            *(Key.from_index(int(index)) if index < 24 else None for index in random.integers(0, 48, 2)),
        )
        for number in range(40)
    ]
    costs = cost_matrix(tracks)
    for one, other in itertools.product(range(40), repeat=2):
        assert costs[one, other] == pytest.approx(transition(tracks[one], tracks[other]).cost, abs=1e-3)
    assert max(KEY_COSTS.values()) == KEY_COSTS["clash"]


def test_a_transition_uses_the_last_and_the_first_key() -> None:
    one = replace(track("Am"), first_key=Key.parse("Dm"), last_key=Key.parse("Em"))
    assert transition(one, track("Bm")).name == "one up"
    assert transition(track("Gm"), one).name == "one up"
    assert transition(one, one).name == "energy drop"  # from Em to Dm


def test_start_and_end_keys_come_from_confident_segments(estimate_of: EstimateOf) -> None:
    minor, major = Key.parse("Am"), Key.parse("C")
    changes = estimate_of("Am", changes_to="C")
    assert end_keys(minor, changes) == (minor, major)
    assert end_keys(minor, None) == (minor, minor)
    assert end_keys(minor, estimate_of("Am")) == (minor, minor)
    assert end_keys(major, changes) == (major, major)  # the tags know better
    first, last = changes.segments
    doubtful = replace(changes, segments=(first, replace(last, confidence=0.49)))
    assert end_keys(minor, doubtful) == (minor, minor)
    lost = replace(changes, segments=(replace(first, key=Key.parse("G")), replace(last, confidence=0.5)))
    assert end_keys(minor, lost) == (Key.parse("G"), major)


class TestRules:
    FIRST, SECOND = (
        Track(Path(key), Key.parse(key), tuning_cents=cents, bpm=bpm)
        for key, cents, bpm in (("8A", 0.0, 120.0), ("9A", 20.0, 126.0))
    )

    def test_weights_multiply_the_costs(self) -> None:
        plain = transition(self.FIRST, self.SECOND)
        weighted = transition(self.FIRST, self.SECOND, CostRules(key_weight=2, tempo_weight=0.5))
        assert (weighted.key_cost, weighted.tuning_cost) == (2 * plain.key_cost, 2 * plain.tuning_cost)
        assert weighted.tempo_cost == pytest.approx(plain.tempo_cost / 2)

    @pytest.mark.parametrize(("bpm", "change"), [(126.0, 5.0), (114.0, -5.0), (63.0, 5.0), (228.0, -5.0)])
    def test_changes_have_a_direction(self, bpm: float, change: float) -> None:
        found = transition(self.FIRST, Track(Path("b"), Key.parse("8A"), tuning_cents=-4.0, bpm=bpm))
        assert found.tempo_change == pytest.approx(change)
        assert found.tuning_change == pytest.approx(-4.0)
        unknown = transition(self.FIRST, Track(Path("b"), Key.parse("8A")))
        assert (unknown.tempo_change, unknown.tuning_change) == (None, None)

    def test_keys_as_they_sound_have_the_smaller_difference(self) -> None:
        found = transition(
            Track(Path("a"), Key.parse("C"), "tag", 48.0), Track(Path("b"), Key.parse("Db"), "tag", -48.0)
        )
        assert found.name == "same key"
        assert found.tuning_change == pytest.approx(4.0)

    def test_a_change_beyond_the_limit_costs_more_than_a_clash(self) -> None:
        for limit, is_over in ((4.9, True), (5.0, False), (None, False)):
            found = transition(self.FIRST, self.SECOND, CostRules(max_tempo_change=limit))
            assert (found.is_over_limit, found.cost > OVER_LIMIT_COST) == (is_over, is_over)

    def test_the_matrix_has_the_costs_of_the_transitions(self) -> None:
        rules = CostRules(1.5, 0.5, 3.0)
        tracks = [self.FIRST, self.SECOND, Track(Path("c"), Key.parse("1B"), bpm=61.0)]
        matrix = cost_matrix(tracks, rules)
        for row, first in enumerate(tracks):
            for column, second in enumerate(tracks):
                assert matrix[row, column] == pytest.approx(transition(first, second, rules).cost, abs=1e-4)

    @pytest.mark.parametrize("values", [(-1.0, 1.0, None), (1.0, -1.0, None), (1.0, 1.0, 0.0)])
    def test_invalid_rules(self, values: tuple[float, float, float | None]) -> None:
        with pytest.raises(ValueError, match="must"):
            CostRules(*values)
