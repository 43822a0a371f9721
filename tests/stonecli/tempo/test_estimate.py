"""The tempo of drum loops, and of sounds that have none."""

from __future__ import annotations

import io
import shutil
import subprocess

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from stonecli.tempo.estimate import MIN_SECONDS, TempoEstimate, TempoMeter
from tests.stonecli.tempo.sounds import (
    RATE,
    dembow,
    drum_loop,
    held_chord,
    mains_hum,
    random_clicks,
    rubato,
    speeding_up,
    tone,
)

SPEECH = """
Good evening, and welcome to the program. Tonight we talk about the harvest, the weather on the coast, and a small
theater that has opened again after eleven years. Our guest has written three books about gardens. She says that
patience is the only tool that you cannot buy. We will also read letters; some of them are funny, some are sad, and one
is a recipe for bread. Please turn off the lights when you leave. The next train departs at seventeen past nine.
"""


def tempo_of(samples: npt.NDArray[np.float32], rate: float = RATE, block: int = 30_011) -> TempoEstimate:
    meter = TempoMeter(rate)
    blocks = [samples[start : start + block] for start in range(0, len(samples), block)]
    assert sum(map(len, meter.tap(blocks))) == len(samples)
    return meter.estimate()


class TestDrumLoop:
    @pytest.mark.parametrize("bpm", [87.5, 100.0, 120.3, 128.0, 139.97])
    def test_tempo_is_exact_to_a_twentieth(self, bpm: float) -> None:
        tempo = tempo_of(drum_loop(bpm, 40.0))
        assert tempo.bpm == pytest.approx(bpm, abs=0.05)
        assert tempo.is_steady

    @pytest.mark.parametrize("bpm", [70.0, 174.0])
    def test_the_other_octave_is_the_alternative(self, bpm: float) -> None:
        tempo = tempo_of(drum_loop(bpm, 30.0))
        assert tempo.bpm is not None
        assert tempo.alternative is not None
        assert min(abs(tempo.bpm - bpm), abs(tempo.alternative - bpm)) < 0.1
        assert max(tempo.bpm, tempo.alternative) == pytest.approx(2.0 * min(tempo.bpm, tempo.alternative))

    @pytest.mark.parametrize("bpm", [75.0, 80.0, 170.0, 178.0])
    def test_kick_and_snare_tell_the_octave(self, bpm: float) -> None:
        assert tempo_of(drum_loop(bpm, 30.0)).bpm == pytest.approx(bpm, abs=0.1)

    @pytest.mark.parametrize("bpm", [91.0, 95.0, 100.0])
    def test_the_snare_between_beats_does_not_double_the_tempo(self, bpm: float) -> None:
        assert tempo_of(dembow(bpm, 30.0)).bpm == pytest.approx(bpm, abs=0.1)

    @pytest.mark.parametrize("rate", [8000, 12_000, 16_000, 22_050, 44_100])
    def test_the_sample_rate_does_not_matter(self, rate: int) -> None:
        assert tempo_of(drum_loop(128.0, 20.0, rate), rate).bpm == pytest.approx(128.0, abs=0.1)

    def test_the_size_of_the_blocks_does_not_matter(self) -> None:
        samples = drum_loop(124.0, 10.0)
        assert tempo_of(samples, block=997) == tempo_of(samples, block=len(samples))

    def test_the_level_does_not_matter(self) -> None:
        samples = drum_loop(124.0, 10.0)
        quiet = tempo_of(samples * np.float32(0.01))
        assert quiet.bpm == pytest.approx(tempo_of(samples).bpm, abs=0.02)

    def test_faster_music_has_a_faster_tempo(self) -> None:
        bpm = [tempo_of(drum_loop(rate * 100.0, 20.0)).bpm for rate in (1.0, 1.1, 1.2)]
        assert bpm == pytest.approx([100.0, 110.0, 120.0], abs=0.1)

    @pytest.mark.parametrize("rate", [2000, 4000, 8000, 12_000, 16_000])
    def test_another_sample_rate(self, rate: int) -> None:
        assert tempo_of(drum_loop(120.0, 20.0, rate), rate).bpm == pytest.approx(120.0, abs=0.05)

    def test_confidence_is_a_probability(self) -> None:
        assert 0.5 < tempo_of(drum_loop(120.0, 20.0)).confidence <= 1.0

    def test_a_tempo_that_rises_is_not_steady(self) -> None:
        tempo = tempo_of(speeding_up(60.0))
        assert not tempo.is_steady


