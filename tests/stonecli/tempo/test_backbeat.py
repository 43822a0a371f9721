"""The alternation of kick and snare at a tempo, its half and its double."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from stonecli.tempo.backbeat import backbeat

FRAME_RATE = 86.0
LOW, HIGH = (1.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 1.0)
BOTH = (1.0, 1.0, 1.0, 1.0)


def pattern(bpm: float, beats: tuple[tuple[float, ...], ...], seconds: float = 30.0) -> npt.NDArray[np.float32]:
    """Novelty [frames, 4] of onsets on every beat, with these levels of the bands in turn."""
    out = np.full((round(seconds * FRAME_RATE), 4), 0.01, dtype=np.float32)
    for beat in range(int(seconds * bpm / 60.0)):
        out[round(beat * 60.0 / bpm * FRAME_RATE)] += beats[beat % len(beats)]
    return out


@pytest.mark.parametrize("bpm", [60.0, 97.3, 174.0])
def test_kick_and_snare_alternate_at_the_beat_alone(bpm: float) -> None:
    half, beat, double = backbeat(pattern(bpm, (LOW, HIGH)), FRAME_RATE, bpm)
    assert beat > 0.3
    assert abs(half) < 0.05
    assert double < 0.05


def test_the_octave_of_the_given_tempo_does_not_matter() -> None:
    novelty = pattern(80.0, (LOW, HIGH))
    assert backbeat(novelty, FRAME_RATE, 160.0)[0] > 0.3
    assert backbeat(novelty, FRAME_RATE, 40.0)[2] > 0.3


def test_off_beats_that_are_softer_in_all_bands_count_against() -> None:
    half, beat, _ = backbeat(pattern(140.0, (BOTH, (0.2, 0.2, 0.2, 0.2))), FRAME_RATE, 140.0)
    assert beat < -0.3
    assert abs(half) < 0.05


def test_equal_beats_say_nothing() -> None:
    half, beat, _ = backbeat(pattern(120.0, (BOTH,)), FRAME_RATE, 120.0)
    assert abs(half) < 0.05
    assert abs(beat) < 0.05


@pytest.mark.parametrize("novelty", [np.zeros((400, 4)), np.zeros((1, 4)), np.full((90, 4), 3.0)])
def test_silence_and_short_sounds_give_zeros(novelty: npt.NDArray[np.float64]) -> None:
    assert backbeat(novelty.astype(np.float32), FRAME_RATE, 120.0) == pytest.approx([0.0, 0.0, 0.0], abs=1e-3)
