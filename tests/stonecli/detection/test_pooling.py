from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_numpy

from stonecli.detection.pooling import apply_exponent, recording_probabilities
from stonecli.model.session import KeyModel, default_model

ROWS = hypothesis_numpy.arrays(np.float32, 24, elements=st.floats(0.0, 1.0, width=32))


@pytest.fixture(scope="module")
def model() -> KeyModel:
    return default_model()


@given(ROWS.filter(lambda row: row.sum() > 0), st.floats(0.01, 400.0))
def test_the_order_is_kept_and_the_sum_is_one(row: np.ndarray, power: float) -> None:
    mean = row / row.sum()
    made = apply_exponent(mean, power)
    assert made.dtype == np.float32
    assert made.sum() == pytest.approx(1.0, abs=1e-5)
    assert made[mean.argmax()] == made.max()
    assert np.all(np.diff(made[np.argsort(mean, kind="stable")]) >= 0)


def test_a_power_of_one_changes_nothing() -> None:
    mean = np.random.default_rng(0).dirichlet(np.ones(24)).astype(np.float32)
    assert apply_exponent(mean, 1.0) is mean


def test_many_windows_are_surer_than_one(model: KeyModel) -> None:
    info = replace(
        model.info, posterior_exponent=0.8, exponent_per_doubling=0.3, major_prior_odds=1.0, window_seconds=15.0
    )
    mean = np.full(24, 0.4 / 23, dtype=np.float32)
    mean[3] = 0.6
    sure = [float(recording_probabilities(mean, seconds, info)[3]) for seconds in (4, 15, 30, 60, 240)]
    assert sure[0] == sure[1] < 0.6 < sure[2] < sure[3] < sure[4]
    powered = mean.astype(np.float64) ** (0.8 + 0.3 * 2)
    assert sure[3] == pytest.approx(powered[3] / powered.sum(), abs=1e-6)


def test_a_model_without_calibration(model: KeyModel) -> None:
    info = replace(model.info, posterior_exponent=1.0, exponent_per_doubling=0.0, major_prior_odds=1.0)
    mean = np.random.default_rng(0).dirichlet(np.ones(24)).astype(np.float32)
    np.testing.assert_array_equal(recording_probabilities(mean, 600.0, info), mean)


@pytest.mark.parametrize("seconds", [4.0, 600.0])
@pytest.mark.parametrize("odds", [0.5, 1.8])
def test_the_odds_of_major_count_once(model: KeyModel, odds: float, seconds: float) -> None:
    info = replace(model.info, posterior_exponent=1.0, exponent_per_doubling=0.0, major_prior_odds=odds)
    mean = np.random.default_rng(0).dirichlet(np.ones(24)).astype(np.float32)
    before = mean.copy()
    leant = recording_probabilities(mean, seconds, info)
    expected = mean * np.repeat([odds, 1.0], 12)
    np.testing.assert_allclose(leant, expected / expected.sum(), rtol=1e-5)
    np.testing.assert_array_equal(mean, before)
