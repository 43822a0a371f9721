from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stonecli.detection.tuning import cents_of, frame_peaks
from stonecli.key import Key
from stonecli_train.corpus.levels import LEVELS_DB

pytest.importorskip("pedalboard")
pitch_fork = pytest.importorskip("stonecli_export.pitch_fork")

import pedalboard  # noqa: E402

from stonecli_train.corpus import mixing, strips  # noqa: E402
from stonecli_train.corpus.arrange import Part, Role, Tone  # noqa: E402
from stonecli_train.corpus.levels import active_rms, rms  # noqa: E402
from stonecli_train.corpus.mixing import draw_level, ducked_gain, mix  # noqa: E402
from stonecli_train.corpus.room import reflected, reverberation  # noqa: E402
from stonecli_train.corpus.strips import draw_strip  # noqa: E402
from stonecli_train.corpus.styles import STYLES  # noqa: E402

RATE = 22050
MUSIC = pitch_fork.play_key(Key(0, "major"), 0, 6.0, RATE)
ROLES: tuple[Role, ...] = ("bass", "chords", "lead", "drums", "sung", "spoken", "voice")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def part(role: Role, program: int = 0, **rest: Any) -> Part:
    pitch = 36 if role == "drums" else 60
    return Part(role, tuple(Tone(0.5 * index, 0.4, pitch, 100) for index in range(12)), program, **rest)