class TestNoTempo:
    @pytest.mark.parametrize(
        "samples",
        [
            np.zeros(20 * RATE, dtype=np.float32),
            np.full(20 * RATE, 0.5, dtype=np.float32),
            (0.1 * np.random.default_rng(0).standard_normal(20 * RATE)).astype(np.float32),
            np.sin(0.1 * np.arange(20 * RATE)).astype(np.float32),
        ],
        ids=["silence", "constant", "noise", "tone"],
    )
    def test_sound_without_a_beat(self, samples: npt.NDArray[np.float32]) -> None:
        assert tempo_of(samples) == TempoEstimate(None)

    @pytest.mark.parametrize("seconds", [5, 8, 20, 40])
    def test_noise_of_any_length(self, seconds: int) -> None:
        rng = np.random.default_rng(5)
        noises = (0.1 * rng.standard_normal((4, seconds * RATE))).astype(np.float32)
        assert [tempo_of(noise).bpm for noise in noises] == [None] * 4

    @pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
    @pytest.mark.parametrize("voice", ["en-us+m1", "en+f3", "de+m3", "fr+f2"])
    def test_speech(self, voice: str) -> None:
        program = ["espeak-ng", "-v", voice, "--stdout", SPEECH]
        spoken = subprocess.run(program, capture_output=True, check=True, timeout=60).stdout
        samples, rate = soundfile.read(io.BytesIO(spoken), dtype="float32")
        assert tempo_of(samples, rate).bpm is None

    def test_music_without_a_steady_beat(self) -> None:
        assert tempo_of(rubato(40.0)).bpm is None

    @pytest.mark.parametrize("octaves", [0.3, 0.5])
    def test_16_seconds_without_a_beat_are_not_steady(self, octaves: float) -> None:
        """By chance, some have a pulse over all of that time, but not in segments of 6 s."""
        estimates = [tempo_of(rubato(16.0, octaves=octaves, seed=seed)) for seed in range(8)]
        assert not any(estimate.is_steady for estimate in estimates)

    def test_random_clicks_are_not_steady(self) -> None:
        assert not tempo_of(random_clicks(30.0)).is_steady

    @pytest.mark.parametrize("seconds", [0.0, 0.01, 0.5, MIN_SECONDS - 0.1])
    def test_short_recording(self, seconds: float) -> None:
        assert tempo_of(drum_loop(120.0, seconds)) == TempoEstimate(None)


TRIAD = (220.0, 277.2, 329.6)
OPEN = (329.6, 493.9, 659.3, 987.8)


class TestSteadySound:
    @pytest.mark.parametrize("hertz", [50.0, 87.3, 100.0, 220.0, 440.0, 1000.0])
    def test_a_tone_has_no_tempo(self, hertz: float) -> None:
        assert tempo_of(tone(hertz, 20.0)) == TempoEstimate(None)

    @pytest.mark.parametrize("rate", [8000, 12_000, 16_000, 22_050])
    def test_nor_has_it_at_another_sample_rate(self, rate: int) -> None:
        assert [tempo_of(tone(hertz, 12.0, rate), rate).bpm for hertz in (110.0, 440.0)] == [None, None]

    @pytest.mark.parametrize(("hertz", "noise_db"), [(50.0, -20.0), (50.0, -40.0), (60.0, -30.0), (60.0, -60.0)])
    def test_hum_with_faint_noise_has_no_tempo(self, hertz: float, noise_db: float) -> None:
        assert tempo_of(mains_hum(hertz, noise_db, 20.0)).bpm is None

    @pytest.mark.parametrize("seconds", [8.0, 20.0, 60.0])
    @pytest.mark.parametrize("saw", [False, True])
    def test_a_held_chord_has_no_tempo(self, seconds: float, saw: bool) -> None:
        assert tempo_of(held_chord(TRIAD, seconds, saw=saw)).bpm is None

    @pytest.mark.parametrize(
        ("notes", "cents", "vibrato"),
        [
            (TRIAD, (0.0,), 20.0),
            (TRIAD, (-4.0, 4.0), 0.0),
            (TRIAD, (-7.0, 0.0, 6.0), 0.0),
            (OPEN, (-7.0, 0.0, 6.0), 0.0),
            (OPEN, (-10.0, -6.0, -2.5, 0.0, 2.0, 5.5, 10.0), 0.0),
        ],
        ids=["vibrato", "two", "three", "high", "seven"],
    )
    def test_a_pad_has_no_tempo(self, notes: tuple[float, ...], cents: tuple[float, ...], vibrato: float) -> None:
        pad = held_chord(notes, 12.0, cents=cents, vibrato=vibrato, fade=2.0)
        assert tempo_of(pad).bpm is None

    @pytest.mark.parametrize("decibels", [0.0, -12.0, -18.0])
    def test_soft_drums_over_a_chord_keep_their_tempo(self, decibels: float) -> None:
        drums = np.float32(10.0 ** (decibels / 20.0)) * drum_loop(120.0, 20.0)
        assert tempo_of(held_chord(TRIAD, 20.0) + drums).bpm == pytest.approx(120.0, abs=0.1)

    def test_minutes_of_silence_do_not_hide_the_beat(self) -> None:
        music = drum_loop(120.0, 20.0)
        silence = np.zeros(120 * RATE, dtype=np.float32)
        assert tempo_of(np.concatenate([music, silence])).bpm == pytest.approx(120.0, abs=0.1)


def test_invalid_samples_do_not_stop_the_estimate() -> None:
    samples = drum_loop(120.0, 10.0)
    samples[5000:5010] = np.float32(1e6)
    assert tempo_of(samples).bpm is not None
