"""The estimate for one recording (:class:`KeyEstimate`) and for one window of it (:class:`Window`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from stonecli.detection.segments import Segment
from stonecli.key import Key

if TYPE_CHECKING:
    from stonecli.tempo.estimate import TempoEstimate

AMBIGUOUS_CENTS = 40.0  # from here on a recording is between two semitones, and its key has two names

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Window:
    """The estimate for one window.

    Attributes:
        start, end: position in the recording in seconds.
        tonal: whether the window has tonal content; windows without are ignored.
        probabilities: float32 [24] by ``Key.index``.
        classes: float32 [classes], the model's raw output in its own class order.
    """

    start: float
    end: float
    tonal: bool
    probabilities: Floats
    classes: Floats

    @property
    def key(self) -> Key | None:
        """The most probable key; None if the window is not tonal."""
        return Key.from_index(int(self.probabilities.argmax())) if self.tonal else None

    @property
    def confidence(self) -> float:
        """Probability of ``key``, 0..1; 0 without one."""
        return float(self.probabilities.max()) if self.tonal else 0.0


@dataclass(frozen=True, eq=False)
class KeyEstimate:
    """The estimate for one recording.

    Attributes:
        key: the key; None if nothing is tonal (silence, noise), or if the mean probability is below the rejection
            threshold (speech, drums; ``ModelInfo.rejection_threshold``).
        confidence: 0..1; 0 without a key.
        probabilities: float32 [24] by ``Key.index``, pooled over the tonal windows; uniform if there are none.
        windows: the estimates of the windows, in order.
        segments: the keys of the recording over time; empty without a key.
        tuning_cents: deviation from A = 440 Hz, -50..50; None if nothing is tonal.
        duration: in seconds.
        tuning_confidence: mean resultant length of the tuning, 0..1: 1 if all frames agree; None if unknown.
        notes: warnings about the file for the user, such as a wrong duration in its header; empty for results from the
            cache.
        tempo: the tempo; None if it was not asked for.
    """

    key: Key | None
    confidence: float
    probabilities: Floats
    windows: tuple[Window, ...]
    segments: tuple[Segment, ...]
    tuning_cents: float | None
    duration: float
    tuning_confidence: float | None = None
    notes: tuple[str, ...] = ()
    tempo: TempoEstimate | None = None

    @property
    def first_key(self) -> Key | None:
        """Key of the first segment, for mixing in."""
        return self.segments[0].key if self.segments else None

    @property
    def last_key(self) -> Key | None:
        """Key of the last segment, for mixing out."""
        return self.segments[-1].key if self.segments else None

    @property
    def other_name(self) -> Key | None:
        """The key a semitone from ``key`` that fits nearly as well, if the tuning is between the two; else None."""
        if self.key is None or self.tuning_cents is None or abs(self.tuning_cents) < AMBIGUOUS_CENTS:
            return None
        return self.key.transposed(1 if self.tuning_cents > 0 else -1)

    @property
    def alternatives(self) -> list[tuple[Key, float]]:
        """All 24 keys with their probabilities, the most probable first."""
        order = np.argsort(-self.probabilities, kind="stable")
        return [(Key.from_index(int(index)), float(self.probabilities[index])) for index in order]
