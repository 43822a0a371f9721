from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("pedalboard")

from stonecli_train.corpus.amplifier import amplified, cabinet
from stonecli_train.corpus.levels import rms

RATE = 22050
TIME = np.arange(2 * RATE) / RATE


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_an_amplifier_adds_harmonics_at_the_same_level_and_pitch() -> None:
    tone = (0.1 * np.sin(2 * np.pi * 220 * TIME)).astype(np.float32)
    for seed in range(5):
        out = amplified(rng(seed), tone, RATE, 30.0)
        assert out.shape == tone.shape
        assert out.dtype == np.float32
        assert rms(out) == pytest.approx(rms(tone), rel=0.01)
        spectrum = np.abs(np.fft.rfft(out))
        harmonics = spectrum[[int(2 * 220 * number) for number in (3, 5, 7)]]
        assert harmonics.min() > 0.01 * spectrum.max()
        between = spectrum.copy()  # contains the aliases
        for number in range(60):
            index = 440 * number
            between[max(0, index - 30) : index + 31] = 0.0
        assert between.max() < 0.02 * spectrum.max()


def test_more_drive_gives_more_harmonics() -> None:
    tone = (0.1 * np.sin(2 * np.pi * 220 * TIME)).astype(np.float32)
    shares = []
    for drive in (4.0, 20.0, 40.0):
        spectrum = np.abs(np.fft.rfft(amplified(rng(1), tone, RATE, drive))) ** 2
        shares.append(spectrum[1000:].sum() / spectrum.sum())
    assert shares[0] < shares[1] < shares[2]


def test_silence_stays_silence() -> None:
    assert not amplified(rng(), np.zeros(RATE, dtype=np.float32), RATE, 30.0).any()


@pytest.mark.parametrize("seed", range(10))
def test_a_cabinet_is_a_loudspeaker(seed: int) -> None:
    response = cabinet(rng(seed), RATE)
    assert np.isfinite(response).all()
    assert np.argmax(np.abs(response)) < 20  # of minimum phase: no delay
    decibels = 20 * np.log10(np.abs(np.fft.rfft(response, RATE)) + 1e-9)
    middle = decibels[1000:3500].mean()
    assert decibels[9000:].max() < middle - 20
    assert decibels[20:35].mean() < middle - 6
    assert np.array_equal(response, cabinet(rng(seed), RATE))
