from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stonecli.detection.tuning import cents_of, frame_peaks
from stonecli.key import Key

pytest.importorskip("pedalboard")
pitch_fork = pytest.importorskip("stonecli_export.pitch_fork")

from stonecli_train.corpus.effects import LOUD, OLD, Effects, apply_effects, draw_effects  # noqa: E402
from stonecli_train.corpus.levels import rms  # noqa: E402
from stonecli_train.corpus.styles import STYLES  # noqa: E402

RATE = 22050
MUSIC = pitch_fork.play_key(Key(0, "major"), 0, 10.0, RATE)
TIME = np.arange(2 * RATE) / RATE


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def cents(samples: np.ndarray) -> float:
    measured = cents_of(frame_peaks(samples, RATE).resultant)
    assert measured is not None
    return measured


def share_above(samples: np.ndarray, hertz: float) -> float:
    spectrum = np.abs(np.fft.rfft(samples)) ** 2
    index = int(hertz * len(samples) / RATE)
    return float(spectrum[index:].sum() / spectrum.sum())


def crest_db(samples: np.ndarray) -> float:
    return float(20 * np.log10(np.abs(samples).max() / rms(samples)))


@given(st.integers(0, 2**32 - 1), st.sampled_from(["", *STYLES]))
@settings(max_examples=60, deadline=None)
def test_drawn_effects_are_audible_finite_and_of_equal_length(seed: int, style: str) -> None:
    chain = draw_effects(rng(seed), style)
    assert abs(chain.cents) <= 46
    music = MUSIC[: 2 * RATE]
    out = apply_effects(rng(seed), music, RATE, chain)
    assert out.shape == music.shape
    assert out.dtype == np.float32
    assert np.isfinite(out).all()
    assert float(np.abs(out).max()) == pytest.approx(0.9 * 10 ** (chain.level_db / 20), rel=1e-3)
    assert rms(out) > 0.01 * 10 ** (chain.level_db / 20)
    assert chain == draw_effects(rng(seed), style)
    assert np.array_equal(out, apply_effects(rng(seed), music, RATE, chain))


def test_silence_stays_silence() -> None:
    silence = np.zeros(RATE, dtype=np.float32)
    for seed in range(20):
        chain = replace(draw_effects(rng(seed)), codec=None)
        assert not apply_effects(rng(seed), silence, RATE, chain).any()


def test_without_effects_only_the_level_changes() -> None:
    out = apply_effects(rng(), MUSIC, RATE, Effects(level_db=-6.0))
    assert np.allclose(out, MUSIC * 0.9 / np.abs(MUSIC).max() * 10 ** (-6 / 20), atol=1e-6)


@pytest.mark.parametrize(
    "chain",
    [
        Effects(saturation_db=14.0), Effects(equalizer=(8.0, -8.0, 8.0, -8.0, 8.0)), Effects(ratio=6.0),
        Effects(limited_db=14.0), Effects(clipped_db=8.0), Effects(wow=15.0), Effects(room=0.9, wet_db=0.0),
        Effects(low_pass=2000.0, high_pass=250.0, poles=3), Effects(sampler_rate=9000.0), Effects(bits=6.0),
        Effects(noise_db=14.0), Effects(crackles=30.0), Effects(hum=True), Effects(codec="mp3", kilobits=24),
        Effects(codec="gsm"),
    ],
)  # fmt: skip
def test_each_effect_changes_the_sound_and_keeps_the_pitch(chain: Effects) -> None:
    plain = apply_effects(rng(), MUSIC, RATE, Effects())
    out = apply_effects(rng(), MUSIC, RATE, chain)
    assert rms(out - plain) > 1e-3 * rms(plain)
    assert abs(cents(out) - cents(plain)) < 3.0


def test_filters_remove_their_bands() -> None:
    noise = rng(1).standard_normal(5 * RATE).astype(np.float32)
    plain = share_above(noise, 4000)
    assert share_above(apply_effects(rng(), noise, RATE, Effects(low_pass=1500.0, poles=3)), 4000) < 0.05 * plain
    one, two = (share_above(apply_effects(rng(), noise, RATE, Effects(low_pass=1500.0, poles=n)), 4000) for n in (1, 2))
    assert two < 0.6 * one < 0.6 * plain
    high = apply_effects(rng(), noise, RATE, Effects(high_pass=400.0, poles=2))
    assert 1 - share_above(high, 100) < 0.05 * (1 - share_above(noise, 100))
    for band, hertz in enumerate((25, 200, 600, 2000, 9500)):
        gains, aside = [0.0] * 5, 100 if hertz > 1000 else 9000
        gains[band] = 8.0
        tones = np.sin(2 * np.pi * hertz * TIME) + np.sin(2 * np.pi * aside * TIME)
        out = apply_effects(rng(), tones.astype(np.float32), RATE, Effects(equalizer=(*gains,)))
        boosted = np.abs(np.fft.rfft(out))
        assert 20 * np.log10(boosted[2 * hertz] / boosted[2 * aside]) > 5.0


