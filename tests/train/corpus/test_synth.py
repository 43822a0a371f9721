from __future__ import annotations

import numpy as np
import pytest

from stonecli.detection.tuning import cents_of, frame_peaks
from stonecli_train.corpus.arrange import Tone
from stonecli_train.corpus.synth import (
    HELD_OUT_KINDS,
    TRAINING_KINDS,
    Timbre,
    draw_timbre,
    fast_length,
    play_drums,
    play_tones,
    sing,
    tone_of,
)

RATE = 22050
KINDS = sorted({kind for kinds in (*TRAINING_KINDS.values(), *HELD_OUT_KINDS.values()) for kind in kinds})


def timbre(kind: str) -> Timbre:
    return Timbre(kind, 2000.0, 0.1, 0.005, 0.0, 0.1, 15.0, 1.0, 1.0, 12345)  # type: ignore[arg-type]


def spectrum_peak(samples: np.ndarray, near: float) -> float:
    """Frequency of the highest peak within a fifth of ``near``."""
    size = 1 << 17
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), size))
    hertz = np.fft.rfftfreq(size, 1 / RATE)
    inside = (hertz > near / 1.5) & (hertz < near * 1.5)
    return float(hertz[inside][spectrum[inside].argmax()])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pitch", [45, 60, 76])
def test_a_note_sounds_at_its_pitch(kind: str, pitch: int) -> None:
    wave = tone_of(timbre(kind), pitch, 1.5, RATE)
    frequency = 440.0 * 2 ** ((pitch - 69) / 12)
    assert wave.dtype == np.float32
    assert np.isfinite(wave).all()
    assert abs(1200 * np.log2(spectrum_peak(wave, frequency) / frequency)) < 12  # a supersaw beats
    assert abs(float(wave[-1])) < 0.01  # it ends without a click


def test_high_notes_do_not_alias() -> None:
    wave = tone_of(timbre("saw"), 100, 1.0, RATE)  # 2637 Hz: harmonics at 5274 and 7911 Hz
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
    hertz = np.fft.rfftfreq(len(wave), 1 / RATE)
    below = spectrum[(hertz > 100) & (hertz < 2400)].max()
    assert below < 0.01 * spectrum.max()


def test_tones_start_in_time_and_are_truncated() -> None:
    tones = (Tone(0.5, 0.3, 60, 100), Tone(0.95, 2.0, 64, 100), Tone(5.0, 1.0, 60, 100))
    sound = play_tones(tones, timbre("organ"), RATE, RATE)
    assert len(sound) == RATE
    assert np.abs(sound[: RATE // 2]).max() == 0
    assert np.abs(sound[RATE // 2 : RATE // 2 + 2000]).max() > 0.1


def test_a_singer_keeps_the_pitch_and_a_speaker_does_not() -> None:
    tones = tuple(Tone(0.5 * index, 0.48, 57 + (0, 4, 7, 12)[index % 4], 100) for index in range(40))
    directions = []
    for spoken in (False, True):
        shares = []
        for seed in range(4):
            voice = sing(np.random.default_rng(seed), tones, 20 * RATE, RATE, spoken)
            assert len(voice) == 20 * RATE
            peaks = frame_peaks(voice, RATE)
            shares.append(abs(peaks.resultant) / max(float(np.abs(peaks.phasor[peaks.tonal]).sum()), 1e-9))
        directions.append(np.mean(shares))
    assert directions[0] > 2 * directions[1]
    sung = sing(np.random.default_rng(1), tones, 20 * RATE, RATE)
    assert abs(cents_of(frame_peaks(sung, RATE).resultant) or 0.0) < 30
    assert not sing(np.random.default_rng(0), (), RATE, RATE).any()


def test_drums_have_no_key() -> None:
    tones = tuple(Tone(0.25 * index, 0.2, (36, 42, 38, 46)[index % 4], 100) for index in range(40))
    sound = play_drums(np.random.default_rng(0), tones, 10 * RATE, RATE)
    assert np.isfinite(sound).all()
    assert np.abs(sound).max() > 0.1
    assert frame_peaks(sound, RATE).tonal.mean() < 0.5


def test_held_out_timbres_are_not_drawn_for_training() -> None:
    drawn = [
        {draw_timbre(np.random.default_rng(seed), "lead", held).kind for seed in range(100)} for held in (False, True)
    ]
    assert drawn[0]
    assert drawn[1]
    assert not drawn[0] & drawn[1]


def test_fast_lengths_have_small_factors_only() -> None:
    assert [fast_length(number) for number in (1, 7, 11, 13, 529200 // 49, 1025)] == [1, 8, 12, 15, 10800, 1080]
