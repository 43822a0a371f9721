"""The cheapest way through all points of a cost matrix: local search, and how far from the best it can be.

An open path becomes a tour by a point 0 from which and to which everything is free; with a fixed start or end, only
that one is. The tour is built by nearest neighbours and improved by 2-opt and Or-opt moves (Bentley, *Fast Algorithms
for Geometric Traveling Salesman Problems*, 1992) that count a reversed stretch at its reversed costs, for the costs
need not be the same in both directions. The bound is the 1-tree of Held and Karp (*The Traveling-Salesman Problem and
Minimum Spanning Trees*, 1971), with prices of its own for leaving a point and for coming to it.
"""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

FORBIDDEN = 1e4  # above any sum of costs that matters, small enough for float32
FEW = 7  # points, all of whose 5040 orders are soon tried
LEAST_GAIN = 1e-4  # below, it is rounding
LONGEST_MOVED = 3  # points that Or-opt moves at once
KICKS_PER_POINT, MOST_KICKS = 20, 4000  # of the search after the first local optimum: some ten seconds
LONGEST_KICKED = 100  # points that a kick moves
ASCENT_STEPS = 200  # of the bound
COMMON_STEPS = 40  # of these, in which leaving and coming have one price: so far, the way is shorter
FIRST_STEP = 2.0  # of the ascent, in shares of what Polyak's rule says; smaller where it does not help any more


@dataclass(frozen=True)
class Ordering:
    """An order of all points.

    Attributes:
        order: indices of the points.
        cost: sum of the costs on the way.
        bound: no order costs less.
    """

    order: tuple[int, ...]
    cost: float
    bound: float

    @property
    def gap(self) -> float:
        """Share of the cost, 0..1, that the best order could save at most."""
        return max(0.0, 1.0 - self.bound / self.cost) if self.cost > LEAST_GAIN else 0.0


def best_order(costs: Floats, start: int | None = None, end: int | None = None) -> Ordering:
    """A good order of the points 0..n-1; the same one for the same input.

    Args:
        costs: float32 [n, n], of going from a row to a column; not negative.
        start, end: points to begin and to end with, or None.

    Raises:
        ValueError: start and end are the same and there are other points.
    """
    count = len(costs)
    if start is not None and start == end and count > 1:
        raise ValueError("the first and the last track are the same")
    if count <= FEW:
        return _best_of_all(costs, start, end)
    closed = np.zeros((count + 1, count + 1), dtype=np.float32)
    closed[1:, 1:] = costs
    if start is not None:
        closed[0, 1:] = FORBIDDEN
        closed[0, 1 + start] = 0.0
    if end is not None:
        closed[1:, 0] = FORBIDDEN
        closed[1 + end, 0] = 0.0
    np.fill_diagonal(closed, 0.0)
    tour = _local_search(closed)
    bound = _bound(closed, _length(closed, tour))
    tour = _kicked_search(closed, tour, bound)
    cost = _length(closed, tour)
    bound = min(cost, bound)
    return Ordering(tuple((tour[1:] - 1).tolist()), cost, bound)


def _best_of_all(costs: Floats, start: int | None, end: int | None) -> Ordering:
    """The best of all orders: of few points a kick reaches few, so that the search would stay where it is."""
    orders = np.array(
        [
            order
            for order in itertools.permutations(range(len(costs)))
            if start in (None, *order[:1]) and end in (None, *order[-1:])
        ],
        dtype=np.int64,
    )
    lengths = costs[orders[:, :-1], orders[:, 1:]].sum(axis=1, dtype=np.float64)
    best = int(lengths.argmin())
    return Ordering(tuple(orders[best].tolist()), float(lengths[best]), float(lengths[best]))


def _local_search(costs: Floats) -> Ints:
    """A tour from point 0 that no single move shortens."""
    count = len(costs)
    groups = _groups_of_equals(costs)
    if len(groups) < count:  # many tracks in one key, say: their groups are ordered first, for none moves as a whole
        first = np.array([group[0] for group in groups])
        smaller = costs[np.ix_(first, first)]
        small_tour = _kicked_search(smaller, _local_search(smaller), 0.0)
        start = np.concatenate([groups[number] for number in small_tour])
    else:
        start = _nearest(costs)
    return _improved(costs, np.ascontiguousarray(costs.T), start, np.arange(count))


def _kicked_search(costs: Floats, tour: Ints, bound: float) -> Ints:
    """A tour better than those that come of kicking it and searching anew; no further than to ``bound``."""
    count, length = len(costs), _length(costs, tour)
    random = np.random.default_rng(0)
    into = np.ascontiguousarray(costs.T)
    for _ in range(min(KICKS_PER_POINT * count, MOST_KICKS) if count > 4 else 0):
        if length <= bound + LEAST_GAIN:
            break
        kicked, touched = _kicked(tour, random)
        kicked = _improved(costs, into, kicked, touched)
        kicked_length = _length(costs, kicked)
        if kicked_length < length - LEAST_GAIN:
            tour, length = kicked, kicked_length
    return tour


