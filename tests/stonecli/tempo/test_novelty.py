"""Band levels and onset novelty."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from stonecli.tempo import attacks as attacks_module
from stonecli.tempo import novelty as novelty_module
from stonecli.tempo.attacks import has_attacks
from stonecli.tempo.novelty import BANDS, BandLevels, loudness, novelty
from stonecli.tempo.periodicity import periodicity
from tests.stonecli.tempo.sounds import RATE


def test_a_sine_is_loudest_in_its_band() -> None:
    time = np.arange(RATE) / RATE
    loudest = []
    for hertz in (100.0, 400.0, 1600.0, 4000.0):
        levels = BandLevels(RATE)
        levels.add(np.sin(2.0 * np.pi * hertz * time).astype(np.float32))
        loudest.append(int(levels.finish().astype(float).mean(axis=0).argmax()))
    assert loudest == sorted(set(loudest))


def test_an_onset_is_where_the_sound_begins() -> None:
    samples = np.zeros(2 * RATE, dtype=np.float32)
    samples[RATE:] = np.random.default_rng(0).standard_normal(RATE)
    levels = BandLevels(RATE)
    levels.add(samples)
    rises = novelty(levels.finish())
    assert (rises.argmax(axis=0) / levels.frame_rate == pytest.approx(1.0, abs=0.03)) is True


def test_the_number_of_frames_does_not_depend_on_the_blocks() -> None:
    samples = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    whole, parts = BandLevels(RATE), BandLevels(RATE)
    whole.add(samples)
    for start in range(0, len(samples), 777):
        parts.add(samples[start : start + 777])
    assert np.array_equal(whole.finish(), parts.finish())


def test_only_the_start_of_a_very_long_recording_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(novelty_module, "MAX_SECONDS", 10.0)
    levels = BandLevels(RATE)
    for _ in range(30):
        levels.add(np.zeros(RATE, dtype=np.float32))
    assert levels.finish().shape == (round(10.0 * levels.frame_rate), BANDS)


def test_too_few_frames_have_no_novelty() -> None:
    assert not novelty(np.zeros((2, BANDS), dtype=np.float16)).any()


@pytest.mark.parametrize("rate", [8000, 11025, 12000, 16000, 22050, 24000, 11025 * 1.01])
def test_the_fft_has_a_size_that_is_fast(rate: float) -> None:
    """At 12 kHz, a quarter of 48 kHz, the window has 2 * 139 samples, and its FFT took five times as long."""
    size = BandLevels(rate).fft_size
    assert size % 2 == 0
    for factor in (2, 3):
        while size % factor == 0:
            size //= factor
    assert size == 1


@pytest.mark.parametrize("rate", [1000, 4000])
def test_bands_above_half_the_rate_are_silent(rate: int) -> None:
    samples = np.random.default_rng(0).standard_normal(4 * rate).astype(np.float32)
    levels = BandLevels(rate)
    levels.add(samples)
    found = levels.finish()
    assert np.isfinite(found).all()
    assert (found[:, -1] == found.min()).all()


def test_numpy_that_transforms_in_double_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy before 2.0 does, whatever the type of the input."""
    samples = np.random.default_rng(0).standard_normal(20 * RATE).astype(np.float32)

    def analyzed() -> tuple[npt.NDArray[np.float16], npt.NDArray[np.float32]]:
        levels = BandLevels(RATE)
        levels.add(samples)
        found = levels.finish()
        return found, periodicity(novelty(found), levels.frame_rate)

    single = analyzed()
    transform = np.fft.rfft
    monkeypatch.setattr(np.fft, "rfft", lambda values, *size: transform(values.astype(np.float64), *size))
    for first, second in zip(single, analyzed(), strict=True):
        assert second == pytest.approx(first, abs=2e-3)


@pytest.mark.parametrize("frames", [1, 7, 64])
def test_the_novelty_does_not_depend_on_the_chunks(frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    levels = np.random.default_rng(0).normal(-3.0, 1.0, (200, BANDS)).astype(np.float16)
    whole = novelty(levels)
    attacks = has_attacks(levels, loudness(levels))
    monkeypatch.setattr(novelty_module, "CHUNK", frames)
    monkeypatch.setattr(attacks_module, "CHUNK", frames)
    assert novelty(levels) == pytest.approx(whole, abs=1e-4)
    assert has_attacks(levels, loudness(levels)) == attacks


def test_the_bands_are_the_same_at_44_and_48_kilohertz() -> None:
    """Windows of 256 and, filled up with zeros, 288 samples."""
    means = []
    for rate in (11025, 12000):
        levels = BandLevels(rate)
        time = np.arange(4 * rate) / rate
        for hertz in (110.0, 440.0, 1760.0):
            levels.add((0.3 * np.sin(2.0 * np.pi * hertz * time)).astype(np.float32))
        means.append(levels.finish().astype(float).mean(axis=0))
    loud = means[0] > means[0].max() - 2.0  # 20 dB
    assert means[1][loud] == pytest.approx(means[0][loud], abs=0.35)  # 3.5 dB: the bins differ
