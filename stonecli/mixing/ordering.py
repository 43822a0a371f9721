"""Find a cheap path through all nodes of a cost matrix by local search, and a lower bound on the cost of any path.

This is the asymmetric traveling salesman problem with an open path. A dummy node 0, from and to which everything is
free, turns the path into a tour; if the start or the end is fixed, only the edge to that node is free. The tour is
constructed by nearest neighbor and improved by 2-opt and Or-opt moves (Bentley, *Fast Algorithms for Geometric
Traveling Salesman Problems*, 1992), which count a reversed section at its reversed costs, and by iterated local search
with double-bridge perturbations. The lower bound is the 1-tree bound (Held and Karp, *The Traveling-Salesman Problem
and Minimum Spanning Trees*, 1971) with separate multipliers for leaving and for entering a node.
"""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

FORBIDDEN = 1e4  # cost of a forbidden edge: above any total cost in practice, small enough for float32
MAX_EXHAUSTIVE = 7  # nodes, whose 5040 orders are tried quickly
MIN_GAIN = 1e-4  # smaller gains are rounding errors
MAX_OR_OPT = 3  # nodes that an Or-opt move takes along
PERTURBATIONS_PER_NODE, MAX_PERTURBATIONS = 20, 4000  # of the iterated local search; ten seconds at most
MAX_PERTURBED = 100  # nodes that a perturbation moves
ASCENT_STEPS = 200  # of the subgradient ascent of the bound
SYMMETRIC_STEPS = 40  # first steps of the ascent, with one multiplier per node: they get close to the bound sooner
FIRST_STEP = 2.0  # first step size of the ascent, as a multiple of Polyak's; reduced when the bound stops rising


@dataclass(frozen=True)
class Ordering:
    """An order of all nodes.

    Attributes:
        order: indices of the nodes.
        cost: total cost of the path.
        bound: lower bound on the cost of any order.
    """

    order: tuple[int, ...]
    cost: float
    bound: float

    @property
    def gap(self) -> float:
        """Largest share of the cost, 0..1, that a better order could save."""
        return max(0.0, 1.0 - self.bound / self.cost) if self.cost > MIN_GAIN else 0.0


def best_order(costs: Floats, start: int | None = None, end: int | None = None) -> Ordering:
    """A cheap order of the nodes 0..n-1: optimal up to ``MAX_EXHAUSTIVE`` nodes, always the same for the same input.

    Args:
        costs: float32 [n, n], cost from each node (row) to each other (column); not negative.
        start, end: first and last node, or None for any.

    Raises:
        ValueError: start and end are the same node, and there are others.
    """
    count = len(costs)
    if start is not None and start == end and count > 1:
        raise ValueError("the first and the last track are the same")
    if count <= MAX_EXHAUSTIVE:
        return _exhaustive_search(costs, start, end)
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
    bound = lower_bound(closed, _length(closed, tour))
    tour = _iterated_local_search(closed, tour, bound)
    cost = _length(closed, tour)
    bound = min(cost, bound)
    return Ordering(tuple((tour[1:] - 1).tolist()), cost, bound)


def _exhaustive_search(costs: Floats, start: int | None, end: int | None) -> Ordering:
    """The optimal order. With few nodes, perturbations change too little to leave a local optimum."""
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
    """A tour from node 0 that no single move shortens."""
    count = len(costs)
    groups = _duplicate_groups(costs)
    if len(groups) < count:  # such as many tracks in one key: order the groups first, because no move moves a group
        first = np.array([group[0] for group in groups])
        reduced = costs[np.ix_(first, first)]
        group_tour = _iterated_local_search(reduced, _local_search(reduced), 0.0)
        start = np.concatenate([groups[number] for number in group_tour])
    else:
        start = _nearest_neighbor_tour(costs)
    return _improved(costs, np.ascontiguousarray(costs.T), start, np.arange(count))


def _iterated_local_search(costs: Floats, tour: Ints, bound: float) -> Ints:
    """The best tour of repeated perturbation and local search; stops at ``bound``."""
    count, length = len(costs), _length(costs, tour)
    random = np.random.default_rng(0)
    costs_to = np.ascontiguousarray(costs.T)
    for _ in range(min(PERTURBATIONS_PER_NODE * count, MAX_PERTURBATIONS) if count > 4 else 0):
        if length <= bound + MIN_GAIN:
            break
        perturbed, changed = _double_bridge(tour, random)
        perturbed = _improved(costs, costs_to, perturbed, changed)
        perturbed_length = _length(costs, perturbed)
        if perturbed_length < length - MIN_GAIN:
            tour, length = perturbed, perturbed_length
    return tour


def _duplicate_groups(costs: Floats) -> list[Ints]:
    """The nodes, grouped by equal rows and columns of the cost matrix; the dummy node 0 is the first group."""
    _, group = np.unique(np.hstack([costs, costs.T])[1:], axis=0, return_inverse=True)
    order = np.argsort(group, kind="stable")
    members = np.split(order + 1, np.flatnonzero(np.diff(group[order])) + 1)
    return [np.zeros(1, dtype=np.int64), *members]