def _groups_of_equals(costs: Floats) -> list[Ints]:
    """The points in groups within which nothing costs anything and none differs from another; first that of 0 alone."""
    _, group = np.unique(np.hstack([costs, costs.T])[1:], axis=0, return_inverse=True)
    order = np.argsort(group, kind="stable")
    members = np.split(order + 1, np.flatnonzero(np.diff(group[order])) + 1)
    return [np.zeros(1, dtype=np.int64), *members]


def _length(costs: Floats, tour: Ints) -> float:
    return float(costs[tour, np.roll(tour, -1)].sum(dtype=np.float64))


def _nearest(costs: Floats) -> Ints:
    """From point 0 always to the nearest one left."""
    count = len(costs)
    left = np.ones(count, dtype=np.bool_)
    tour = np.zeros(count, dtype=np.int64)
    left[0] = False
    for place in range(1, count):
        row = np.where(left, costs[tour[place - 1]], np.inf)
        if place < count - 1:  # a fixed end is for the end
            row = row + np.where(costs[:, 0] >= FORBIDDEN, 0.0, FORBIDDEN if costs[:, 0].max() >= FORBIDDEN else 0.0)
        tour[place] = row.argmin()
        left[tour[place]] = False
    return tour


def _kicked(tour: Ints, random: np.random.Generator) -> tuple[Ints, Ints]:
    """The tour with two neighbouring stretches exchanged (a double bridge), and the points at its seams."""
    count = len(tour)
    first = int(random.integers(1, count - 2))
    places = np.arange(first + 1, min(first + LONGEST_KICKED, count))
    second, third = np.sort(random.choice(places, 2, replace=False)) if len(places) > 1 else (first + 1, first + 2)
    kicked = np.concatenate([tour[:first], tour[second:third], tour[first:second], tour[third:]])
    seams = np.array([first - 1, first, second - 1, second, third - 1, third % count])
    return kicked, np.unique(np.concatenate([tour[seams], kicked[seams]]))


class _Tour:
    """A tour from point 0, and what the moves ask of it again and again."""

    def __init__(self, costs: Floats, into: Floats, tour: Ints) -> None:
        self.costs, self.into = costs, into  # ``into`` is the transpose: a column as a row, which is read faster
        self.change_to(tour)

    def change_to(self, tour: Ints) -> None:
        self.points = tour
        self.after = np.concatenate([tour[1:], tour[:1]])
        self.before = np.concatenate([tour[-1:], tour[:-1]])
        self.edges = self.costs[tour, self.after]
        # [n]: what it costs more to go from the first point up to each one backwards than forwards.
        extra = self.costs[tour, self.before].astype(np.float64) - np.roll(self.edges, 1)
        extra[0] = 0.0
        self.backward = np.cumsum(extra)
        self.place = np.empty(len(tour), dtype=np.int64)
        self.place[tour] = np.arange(len(tour))

    def reverse_best(self, place: int) -> tuple[int, ...] | None:
        """Reverse the best stretch that begins or ends at ``place`` (2-opt); its seams, or None if none helps."""
        if place == 0:
            return None
        points, after, edges, backward = self.points, self.after, self.edges, self.backward
        here, previous, following = points[place], self.before[place], after[place]
        extra = backward[place]
        later, sooner = slice(place + 1, None), slice(1, place)
        to_later = self.costs[previous][points[later]] + self.costs[here][after[later]]
        gains = edges[place - 1] + edges[later] - to_later - (backward[later] - extra)
        to_sooner = self.into[here][self.before[sooner]] + self.into[following][points[sooner]]
        earlier = edges[: place - 1] + edges[place] - to_sooner - (extra - backward[sooner])
        both = np.concatenate([earlier, gains])
        if not len(both) or both.max() < LEAST_GAIN:
            return None
        best = int(both.argmax())
        low, high = (1 + best, place) if best < len(earlier) else (place, place + 1 + best - len(earlier))
        changed = points.copy()
        changed[low : high + 1] = points[low : high + 1][::-1]
        self.change_to(changed)
        return low - 1, low, high, high + 1

    def move_best(self, place: int) -> tuple[int, ...] | None:
        """Move the points from ``place`` on, up to ``LONGEST_MOVED``, to where it helps most (Or-opt); the seams."""
        points, after, edges = self.points, self.after, self.edges
        count, best_gain, best = len(points), LEAST_GAIN, None
        for stop in range(place + 1, min(place + LONGEST_MOVED, count) + 1) if place else ():
            first, last = points[place], points[stop - 1]
            removed = edges[place - 1] + edges[stop - 1] - self.costs[self.before[place], after[stop - 1]]
            turning = self.backward[stop - 1] - self.backward[place]
            for one, other, extra in ((first, last, 0.0), (last, first, turning))[: stop - place]:
                gains = removed - extra + edges - self.into[one][points] - self.costs[other][after]
                gains[place - 1 : stop] = 0.0  # where it is already
                choice = int(gains.argmax())
                if gains[choice] > best_gain:
                    best_gain, best = float(gains[choice]), (stop, choice, one != first)
        if best is None:
            return None
        stop, choice, turned = best
        stretch = points[place:stop][::-1] if turned else points[place:stop]
        if choice < place:
            parts = (points[: choice + 1], stretch, points[choice + 1 : place], points[stop:])
        else:
            parts = (points[:place], points[stop : choice + 1], stretch, points[choice + 1 :])
        self.change_to(np.concatenate(parts))
        size = stop - place
        return place - 1, place, stop - 1, stop, choice, choice + 1, choice + size, choice + 1 - size


