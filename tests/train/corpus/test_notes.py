from __future__ import annotations

import numpy as np
import pytest

from stonecli_train.corpus.notes import LOOP_FADE, Check, checked_notes, find_loop, looped, pitch_of

RATE = 22050
NOTE_SECONDS = 2.5
REQUESTED = (36, 48, 60, 72)


def note(pitch: float, falls: float = 0.0, seconds: float = 2.6) -> np.ndarray:
    """A saw-like note of eight harmonics, held or dying away."""
    time = np.arange(int(seconds * RATE)) / RATE
    frequency = 440.0 * 2 ** ((pitch - 69) / 12)
    wave = sum(np.sin(2 * np.pi * number * frequency * time) / number for number in range(1, 9))
    return (0.2 * wave * np.exp(-falls * time)).astype(np.float32)


def cents_between(samples: np.ndarray, pitch: float) -> float:
    return 100.0 * (pitch_of(samples, RATE)[0] - pitch)


@pytest.mark.parametrize("pitch", [28.0, 40.3, 60.0, 75.5, 84.0])
def test_a_pitch_is_measured_to_the_cent(pitch: float) -> None:
    assert abs(cents_between(note(pitch)[: RATE // 2], pitch)) < 4
    assert pitch_of(note(pitch)[: RATE // 2], RATE)[1] > 0.9
    noise = np.random.default_rng(0).standard_normal(RATE // 2).astype(np.float32)
    assert pitch_of(noise, RATE)[1] < 0.5
    assert pitch_of(np.zeros(RATE // 2, dtype=np.float32), RATE) == (0.0, 0.0)


def test_notes_in_tune_are_kept_with_octave_and_detuning() -> None:
    held = checked_notes(np.array([note(pitch - 11.8) for pitch in REQUESTED]), REQUESTED, RATE, NOTE_SECONDS)
    assert isinstance(held, Check)
    assert held.octaves == -1
    assert held.sustains
    assert held.pitches == pytest.approx([pitch - 11.8 for pitch in REQUESTED], abs=0.05)
    assert np.abs(held.notes).max() == pytest.approx(0.9)
    struck = checked_notes(np.array([note(pitch, falls=3.0) for pitch in REQUESTED]), REQUESTED, RATE, NOTE_SECONDS)
    assert isinstance(struck, Check)
    assert not struck.sustains


def test_notes_of_another_pitch_are_rejected() -> None:
    rng = np.random.default_rng(1)
    notes = [note(36), note(54), rng.standard_normal(len(note(60))).astype(np.float32) * 0.1, note(72)]
    check = checked_notes(np.array(notes), REQUESTED, RATE, NOTE_SECONDS)
    assert isinstance(check, Check)
    assert check.pitches == pytest.approx([36, 72], abs=0.05)  # not the tritone, not the noise
    time = np.arange(len(notes[0])) / RATE
    sliding = (0.2 * np.sin(2 * np.pi * 200 * (time + 0.3 * time**2))).astype(np.float32)
    assert checked_notes(sliding[None], (55,), RATE, NOTE_SECONDS) == "no note with the requested pitch"
    assert checked_notes(np.zeros((1, RATE * 2), dtype=np.float32), (60,), RATE, NOTE_SECONDS) == "silent"
    assert checked_notes(np.full((1, RATE * 2), np.nan, dtype=np.float32), (60,), RATE, NOTE_SECONDS) == "silent"


@pytest.mark.parametrize("pitch", [31.0, 57.37, 80.0])
def test_a_loop_has_no_seam(pitch: float) -> None:
    sample = note(pitch)
    start, end = find_loop(sample, RATE, NOTE_SECONDS)
    assert LOOP_FADE * RATE < start < end - LOOP_FADE * RATE
    assert end <= NOTE_SECONDS * RATE
    long = looped(sample, (start, end), int(LOOP_FADE * RATE), 10 * RATE)
    assert len(long) == 10 * RATE
    assert np.array_equal(long[: end - int(LOOP_FADE * RATE)], sample[: end - int(LOOP_FADE * RATE)])
    assert np.abs(np.diff(long)).max() < 1.3 * np.abs(np.diff(sample)).max()  # no click
    blocks = np.sqrt(np.mean(long[: 10 * RATE // 2205 * 2205].reshape(-1, 2205) ** 2, axis=1))
    assert blocks.min() > 0.9 * blocks.max()  # nor a hole
    assert abs(cents_between(long[5 * RATE : 6 * RATE], pitch)) < 3
