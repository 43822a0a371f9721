"""Resampling by matrix products, compared with sines at the target rate."""

import numpy as np
import numpy.typing as npt
import pytest
import soxr

from stonecli.audio.resample import MAX_RATIO, MIN_RATIO, TOLERANCE, Resampler

Floats = npt.NDArray[np.float32]
LOW = 11025.0


def sine(hertz: float, rate: float, count: int) -> Floats:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(count) / rate + 0.3)).astype(np.float32)


def met(resampler: Resampler, rate: float) -> float:
    """The rate after resampling."""
    assert resampler.period is not None
    return rate * resampler.period[1] / resampler.period[0]


@pytest.mark.parametrize("cents", [-50.0, -12.0, -0.5, 0.5, 1.3, 5.0, 31.4, 50.0])
def test_the_sample_rate_is_that_of_the_model(cents: float) -> None:
    for rate in (LOW, 12000.0):
        target = LOW * 2 ** (cents / 1200)
        assert MIN_RATIO < target / rate < MAX_RATIO
        assert met(Resampler(rate, target), rate) / target == pytest.approx(1.0, abs=2.2 * TOLERANCE)


@pytest.mark.parametrize("rate", [LOW, 12000.0])
@pytest.mark.parametrize("cents", [-49.0, -3.0, 0.7, 12.0, 49.0])
@pytest.mark.parametrize("hertz", [30.0, 440.0, 1800.0, 3320.0, 3750.0])
def test_up_to_a_third_of_the_rate_sines_are_sines(rate: float, cents: float, hertz: float) -> None:
    target = LOW * 2 ** (cents / 1200)
    resampler = Resampler(rate, target)
    found = resampler(sine(hertz, rate, 50_000))
    assert found.dtype == np.float32
    assert len(found) == round(50_000 * target / rate)
    wrong = (found - sine(hertz, met(resampler, rate), len(found)))[20:-20]
    assert np.abs(wrong).max() < 0.5 * 10 ** (-65 / 20)  # soxr MQ: -44 dB at the highest of them


@pytest.mark.parametrize(("hertz", "rate"), [(4200.0, 12000.0), (4700.0, 12000.0), (5900.0, 12000.0), (5200.0, LOW)])
def test_high_frequencies_are_not_aliased(hertz: float, rate: float) -> None:
    target = LOW * 2 ** (20 / 1200)
    found = Resampler(rate, target)(sine(hertz, rate, 50_000))[100:-100]
    spectrum = np.abs(np.fft.rfft(found * np.hanning(len(found)))) / (0.125 * len(found))
    within = np.fft.rfftfreq(len(found), 1 / target) < 0.35 * LOW
    assert spectrum[within].max() < 10 ** (-70 / 20)
    assert spectrum.max() > 0.01


@pytest.mark.parametrize("count", [1, 15, 16, 31, 499, 500, 501, 4000, 100_003])
def test_all_lengths(count: int) -> None:
    noise = np.random.default_rng(count).standard_normal(count).astype(np.float32)
    target = LOW * 2 ** (-17 / 1200)
    resampler = Resampler(LOW, target)
    found = resampler(noise)
    assert len(found) == round(count * target / LOW)
    padded = resampler(np.concatenate([noise, np.zeros(700, np.float32)]))
    np.testing.assert_allclose(found, padded[: len(found)], atol=1e-6)


def test_chunk_boundaries_do_not_change_the_output() -> None:
    noise = np.random.default_rng(1).standard_normal(60_000).astype(np.float32)
    resampler = Resampler(LOW, LOW * 2 ** (8 / 1200))
    assert resampler.period is not None
    inputs, outputs = resampler.period
    whole, later = resampler(noise), resampler(noise[3 * inputs :])
    np.testing.assert_allclose(whole[3 * outputs + 20 :], later[20:], atol=1e-6)


@pytest.mark.parametrize(("rate", "target"), [(16000.0, LOW), (8000.0, LOW), (44100.0, 22050.0)])
def test_other_ratios_are_soxrs(rate: float, target: float) -> None:
    noise = np.random.default_rng(1).standard_normal(8000).astype(np.float32)
    np.testing.assert_array_equal(Resampler(rate, target)(noise), soxr.resample(noise, rate, target, quality="MQ"))


def test_equal_rates_change_no_sample() -> None:
    noise = np.random.default_rng(1).standard_normal(8000).astype(np.float32)
    assert Resampler(LOW, LOW)(noise) is noise