def _improved(costs: Floats, into: Floats, points: Ints, first: Ints) -> Ints:
    """The tour after all moves that shorten it, looked for at the points ``first`` and then where it was changed."""
    tour = _Tour(costs, into, points)
    queue = deque(first.tolist())
    waiting = set(queue)
    while queue:
        point = queue.popleft()
        waiting.discard(point)
        seams = tour.reverse_best(int(tour.place[point])) or tour.move_best(int(tour.place[point]))
        for seam in {point, *(int(tour.points[seam % len(points)]) for seam in seams)} if seams else ():
            if seam not in waiting:
                waiting.add(seam)
                queue.append(seam)
    return tour.points


def _bound(costs: Floats, cost: float) -> float:
    """The greatest lower bound found by Held and Karp's ascent: 1-trees under prices of the points.

    A tour leaves each point once and comes to it once. So a price for leaving it and another for coming to it change
    no tour's rank, but they drive the tree, which takes the cheaper direction of each pair, towards a tour.
    """
    count = len(costs)
    into = np.ascontiguousarray(costs.T)
    prices = np.zeros((2, count), dtype=np.float32)  # of leaving, of coming
    best, step_size = 0.0, FIRST_STEP
    without_gain = 0
    for step in range(ASCENT_STEPS):
        length, used = _one_tree(costs, into, prices)
        value = length - float(prices.sum(dtype=np.float64))
        if value > best + 1e-6:
            best, without_gain = value, 0
        else:
            without_gain += 1
            if without_gain >= 5:
                step_size, without_gain = step_size * 0.7, 0
        slope = used - 1.0
        common = slope.mean(axis=0)
        if step < COMMON_STEPS and common.any():
            slope[:] = common
        if step == COMMON_STEPS:
            step_size, without_gain = FIRST_STEP, 0
        steep = float((slope**2).sum())
        if steep == 0 or best >= cost - 1e-6:
            break
        prices += np.float32(step_size * max(cost - value, 1e-3) / steep) * slope.astype(np.float32)
    return best


def _one_tree(costs: Floats, into: Floats, prices: Floats) -> tuple[float, npt.NDArray[np.float64]]:
    """Length of the cheapest tree of points 1..n-1 (Prim) and a way from and to point 0, priced; [2, n]: uses of each.

    A step of the tree goes in the cheaper direction; where both cost the same, it is half a use of either.
    """
    count = len(costs)
    leaving, coming = prices
    used = np.zeros((2, count))

    def ways_at(point: int) -> tuple[Floats, Floats]:
        away = costs[point] + (leaving[point] + coming)
        back = into[point] + (coming[point] + leaving)
        return away, back

    away, back = ways_at(1)
    distance = np.minimum(away, back)
    direction = np.sign(away - back)  # 1: the way back is cheaper
    nearest = np.ones(count, dtype=np.int64)
    distance[0] = distance[1] = np.inf
    length = 0.0
    for _ in range(count - 2):
        point = int(distance.argmin())
        length += float(distance[point])
        other, forwards = nearest[point], 0.5 - direction[point] / 2
        used[0, other] += forwards
        used[1, point] += forwards
        used[1, other] += 1 - forwards
        used[0, point] += 1 - forwards
        away, back = ways_at(point)
        row = np.minimum(away, back)
        closer = row < distance
        closer &= distance < np.inf
        distance[closer] = row[closer]
        direction[closer] = np.sign(away[closer] - back[closer])
        nearest[closer] = point
        distance[point] = np.inf
    away, back = ways_at(0)
    firsts, lasts = (1 + np.argpartition(row[1:], 1)[:2] for row in (away, back))
    pairs = [(float(away[first] + back[last]), first, last) for first in firsts for last in lasts if first != last]
    ends, first, last = min(pairs)
    for place in ((0, 0), (1, first), (0, last), (1, 0)):
        used[place] += 1
    return length + ends, used
