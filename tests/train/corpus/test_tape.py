from __future__ import annotations

import numpy as np
import pytest

from stonecli.detection.tuning import cents_of, frame_peaks
from stonecli.key import Key

pytest.importorskip("pedalboard")
pitch_fork = pytest.importorskip("stonecli_export.pitch_fork")

from stonecli_train.corpus.tape import detuned, saturated, wavering  # noqa: E402

RATE = 22050
MUSIC = pitch_fork.play_key(Key(0, "major"), 0, 10.0, RATE)


@pytest.mark.parametrize("cents", [-46.0, -20.0, 0.0, 7.0, 35.0, 46.0])
def test_detuning_changes_the_tuning_by_the_given_cents(cents: float) -> None:
    moved = detuned(MUSIC, RATE, cents)
    assert abs(len(moved) - len(MUSIC) / 2 ** (cents / 1200)) < 2
    measured = cents_of(frame_peaks(moved, RATE).resultant)
    assert measured is not None
    assert abs(measured - cents) < 3.0


@pytest.mark.parametrize("seed", range(5))
def test_wow_varies_the_pitch_around_its_mean(seed: int) -> None:
    tone = np.sin(2 * np.pi * 1000.0 * np.arange(20 * RATE) / RATE).astype(np.float32)
    out = wavering(np.random.default_rng(seed), tone, RATE, 15.0)
    assert out.shape == tone.shape
    analytic = np.fft.ifft(np.fft.fft(out) * (np.fft.fftfreq(len(out)) > 0))
    hertz = np.diff(np.unwrap(np.angle(analytic))) * RATE / (2 * np.pi)
    smooth = np.convolve(hertz[RATE:-RATE], np.full(200, 1 / 200), "valid")
    measured = 1200 * np.log2(smooth / 1000.0)
    assert abs(measured.mean()) < 1.0
    assert 9.0 < np.abs(measured).max() < 16.0


def test_saturation_keeps_the_level_and_flattens_the_peaks() -> None:
    music = MUSIC / np.abs(MUSIC).max()
    out = saturated(music, RATE, 15.0)
    assert np.std(out) == pytest.approx(np.std(music), rel=0.01)
    assert np.abs(out).max() < 0.8
