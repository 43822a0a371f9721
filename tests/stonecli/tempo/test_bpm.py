"""Folding and rounding of tempos."""

from __future__ import annotations

import pytest

from stonecli.tempo.bpm import fold_tempo, rounded_bpm


@pytest.mark.parametrize(
    ("bpm", "low", "high", "expected"),
    [
        (174.0, 80.0, 160.0, 87.0),
        (70.0, 80.0, 160.0, 140.0),
        (120.0, 80.0, 160.0, 120.0),
        (80.0, 80.0, 160.0, 80.0),
        (160.0, 80.0, 160.0, 160.0),
        (40.0, 88.0, 175.0, 160.0),
        (240.0, 58.0, 115.0, 60.0),
        (176.0, 58.0, 115.0, 88.0),
        (87.2, 88.0, 174.0, 87.2),  # no octave of it is inside: it stays
        (87.0, 120.0, 130.0, 87.0),
        (128.0, 80.0, 100.0, 128.0),
        (60.0, 239.0, 241.0, 240.0),
    ],
)
def test_fold(bpm: float, low: float, high: float, expected: float) -> None:
    assert fold_tempo(bpm, low, high) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("bpm", "expected"), [(127.96, 128.0), (128.04, 128.0), (127.94, 127.94), (87.503, 87.5), (174.987, 175.0)]
)
def test_round(bpm: float, expected: float) -> None:
    assert rounded_bpm(bpm) == expected