def test_compressor_and_limiter_reduce_the_dynamic_range() -> None:
    tone = np.sin(2 * np.pi * 440 * TIME).astype(np.float32)
    tone[:RATE] *= 0.1

    def contrast(chain: Effects) -> float:
        out = apply_effects(rng(), tone, RATE, chain)
        return rms(out[RATE // 2 : RATE - 100]) / rms(out[-RATE // 2 :])

    assert contrast(Effects()) == pytest.approx(0.1, rel=0.01)
    assert contrast(Effects(ratio=6.0)) > 0.25
    assert contrast(Effects(limited_db=14.0)) > 0.25


def test_limiter_clipping_and_tape_reduce_the_crest_factor() -> None:
    drums = rng(2).standard_normal(4 * RATE) * np.exp(-(np.arange(4 * RATE) % (RATE // 2)) / 2000)
    plain = crest_db(apply_effects(rng(), drums.astype(np.float32), RATE, Effects()))
    for chain in (Effects(limited_db=12.0), Effects(clipped_db=6.0), Effects(saturation_db=12.0)):
        assert crest_db(apply_effects(rng(), drums.astype(np.float32), RATE, chain)) < plain - 3.0


def test_saturation_and_clipping_add_odd_harmonics() -> None:
    tone = np.sin(2 * np.pi * 440 * TIME).astype(np.float32)
    for chain in (Effects(saturation_db=12.0), Effects(clipped_db=6.0)):
        spectrum = np.abs(np.fft.rfft(apply_effects(rng(), tone, RATE, chain)))
        assert spectrum[2640] > 0.01 * spectrum[880]
        assert spectrum[1400] < 1e-3 * spectrum[880]  # and nothing between


def test_the_low_resolution_sampler_has_few_levels_and_no_treble() -> None:
    out = apply_effects(rng(), MUSIC, RATE, Effects(bits=6.0))
    assert len(np.unique(out)) <= 2**7 + 1
    noise = rng(1).standard_normal(5 * RATE).astype(np.float32)
    low = apply_effects(rng(), noise, RATE, Effects(sampler_rate=9000.0))
    assert share_above(low, 6000) < 0.5 * share_above(noise, 6000)


@pytest.mark.parametrize("slope", [0.0, 1.0])
def test_noise_has_the_given_level_and_slope(slope: float) -> None:
    plain = apply_effects(rng(), MUSIC, RATE, Effects())
    noisy = apply_effects(rng(), MUSIC, RATE, Effects(noise_db=20.0, noise_slope=slope))
    rest = noisy / (np.dot(noisy, plain) / np.dot(plain, plain)) - plain
    assert 20 * np.log10(rms(rest) / rms(plain)) == pytest.approx(-20.0, abs=0.5)
    expected = 1 - 4000 / (RATE / 2) if slope == 0 else np.log(RATE / 2 / 4000) / np.log(RATE / 2 / 20)
    assert share_above(rest, 4000) == pytest.approx(expected, abs=0.05)


def test_crackle_and_hum_have_their_frequencies() -> None:
    plain = apply_effects(rng(), MUSIC, RATE, Effects())
    clicks = apply_effects(rng(), MUSIC, RATE, Effects(crackles=10.0))
    added = np.abs(clicks / (np.dot(clicks, plain) / np.dot(plain, plain)) - plain)
    assert 0.001 < np.mean(added > 0.2 * rms(plain)) < 0.05  # few, and not everywhere
    hum = apply_effects(rng(), MUSIC, RATE, Effects(hum=True)) - plain
    spectrum = np.abs(np.fft.rfft(apply_effects(rng(), MUSIC, RATE, Effects(hum=True))))
    assert rms(hum) > 0
    assert max(spectrum[500], spectrum[600]) > 20 * np.median(spectrum[450:650])


def test_a_room_adds_reverberation() -> None:
    click = np.zeros(2 * RATE, dtype=np.float32)
    click[100:200] = 1.0
    out = apply_effects(rng(), click, RATE, Effects(room=0.5, wet_db=0.0))
    assert rms(out[5000:10000]) > 1e-4
    assert rms(out[5000:10000]) > 3 * rms(out[30000:40000])
    assert np.abs(out[:90]).max() < 1e-3


def test_modern_styles_are_limited_and_old_ones_crackle() -> None:
    assert set(STYLES) >= OLD | LOUD
    assert not OLD & LOUD
    many = {style: [draw_effects(rng(seed), style) for seed in range(300)] for style in ("house", "jazz")}
    limited = {style: np.mean([chain.limited_db > 0 for chain in chains]) for style, chains in many.items()}
    crackling = {style: np.mean([chain.crackles > 0 for chain in chains]) for style, chains in many.items()}
    assert limited["house"] > 0.5 > limited["jazz"]
    assert crackling["jazz"] > 0.1 > crackling["house"]
