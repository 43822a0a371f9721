from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stonecli.key import Key
from stonecli.tuning import cents_of, frame_peaks
from train.corpus.effects import (
    Effects,
    amplified,
    apply_effects,
    coded,
    compressed,
    detuned,
    draw_effects,
)

pitch_fork = pytest.importorskip("export.pitch_fork")
RATE = 22050
MUSIC = pitch_fork.play_key(Key(0, "major"), 0, 10.0, RATE)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("cents", [-46.0, -20.0, 0.0, 7.0, 35.0, 46.0])
def test_detuning_moves_the_tuning_by_what_is_asked(cents: float) -> None:
    moved = detuned(MUSIC, RATE, cents)
    assert abs(len(moved) - len(MUSIC) / 2 ** (cents / 1200)) < 2
    heard = cents_of(frame_peaks(moved, RATE).total)
    assert heard is not None
    assert abs(heard - cents) < 3.0


@pytest.mark.parametrize("seed", range(30))
def test_drawn_effects_keep_length_and_give_finite_sound(seed: int) -> None:
    chain = draw_effects(rng(seed))
    assert abs(chain.cents) <= 46
    out = apply_effects(rng(seed), MUSIC, RATE, chain)
    assert out.shape == MUSIC.shape
    assert out.dtype == np.float32
    assert np.isfinite(out).all()
    assert float(np.abs(out).max()) == pytest.approx(0.9 * 10 ** (chain.level_db / 20), rel=1e-3)
    assert np.array_equal(out, apply_effects(rng(seed), MUSIC, RATE, chain))


def level_above(samples: np.ndarray, hertz: float) -> float:
    spectrum = np.abs(np.fft.rfft(samples)) ** 2
    place = int(hertz * len(samples) / RATE)
    return float(spectrum[place:].sum() / spectrum.sum())


def test_filters_take_away_what_they_should() -> None:
    noise = rng(1).standard_normal(5 * RATE).astype(np.float32)
    plain = level_above(noise, 4000)
    assert level_above(apply_effects(rng(), noise, RATE, Effects(low_pass=1500.0)), 4000) < 0.05 * plain
    low = 1 - level_above(apply_effects(rng(), noise, RATE, Effects(high_pass=400.0)), 100)
    assert low < 0.05 * (1 - level_above(noise, 100))
    boosted = apply_effects(rng(), noise, RATE, Effects(equaliser=(0.0, 0.0, 0.0, 0.0, 9.0)))
    assert level_above(boosted, 4000) > plain


def test_noise_has_the_level_asked_for() -> None:
    chain = Effects(noise_db=20.0, noise_slope=0.0)
    plain = apply_effects(rng(), MUSIC, RATE, Effects())
    noisy = apply_effects(rng(), MUSIC, RATE, chain)
    scale = float(np.dot(noisy, plain) / np.dot(plain, plain))
    rest = noisy / scale - plain
    assert 20 * np.log10(np.std(rest) / np.std(plain)) == pytest.approx(-20.0, abs=0.5)


def test_the_compressor_makes_loud_and_quiet_more_alike() -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE).astype(np.float32)
    tone[:RATE] *= 0.1
    out = compressed(tone, RATE, 8.0)
    ratio = np.std(out[RATE // 2 : RATE - 100]) / np.std(out[-RATE // 2 :])
    assert ratio > 0.3


def test_a_room_rings_after_the_sound() -> None:
    click = np.zeros(2 * RATE, dtype=np.float32)
    click[100] = 1.0
    out = apply_effects(rng(), click, RATE, Effects(room=1.0, wet=0.5))
    assert np.std(out[5000:10000]) > 1e-4
    assert np.std(out[5000:10000]) > 3 * np.std(out[18000:22000])
    assert np.abs(out[:90]).max() < 1e-3


def test_an_amplifier_adds_harmonics_and_keeps_the_level() -> None:
    tone = (0.3 * np.sin(2 * np.pi * 220 * np.arange(2 * RATE) / RATE)).astype(np.float32)
    out = amplified(tone, RATE, 5.0)
    assert np.std(out) == pytest.approx(np.std(tone), rel=0.01)
    assert level_above(out, 500) > 0.02 > level_above(tone, 500)


@pytest.mark.parametrize("codec", ["mp3", "vorbis", "opus"])
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_codecs_keep_length_tuning_and_most_of_the_sound(codec: str, level: float) -> None:
    music = np.tile(MUSIC, 1)
    out = coded(music, RATE, codec, level)
    assert out.shape == music.shape
    assert np.std(out) == pytest.approx(np.std(music), rel=0.25)
    heard = cents_of(frame_peaks(out, RATE).total)
    assert heard is not None
    assert abs(heard) < 4


def test_nothing_done_is_nothing_but_the_level() -> None:
    out = apply_effects(rng(), MUSIC, RATE, replace(Effects(), level_db=-6.0))
    assert np.allclose(out, MUSIC * 0.9 * 10 ** (-6 / 20), atol=1e-6)
