"""Find a cheap order of which some positions are fixed: a track at the start, at the end, or as number 15 of 30.

The free nodes first get the order that :func:`stonecli.mixing.ordering.best_order` finds, with the fixed ones put in
between. Then swaps, moves and reversals of free nodes are tried, all of them for a short set and a random sample for a
long one, with repeated perturbations. The lower bound is that of the problem without positions, in which the edges that
the positions exclude are forbidden.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from stonecli.mixing.ordering import (
    FORBIDDEN,
    MAX_EXHAUSTIVE,
    MIN_GAIN,
    Floats,
    Ints,
    Ordering,
    best_order,
    lower_bound,
)

MAX_ALL_MOVES = 40  # free nodes, for which all moves are tried
MAX_MOVES, MAX_FAILURES = 4000, 5  # of random moves that are tried at once, and of such samples without a gain
MAX_WORK = 30_000_000  # edges looked up in all: a second
MAX_PERTURBATIONS = 300


def order_with_positions(costs: Floats, positions: Mapping[int, int]) -> Ordering:
    """A cheap order of the nodes 0..n-1 with a given node at each position in ``positions``.

    It is optimal up to ``MAX_EXHAUSTIVE`` nodes, and always the same for the same input.

    Args:
        costs: float32 [n, n], cost from each node (row) to each other (column); not negative.
        positions: the node at a position, counted from 0.

    Raises:
        ValueError: a position does not exist, or a node has two.
    """
    count = len(costs)
    if any(not 0 <= position < count for position in positions):
        raise ValueError(f"positions must be from 1 to {count}, the number of tracks")
    if len(set(positions.values())) < len(positions):
        raise ValueError("the same track cannot have two positions")
    if set(positions) <= {0, count - 1}:
        return best_order(costs, positions.get(0), positions.get(count - 1))
    if count <= MAX_EXHAUSTIVE or count == len(positions):
        return _exhaustive_search(costs, positions)
    allowed = _allowed(costs, positions)
    order = _search(costs, positions)
    cost = _costs_of(costs, order[None])[0]
    return Ordering(tuple(order.tolist()), cost, min(cost, lower_bound(allowed, cost)))


def _exhaustive_search(costs: Floats, positions: Mapping[int, int]) -> Ordering:
    count = len(costs)
    free_positions = [position for position in range(count) if position not in positions]
    free = sorted(set(range(count)) - set(positions.values()))
    orders = np.empty((math.factorial(len(free)), count), dtype=np.int64)
    for position, node in positions.items():
        orders[:, position] = node
    orders[:, free_positions] = list(itertools.permutations(free))
    lengths = _costs_of(costs, orders)
    best = int(lengths.argmin())
    return Ordering(tuple(orders[best].tolist()), float(lengths[best]), float(lengths[best]))


def _allowed(costs: Floats, positions: Mapping[int, int]) -> Floats:
    """The costs of a tour through a dummy node 0, with the edges forbidden that the positions exclude."""
    count = len(costs)
    closed = np.zeros((count + 1, count + 1), dtype=np.float32)
    closed[1:, 1:] = costs
    for position, node in positions.items():
        closed[0, 1 + node] = 0.0 if position == 0 else FORBIDDEN
        closed[1 + node, 0] = 0.0 if position == count - 1 else FORBIDDEN
        for other_position, other in positions.items():
            if other_position != position + 1:
                closed[1 + node, 1 + other] = FORBIDDEN
        if (following := positions.get(position + 1)) is not None:
            closed[1 + node, np.arange(count + 1) != 1 + following] = FORBIDDEN
    if 0 in positions:
        closed[0, np.arange(count + 1) != 1 + positions[0]] = FORBIDDEN
    if count - 1 in positions:
        closed[np.arange(count + 1) != 1 + positions[count - 1], 0] = FORBIDDEN
    np.fill_diagonal(closed, 0.0)
    return closed


def _search(costs: Floats, positions: Mapping[int, int]) -> Ints:
    """The best order of the repeated descents."""
    count = len(costs)
    free_positions = np.array([position for position in range(count) if position not in positions], dtype=np.int64)
    free = np.array(sorted(set(range(count)) - set(positions.values())), dtype=np.int64)
    template = np.empty(count, dtype=np.int64)
    for position, node in positions.items():
        template[position] = node
    first = free[np.array(best_order(costs[np.ix_(free, free)]).order, dtype=np.int64)]
    random = np.random.default_rng(0)
    all_moves = _all_moves(len(free)) if len(free) <= MAX_ALL_MOVES else None
    work = [MAX_WORK]

    def placed(sequences: Ints) -> Ints:
        orders = np.repeat(template[None], len(sequences), axis=0)
        orders[:, free_positions] = sequences
        return orders

    def descended(sequence: Ints) -> tuple[Ints, float]:
        length, failures = _costs_of(costs, placed(sequence[None]))[0], 0
        while work[0] > 0 and failures < (MAX_FAILURES if all_moves is None else 1):
            candidates = sequence[_random_moves(len(sequence), random) if all_moves is None else all_moves]
            work[0] -= candidates.shape[0] * count
            lengths = _costs_of(costs, placed(candidates))
            best = int(lengths.argmin())
            if lengths[best] < length - MIN_GAIN:
                sequence, length, failures = candidates[best], float(lengths[best]), 0
            else:
                failures += 1
        return sequence, length

    best, length = min((descended(start) for start in (first, first[::-1])), key=lambda found: found[1])
    for _ in range(MAX_PERTURBATIONS):
        if work[0] <= 0 or len(free) < 4:
            break
        cuts = np.sort(random.choice(np.arange(1, len(free)), 3, replace=False))
        one, two, three, four = np.split(best, cuts)
        other, other_length = descended(np.concatenate([one, three, two, four]))
        if other_length < length - MIN_GAIN:
            best, length = other, other_length
    order: Ints = placed(best[None])[0]
    return order


def _all_moves(count: int) -> Ints:
    return _moves(count, np.array(list(itertools.combinations(range(count), 2)), dtype=np.int64).reshape(-1, 2))


def _random_moves(count: int, random: np.random.Generator) -> Ints:
    pairs = np.sort(random.integers(count, size=(MAX_MOVES // 4, 2)), axis=1)
    return _moves(count, pairs[pairs[:, 0] < pairs[:, 1]])


def _moves(count: int, pairs: Ints) -> Ints:
    """Orders of ``count`` elements that differ by one swap, moved element or reversed section: four for each pair."""
    low, high = pairs[:, :1], pairs[:, 1:]
    at = np.arange(count)[None]
    inside = (at >= low) & (at <= high)
    swapped = np.where(at == low, high, np.where(at == high, low, at))
    reversed_ = np.where(inside, low + high - at, at)
    forward = np.where(inside, np.where(at == high, low, at + 1), at)
    backward = np.where(inside, np.where(at == low, high, at - 1), at)
    moves: Ints = np.concatenate([swapped, reversed_, forward, backward])
    return moves


def _costs_of(costs: Floats, orders: Ints) -> npt.NDArray[np.float64]:
    """The total cost of each order, float64 [orders]."""
    lengths: npt.NDArray[np.float64] = costs[orders[:, :-1], orders[:, 1:]].sum(axis=1, dtype=np.float64)
    return lengths
