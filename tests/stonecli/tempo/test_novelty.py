"""Band levels and onset novelty."""

from __future__ import annotations

import numpy as np
import pytest

from stonecli.tempo import novelty as novelty_module
from stonecli.tempo.novelty import BANDS, BandLevels, novelty
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
    for factor in (2, 3, 5, 7):
        while size % factor == 0:
            size //= factor
    assert size == 1


def test_the_bands_are_the_same_at_44_and_48_kilohertz() -> None:
    """Windows of 256 and, filled up with zeros, 280 samples."""
    means = []
    for rate in (11025, 12000):
        levels = BandLevels(rate)
        time = np.arange(4 * rate) / rate
        for hertz in (110.0, 440.0, 1760.0):
            levels.add((0.3 * np.sin(2.0 * np.pi * hertz * time)).astype(np.float32))
        means.append(levels.finish().astype(float).mean(axis=0))
    loud = means[0] > means[0].max() - 2.0  # 20 dB
    assert means[1][loud] == pytest.approx(means[0][loud], abs=0.2)  # 2 dB: the bins differ
