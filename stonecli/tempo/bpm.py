"""Octaves and rounding of a tempo: 87 and 174 beats per minute are the same music, counted in two ways."""

from __future__ import annotations

import math
from typing import NamedTuple

WHOLE_BPM = 0.05  # distance from a whole number up to which a tempo is rounded to it


class BpmRange(NamedTuple):
    """Lowest and highest tempo in beats per minute."""

    low: float
    high: float


def fold_tempo(bpm: float, low: float, high: float) -> float:
    """``bpm`` halved or doubled into ``low`` to ``high``, in beats per minute.

    A tempo inside stays, and so does one without an octave inside: a range may be narrower than an octave.
    """
    if low <= bpm <= high:
        return bpm
    nearest = bpm * 2.0 ** round(math.log2(math.sqrt(low * high) / bpm))
    return next((tempo for tempo in (nearest, nearest / 2.0, nearest * 2.0) if low <= tempo <= high), bpm)


def rounded_bpm(bpm: float) -> float:
    """The tempo with at most two decimals; a whole number if it is within 0.05 of one."""
    whole = round(bpm)
    return float(whole) if abs(bpm - whole) <= WHOLE_BPM else round(bpm, 2)
