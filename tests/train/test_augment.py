from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from stonecli_train.augment import augmented, band_limited  # noqa: E402


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    frames=st.integers(1, 120),
    bins=st.integers(12, 110),
    level=st.sampled_from([0, 100, 255]),
)
def test_augmentation_keeps_shape_and_type(seed: int, frames: int, bins: int, level: int) -> None:
    segment = np.full((frames, bins), level, np.uint8)
    for change in (augmented, band_limited):
        changed = change(segment, np.random.default_rng(seed))
        assert changed.shape == segment.shape
        assert changed.dtype == np.uint8
        assert (segment == level).all()


def test_it_is_a_function_of_its_generator() -> None:
    segment = np.random.default_rng(0).integers(0, 256, (200, 99)).astype(np.uint8)
    one, same, other = (augmented(segment, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    assert (one != segment).any()


def test_augmentation_keeps_the_pitches() -> None:
    """Over many draws, the bins of a chord stay as prominent relative to their neighbors."""
    segment = np.full((200, 99), 60, np.uint8)
    notes = np.array([27, 31, 34, 39, 43, 46])
    segment[:, notes] = 220
    contrast = []
    for seed in range(100):
        profile = augmented(segment, np.random.default_rng(seed)).mean(axis=0)
        contrast.append((profile[notes] - profile[notes + 1]).min())
    assert min(contrast) >= -1  # at worst drowned in noise, never inverted
    assert np.median(contrast) > 80


def test_another_recording_changes_timbre_but_not_pitches() -> None:
    segment = np.full((200, 99), 60, np.uint8)
    notes, theirs = np.array([27, 31, 34, 39, 43, 46]), np.array([25, 29, 33, 37, 41, 48])
    segment[:, notes] = 220
    other = np.tile(np.linspace(250, 20, 99).astype(np.uint8), (200, 1))
    other[:, theirs] = 255
    own, foreign, tilts = [], [], []
    for seed in range(100):
        profile = augmented(segment, np.random.default_rng(seed), other).mean(axis=0)
        plain = augmented(segment, np.random.default_rng(seed)).mean(axis=0)
        own.append(np.mean(profile[notes] - profile[notes + 1]))
        foreign.append(np.mean(profile[theirs] - profile[theirs + 1]))
        tilts.append((profile[10:20].mean() - profile[80:90].mean()) - (plain[10:20].mean() - plain[80:90].mean()))
    assert np.median(own) > 40
    assert max(foreign) < 0.4 * np.median(own)
    assert 20 < np.mean(tilts) < 200  # bass as loud as theirs


def test_every_kind_of_change_occurs() -> None:
    """Dimmed ends, hits that cover all bins for a moment, a floor under silence, louder and quieter levels."""
    segment = np.zeros((300, 99), np.uint8)
    segment[:, 20:80] = 128
    draws = [augmented(segment, np.random.default_rng(seed)).astype(float) for seed in range(200)]
    floors = sum(draw[:, 85:].mean() > 20 and draw[:, 85:].std(axis=0).mean() < 12 for draw in draws)
    hits = sum(draw[:, 85:].mean(axis=1).std() > 6 for draw in draws)
    middle = [float(draw[:, 45:55].mean()) for draw in draws]
    assert 20 < floors < 180
    assert 30 < hits < 90  # three tenths of 200
    assert min(middle) < 110
    assert max(middle) > 135


def test_a_band_limit_attenuates_the_other_bins() -> None:
    segment = np.random.default_rng(0).integers(0, 256, (50, 99)).astype(np.uint8)
    lost = []
    for seed in range(100):
        change = band_limited(segment, np.random.default_rng(seed)).astype(int) - segment
        assert (change[:, 46:74] == 0).all()
        assert (change <= 0).all()
        assert (change >= -130).all()
        lost.append((change < 0).any(axis=0))
    share = np.mean(lost, axis=0)
    assert share[0] > 0.9
    assert share[98] > 0.9
    assert (np.diff(share[:46]) <= 0).all()
    assert (np.diff(share[74:]) >= 0).all()