def _length(costs: Floats, tour: Ints) -> float:
    return float(costs[tour, np.roll(tour, -1)].sum(dtype=np.float64))


def _nearest_neighbor_tour(costs: Floats) -> Ints:
    """The tour that always continues to the nearest unvisited node."""
    count = len(costs)
    unvisited = np.ones(count, dtype=np.bool_)
    tour = np.zeros(count, dtype=np.int64)
    unvisited[0] = False
    for position in range(1, count):
        row = np.where(unvisited, costs[tour[position - 1]], np.inf)
        if position < count - 1:  # keep a fixed end for the last position
            row = row + np.where(costs[:, 0] >= FORBIDDEN, 0.0, FORBIDDEN if costs[:, 0].max() >= FORBIDDEN else 0.0)
        tour[position] = row.argmin()
        unvisited[tour[position]] = False
    return tour


def _double_bridge(tour: Ints, random: np.random.Generator) -> tuple[Ints, Ints]:
    """The tour with two adjacent sections exchanged, and the nodes at the changed edges."""
    count = len(tour)
    first = int(random.integers(1, count - 2))
    positions = np.arange(first + 1, min(first + MAX_PERTURBED, count))
    second, third = (
        np.sort(random.choice(positions, 2, replace=False)) if len(positions) > 1 else (first + 1, first + 2)
    )
    perturbed = np.concatenate([tour[:first], tour[second:third], tour[first:second], tour[third:]])
    changed = np.array([first - 1, first, second - 1, second, third - 1, third % count])
    return perturbed, np.unique(np.concatenate([tour[changed], perturbed[changed]]))


class _Tour:
    """A tour from node 0, with the arrays from which moves compute their gains.

    Args:
        costs: float32 [n, n], of going from a row to a column.
        costs_to: its transpose, contiguous, because rows are faster to read than columns.
        tour: the nodes in order.
    """

    def __init__(self, costs: Floats, costs_to: Floats, tour: Ints) -> None:
        self.costs, self.costs_to = costs, costs_to
        self.change_to(tour)

    def change_to(self, tour: Ints) -> None:
        self.nodes = tour
        self.after = np.concatenate([tour[1:], tour[:1]])
        self.before = np.concatenate([tour[-1:], tour[:-1]])
        self.edges = self.costs[tour, self.after]
        # [n]: extra cost of the tour up to each position if it is reversed.
        extra = self.costs[tour, self.before].astype(np.float64) - np.roll(self.edges, 1)
        extra[0] = 0.0
        self.reversal = np.cumsum(extra)
        self.position = np.empty(len(tour), dtype=np.int64)
        self.position[tour] = np.arange(len(tour))

    def reverse_best(self, position: int) -> tuple[int, ...] | None:
        """Reverse the section that starts or ends at ``position`` and gains most (2-opt).

        Returns:
            The positions at the changed edges; None if nothing is gained.
        """
        if position == 0:
            return None
        nodes, after, edges, reversal = self.nodes, self.after, self.edges, self.reversal
        here, previous, following = nodes[position], self.before[position], after[position]
        extra = reversal[position]
        ends, starts = slice(position + 1, None), slice(1, position)
        to_ends = self.costs[previous][nodes[ends]] + self.costs[here][after[ends]]
        end_gains = edges[position - 1] + edges[ends] - to_ends - (reversal[ends] - extra)
        to_starts = self.costs_to[here][self.before[starts]] + self.costs_to[following][nodes[starts]]
        start_gains = edges[: position - 1] + edges[position] - to_starts - (extra - reversal[starts])
        gains = np.concatenate([start_gains, end_gains])
        if not len(gains) or gains.max() < MIN_GAIN:
            return None
        best = int(gains.argmax())
        earlier = len(start_gains)
        low, high = (1 + best, position) if best < earlier else (position, position + 1 + best - earlier)
        changed = nodes.copy()
        changed[low : high + 1] = nodes[low : high + 1][::-1]
        self.change_to(changed)
        return low - 1, low, high, high + 1

    def move_best(self, position: int) -> tuple[int, ...] | None:
        """Move a section of up to ``MAX_OR_OPT`` nodes from ``position`` on to where it gains most (Or-opt).

        Returns:
            The positions at the changed edges; None if nothing is gained.
        """
        nodes, after, edges = self.nodes, self.after, self.edges
        count, best_gain, best = len(nodes), MIN_GAIN, None
        for stop in range(position + 1, min(position + MAX_OR_OPT, count) + 1) if position else ():
            first, last = nodes[position], nodes[stop - 1]
            removed = edges[position - 1] + edges[stop - 1] - self.costs[self.before[position], after[stop - 1]]
            reversing = self.reversal[stop - 1] - self.reversal[position]
            for head, tail, extra in ((first, last, 0.0), (last, first, reversing))[: stop - position]:
                gains = removed - extra + edges - self.costs_to[head][nodes] - self.costs[tail][after]
                gains[position - 1 : stop] = 0.0  # the section itself
                choice = int(gains.argmax())
                if gains[choice] > best_gain:
                    best_gain, best = float(gains[choice]), (stop, choice, head != first)
        if best is None:
            return None
        stop, choice, is_reversed = best
        section = nodes[position:stop][::-1] if is_reversed else nodes[position:stop]
        if choice < position:
            parts = (nodes[: choice + 1], section, nodes[choice + 1 : position], nodes[stop:])
        else:
            parts = (nodes[:position], nodes[stop : choice + 1], section, nodes[choice + 1 :])
        self.change_to(np.concatenate(parts))
        size = stop - position
        return position - 1, position, stop - 1, stop, choice, choice + 1, choice + size, choice + 1 - size


