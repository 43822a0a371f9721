from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from stonecli.key import Key
from stonecli.mixing.ordering import best_order
from stonecli.mixing.positions import order_with_positions
from stonecli.mixing.transitions import Track, cost_matrix


def crate(count: int, seed: int) -> npt.NDArray[np.float32]:
    """Costs of tracks with random keys, tunings and tempos."""
    random = np.random.default_rng(seed)
    return cost_matrix(
        [
            Track(Path(str(number)), Key.from_index(int(random.integers(24))), "tag", *random.normal((0, 126), (8, 8)))
            for number in range(count)
        ]
    )


@pytest.mark.parametrize("positions", [{2: 5}, {0: 1, 3: 0}, {1: 2, 2: 3, 5: 0}, {6: 0, 1: 6}])
def test_short_sets_are_optimal(positions: dict[int, int]) -> None:
    costs = crate(7, 1)
    found = order_with_positions(costs, positions)
    best = min(
        sum(float(costs[a, b]) for a, b in itertools.pairwise(order))
        for order in itertools.permutations(range(7))
        if all(order[position] == node for position, node in positions.items())
    )
    assert all(found.order[position] == node for position, node in positions.items())
    assert found.cost == pytest.approx(best, abs=1e-3)
    assert found.gap == 0


@pytest.mark.parametrize("positions", [{3: 7}, {0: 1, 4: 0}, {2: 3, 3: 4, 8: 2}])
def test_the_search_finds_the_optimum_and_the_bound_holds(positions: dict[int, int]) -> None:
    costs = crate(9, 2)
    found = order_with_positions(costs, positions)
    free = [node for node in range(9) if node not in positions.values()]
    best = np.inf
    for some in itertools.permutations(free):
        rest = iter(some)
        order = [positions[index] if index in positions else next(rest) for index in range(9)]
        best = min(best, float(costs[order[:-1], order[1:]].sum()))
    assert found.cost == pytest.approx(best, abs=1e-2)
    assert found.bound <= best + 1e-3


@pytest.mark.parametrize("count", [1, 2, 7, 8, 20, 60])
def test_a_position_for_every_track_is_the_order(count: int) -> None:
    order = np.random.default_rng(3).permutation(count).tolist()
    found = order_with_positions(crate(count, 3), dict(enumerate(order)))
    assert found.order == tuple(order)
    assert found.gap == 0


def test_a_set_of_30_is_optimal_or_says_how_far_from_it() -> None:
    for seed, positions in ((0, {}), (1, {0: 4, 29: 9}), (2, {0: 3, 14: 7, 29: 9})):
        costs = crate(30, seed)
        found = order_with_positions(costs, positions)
        assert sorted(found.order) == [*range(30)]
        assert all(found.order[position] == node for position, node in positions.items())
        assert found.cost == pytest.approx(float(costs[found.order[:-1], found.order[1:]].sum()), abs=1e-2)
        assert found.gap <= 0.06


def test_long_sets_take_their_positions() -> None:
    costs = crate(60, 3)
    positions = {10: 50, 35: 3, 50: 5}
    found = order_with_positions(costs, positions)
    assert all(found.order[position] == node for position, node in positions.items())
    assert sorted(found.order) == [*range(60)]
    assert found.gap < 0.2


def test_ends_are_those_of_the_plain_order() -> None:
    costs = crate(12, 4)
    assert order_with_positions(costs, {0: 2, 11: 3}) == best_order(costs, 2, 3)


@pytest.mark.parametrize(
    ("positions", "message"), [({12: 0}, "from 1 to 12"), ({-1: 0}, "from 1"), ({1: 2, 3: 2}, "two")]
)
def test_positions_that_cannot_be(positions: dict[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        order_with_positions(crate(12, 5), positions)
