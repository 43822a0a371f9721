from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soxr

from stonecli.audio.decode import read_audio
from stonecli.audio.source import MIN_RATE
from stonecli.detection.tuning import cents_of, frame_peaks
from tests.fixture_types import MakeMusic, MakeNoise, Samples

RATE = 22050


def cents(samples: Samples) -> float:
    found = cents_of(frame_peaks(samples, RATE).resultant)
    assert found is not None
    return found


def distance(one: float, other: float) -> float:
    """Distance of two tunings; those that differ by a semitone are equal."""
    return abs((one - other + 50) % 100 - 50)


@pytest.mark.parametrize("key", ["C major", "F# minor"])
@pytest.mark.parametrize("detuned", range(-45, 46, 15))
def test_chords_are_measured_within_three_cents(music: MakeMusic, key: str, detuned: int) -> None:
    assert cents(music(key, seconds=8, cents=detuned)) == pytest.approx(detuned, abs=3)


@pytest.mark.parametrize("rate", [11025, 44100])
def test_the_sample_rate_does_not_change_the_tuning(music: MakeMusic, rate: int) -> None:
    peaks = frame_peaks(music("G major", seconds=8, rate=rate, cents=20), rate)
    assert cents_of(peaks.resultant) == pytest.approx(20, abs=3)


def test_the_level_does_not_change_the_tuning(music: MakeMusic) -> None:
    samples = music("G major", seconds=8, cents=20)
    assert cents(samples / np.float32(1000)) == pytest.approx(cents(samples), abs=0.2)


@pytest.mark.parametrize("name", ["bach_bwv1002_sarabande_garner.mp3", "tchaikovsky_sugar_plum_macleod.ogg"])
def test_a_detuned_recording_is_measured_within_five_cents(shared: Path, name: str) -> None:
    samples = np.concatenate(list(islice(read_audio(shared / "audio" / name, RATE), 8)))
    own = cents(samples)
    for moved in (-30, -10, 15, 40):
        resampled = soxr.resample(samples, RATE * 2 ** (moved / 1200), RATE)
        assert distance(cents(resampled), own + moved) < 5


@pytest.mark.parametrize("exponent", [0, 1, 2], ids=["white", "pink", "brown"])
def test_noise_is_not_tonal(noise: MakeNoise, exponent: float) -> None:
    assert frame_peaks(noise(exponent, 30), RATE).tonal.mean() < 0.05


def test_music_is_tonal_also_under_noise(music: MakeMusic, noise: MakeNoise) -> None:
    samples = music("E minor", seconds=16)
    assert frame_peaks(samples, RATE).tonal.mean() > 0.9
    assert frame_peaks(samples + 0.02 * noise(1, 16), RATE).tonal.mean() > 0.5


def test_silence_has_no_tuning() -> None:
    peaks = frame_peaks(np.zeros(5 * RATE, dtype=np.float32), RATE)
    assert not peaks.tonal.any()
    assert cents_of(peaks.resultant) is None


def test_a_short_recording_is_one_frame(music: MakeMusic) -> None:
    assert len(frame_peaks(music()[:100], RATE).tonal) == 1
    assert len(frame_peaks(music()[:8192], RATE).tonal) == 1
    assert len(frame_peaks(music()[: 8192 * 2 + 1], RATE).tonal) == 2


def test_frames_by_time(music: MakeMusic) -> None:
    samples = np.concatenate([music(seconds=10), np.zeros(10 * RATE, dtype=np.float32)])
    peaks = frame_peaks(samples, RATE)
    assert peaks.tonal_between(0, 9.5).all()
    assert not peaks.tonal_between(10.5, 20).any()
    assert not len(peaks.tonal_between(-5, 0))
    assert len(peaks.tonal_between(19.99, 20)) == 1  # the last frame speaks for the incomplete one after it


@pytest.mark.parametrize("rate", [2000, 2501, 3000, 3900, 4000])
@pytest.mark.parametrize("detuned", [-30, 20])
def test_a_rate_below_4_khz_uses_the_peaks_it_has(music: MakeMusic, rate: int, detuned: int) -> None:
    peaks = frame_peaks(music("A minor", seconds=16, rate=rate, cents=detuned), rate)
    assert cents_of(peaks.resultant) == pytest.approx(detuned, abs=5)
    assert peaks.tonal.mean() > 0.9


def test_the_lowest_rate_has_frames_as_well(music: MakeMusic) -> None:
    for rate in range(MIN_RATE, MIN_RATE + 100, 7):
        assert len(frame_peaks(music(rate=rate), rate).tonal) == pytest.approx(16 / (8192 / 22050), abs=1)


@pytest.mark.parametrize("rate", [11025, 12000, 16000, 22050, 24000])
def test_frames_have_one_duration_at_any_rate(rate: int) -> None:
    """Borderline tunings depend on the frame length: 48 kHz must not differ from 44.1."""
    time = np.arange(20 * rate) / rate
    wandering = sum(np.sin(2 * np.pi * hertz * time + 8 * np.sin(2 * np.pi * time / 7)) for hertz in (200, 333, 512))
    found = frame_peaks((0.1 * wandering).astype(np.float32), rate)
    assert found.frame_seconds == pytest.approx(8192 / 22050, abs=0.5 / rate)
    expected = frame_peaks(soxr.resample(0.1 * wandering, rate, 22050).astype(np.float32), 22050)
    assert cents_of(found.resultant) == pytest.approx(cents_of(expected.resultant), abs=1.0)