def _improved(costs: Floats, costs_to: Floats, nodes: Ints, first: Ints) -> Ints:
    """The tour after all moves that shorten it, tried at the nodes ``first`` and then wherever an edge has changed."""
    tour = _Tour(costs, costs_to, nodes)
    queue = deque(first.tolist())
    queued = set(queue)
    while queue:
        node = queue.popleft()
        queued.discard(node)
        changed = tour.reverse_best(int(tour.position[node])) or tour.move_best(int(tour.position[node]))
        for other in {node, *(int(tour.nodes[at % len(nodes)]) for at in changed)} if changed else ():
            if other not in queued:
                queued.add(other)
                queue.append(other)
    return tour.nodes


def lower_bound(costs: Floats, cost: float) -> float:
    """The greatest 1-tree bound that Held and Karp's subgradient ascent finds.

    A tour leaves and enters each node once. So a multiplier for leaving a node and another for entering it change the
    cost of all tours by the same amount. They drive the 1-tree, which takes the cheaper direction of each edge, towards
    a tour.

    Args:
        costs: float32 [n, n].
        cost: cost of a known tour, for the step size.
    """
    count = len(costs)
    costs_to = np.ascontiguousarray(costs.T)
    multipliers = np.zeros((2, count), dtype=np.float32)  # for leaving and for entering each node
    best, step_size = 0.0, FIRST_STEP
    without_gain = 0
    for step in range(ASCENT_STEPS):
        length, degrees = _one_tree(costs, costs_to, multipliers)
        value = length - float(multipliers.sum(dtype=np.float64))
        if value > best + 1e-6:
            best, without_gain = value, 0
        else:
            without_gain += 1
            if without_gain >= 5:
                step_size, without_gain = step_size * 0.7, 0
        subgradient = degrees - 1.0
        mean = subgradient.mean(axis=0)
        if step < SYMMETRIC_STEPS and mean.any():
            subgradient[:] = mean
        if step == SYMMETRIC_STEPS:
            step_size, without_gain = FIRST_STEP, 0
        norm = float((subgradient**2).sum())
        if norm == 0 or best >= cost - 1e-6:
            break
        multipliers += np.float32(step_size * max(cost - value, 1e-3) / norm) * subgradient.astype(np.float32)
    return best


def _one_tree(costs: Floats, costs_to: Floats, multipliers: Floats) -> tuple[float, npt.NDArray[np.float64]]:
    """The cheapest 1-tree: a spanning tree of the nodes 1..n-1 (Prim's algorithm), and one edge from and to node 0.

    Returns:
        Its length with the multipliers, and float64 [2, n], how often it leaves and enters each node. An edge of the
        tree has the cheaper direction; if both directions cost the same, it counts half in either.
    """
    count = len(costs)
    leaving, entering = multipliers
    degrees = np.zeros((2, count))

    def edges_at(node: int) -> tuple[Floats, Floats]:
        outgoing = costs[node] + (leaving[node] + entering)
        incoming = costs_to[node] + (entering[node] + leaving)
        return outgoing, incoming

    outgoing, incoming = edges_at(1)
    distance = np.minimum(outgoing, incoming)
    direction = np.sign(outgoing - incoming)  # 1: the incoming edge is cheaper
    nearest = np.ones(count, dtype=np.int64)
    distance[0] = distance[1] = np.inf
    length = 0.0
    for _ in range(count - 2):
        node = int(distance.argmin())
        length += float(distance[node])
        parent, forward = nearest[node], 0.5 - direction[node] / 2
        degrees[0, parent] += forward
        degrees[1, node] += forward
        degrees[1, parent] += 1 - forward
        degrees[0, node] += 1 - forward
        outgoing, incoming = edges_at(node)
        row = np.minimum(outgoing, incoming)
        closer = row < distance
        closer &= distance < np.inf
        distance[closer] = row[closer]
        direction[closer] = np.sign(outgoing[closer] - incoming[closer])
        nearest[closer] = node
        distance[node] = np.inf
    ends, first, last = _cheapest_ends(*edges_at(0))
    for entry in ((0, 0), (1, first), (0, last), (1, 0)):
        degrees[entry] += 1
    return length + ends, degrees


def _cheapest_ends(outgoing: Floats, incoming: Floats) -> tuple[float, int, int]:
    """The total cost and the nodes of the cheapest edges from and to node 0, which lead to different nodes."""
    firsts, lasts = (1 + np.argpartition(row[1:], 1)[:2] for row in (outgoing, incoming))
    pairs = [
        (float(outgoing[first] + incoming[last]), int(first), int(last))
        for first in firsts
        for last in lasts
        if first != last
    ]
    return min(pairs)