def kicks(samples: int) -> np.ndarray:
    time = (np.arange(samples) % (RATE // 2)) / RATE
    return (np.sin(2 * np.pi * 55 * time) * np.exp(-time / 0.08)).astype(np.float32)


def cents(samples: np.ndarray) -> float:
    measured = cents_of(frame_peaks(samples, RATE).resultant)
    assert measured is not None
    return measured


@given(
    st.integers(0, 2**32 - 1), st.sampled_from(["", *STYLES]), st.lists(st.sampled_from(ROLES), min_size=1, max_size=4)
)
@settings(max_examples=50, deadline=None)
def test_any_mix_is_finite_audible_and_of_full_length(seed: int, style: str, roles: list[Role]) -> None:
    draw = rng(seed)
    parts = [part(role, int(draw.integers(96)), amplified=bool(draw.random() < 0.2)) for role in roles]
    stems = [
        kicks(2 * RATE) if role == "drums" else MUSIC[: 2 * RATE] * np.float32(draw.uniform(0.001, 2)) for role in roles
    ]
    out = mix(rng(seed), parts, stems, RATE, style)
    assert out.shape == (2 * RATE,)
    assert out.dtype == np.float32
    assert np.isfinite(out).all()
    assert rms(out) > 1e-3
    assert np.array_equal(out, mix(rng(seed), parts, stems, RATE, style))


def test_a_silent_part_adds_nothing_and_a_silent_mix_is_silent() -> None:
    silence = np.zeros(2 * RATE, dtype=np.float32)
    assert not mix(rng(), [part("chords"), part("bass", amplified=True)], [silence, silence], RATE).any()


@pytest.mark.parametrize("role", ["bass", "chords", "lead", "sung", "voice"])
@pytest.mark.parametrize("program", [4, 27, 90])
def test_no_strip_changes_the_pitch(role: Role, program: int) -> None:
    moved = []
    for seed in range(8):
        strip = draw_strip(rng(seed), part(role, program))
        out = pedalboard.Chain(strip)(MUSIC * np.float32(0.1 / rms(MUSIC)), RATE) if strip else MUSIC
        moved.append(cents(out) - cents(MUSIC))
    assert np.abs(moved).max() < 3.0, moved


@pytest.mark.parametrize("style", ["", "house", "jazz", "rock"])
def test_a_whole_mix_is_as_much_in_tune_as_its_parts(style: str) -> None:
    for seed in range(6):
        parts = [part("chords", 27, amplified=seed % 2 == 1), part("sung"), part("drums")]
        out = mix(rng(seed), parts, [MUSIC, MUSIC, kicks(len(MUSIC))], RATE, style)
        assert abs(cents(out) - cents(MUSIC)) < 3.0


def test_every_kind_of_effect_is_drawn_for_some_part() -> None:
    drawn = {
        type(plugin).__name__
        for seed in range(300)
        for role in ROLES
        for plugin in draw_strip(rng(seed), part(role, (0, 4, 27, 90)[seed % 4], synthesized=seed % 3 == 0))
    }
    assert drawn == {
        "Compressor", "Distortion", "Chorus", "Phaser", "Delay", "LadderFilter", "LowpassFilter", "HighpassFilter",
        "PeakFilter", "LowShelfFilter", "HighShelfFilter", "Bitcrush",
    }  # fmt: skip


def test_parts_are_as_loud_as_on_records() -> None:
    def level(role: Role, style: str, **rest: Any) -> float:
        return float(np.mean([draw_level(rng(seed), part(role, **rest), style) for seed in range(200)]))

    assert level("drums", "hiphop") > level("chords", "hiphop") + 6
    assert level("sung", "pop") > level("chords", "pop") + 3
    assert level("drums", "jazz") < level("lead", "jazz") + 1
    assert level("chords", "metal", amplified=True) > level("chords", "metal") + 2
    assert level("lead", "pop", gain=0.5) == pytest.approx(level("lead", "pop") - 6.0, abs=0.1)


def test_the_mix_has_the_levels_that_were_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixing, "draw_level", lambda rng, part, style: -20.0 if part.role == "lead" else 0.0)
    monkeypatch.setattr(mixing, "draw_strip", lambda rng, part: [])
    tones = [np.sin(2 * np.pi * hertz * np.arange(2 * RATE) / RATE).astype(np.float32) for hertz in (440, 1000)]
    for seed in range(4):
        spectrum = np.abs(np.fft.rfft(mix(rng(seed), [part("chords"), part("lead")], [tones[0], 7 * tones[1]], RATE)))
        assert 20 * np.log10(spectrum[2000] / spectrum[880]) == pytest.approx(-20.0, abs=8.0)  # rooms color it


def test_ducking_lowers_the_level_at_each_kick() -> None:
    gain = ducked_gain([0.5, 1.0, 1.5, 99.0], 2 * RATE, RATE, 0.8, 0.1)
    assert gain.shape == (2 * RATE,)
    assert np.allclose(gain[: RATE // 2 - 10], 1.0, atol=1e-3)
    for kick in (0.5, 1.0, 1.5):
        assert gain[int((kick + 0.01) * RATE)] < 0.25
        assert gain[int((kick + 0.4) * RATE)] > 0.95
    assert np.abs(np.diff(gain)).max() < 0.02  # no clicks
    assert np.array_equal(ducked_gain([9.0], RATE, RATE, 0.8, 0.1), np.ones(RATE))  # none within the sound


def test_pads_duck_under_the_kick_of_house_and_voices_do_not() -> None:
    pad = part("chords", 89)
    tone = np.sin(2 * np.pi * 440 * np.arange(6 * RATE) / RATE).astype(np.float32)
    silence = np.zeros_like(tone)
    pumping = {}
    for role in ("chords", "sung"):
        pumping[role] = 0
        for seed in range(30):
            out = mix(rng(seed), [part("drums"), part(role) if role == "sung" else pad], [silence, tone], RATE, "house")
            after, before = (
                np.mean([rms(out[int((kick + at) * RATE) :][: RATE // 50]) for kick in (2.0, 2.5, 3.0, 3.5)])
                for at in (0.01, 0.46)
            )
            pumping[role] += int(after < 0.75 * before)
    assert pumping["chords"] > 8 > 4 > pumping["sung"]


def test_reflections_come_after_the_sound_and_keep_the_level() -> None:
    click = np.zeros(RATE, dtype=np.float32)
    click[100] = 1.0
    for seed in range(5):
        out = reflected(rng(seed), click, RATE, 0.8)
        assert not out[:100].any()
        assert np.flatnonzero(out).max() < 100 + 0.05 * RATE
        assert 3 <= np.count_nonzero(out) <= 7
        assert rms(out) == pytest.approx(rms(click), rel=1e-3)


def test_a_larger_room_rings_for_longer() -> None:
    burst = np.zeros(3 * RATE, dtype=np.float32)
    burst[: RATE // 10] = rng().standard_normal(RATE // 10)
    tails = [rms(wet[2 * RATE :]) / rms(wet) for wet in (reverberation(burst, RATE, size, 0.3) for size in (0.2, 0.95))]
    assert tails[1] > 5 * tails[0]


def test_levels_of_a_part_are_measured_without_its_rests() -> None:
    half = MUSIC.copy()
    half[len(half) // 2 :] = 0.0
    assert active_rms(half, RATE) == pytest.approx(active_rms(MUSIC, RATE), rel=0.15)
    assert rms(half) < 0.8 * rms(MUSIC)


def test_the_groups_of_styles_and_programs_exist() -> None:
    groups = (
        mixing.DRUMS_IN_FRONT, mixing.DRUMS_BEHIND, mixing.CHORDS_BEHIND, mixing.GUITARS_IN_FRONT, mixing.DUCKED,
        mixing.ACOUSTIC,
    )  # fmt: skip
    assert all(group <= set(STYLES) for group in groups)
    assert not mixing.DRUMS_IN_FRONT & mixing.DRUMS_BEHIND
    assert set(LEVELS_DB) == set(ROLES)
    assert strips._CHORUS_SPEED <= 0.2
