from __future__ import annotations

import numpy as np
import pytest

from stonecli.detection.tuning import cents_of, frame_peaks
from stonecli.key import Key
from stonecli_train.corpus.arrange import Tone, strummed
from stonecli_train.corpus.melodies import ChordLookup
from stonecli_train.corpus.notes import pitch_of
from stonecli_train.corpus.score import Chord, Note
from stonecli_train.corpus.vocals import harmony, held_chords, with_blue_thirds
from stonecli_train.corpus.voices import sing

RATE = 22050
CHORDS = tuple(Chord(4.0 * bar, 4.0, root, (0, 4, 7), root) for bar, root in enumerate((0, 5, 7, 0)))
TUNE = tuple(Note(float(beat), 1.0, pitch) for beat, pitch in enumerate((60, 62, 64, 65, 67, 69, 71, 72, 64, 64)))
C_MAJOR = Key(0, "major")


@pytest.mark.parametrize("seed", range(4))
def test_a_singer_is_in_tune_and_rests_in_rests(seed: int) -> None:
    tones = tuple(Tone(0.5 + 1.0 * index, 0.95, 57 + (0, 4, 7, 12)[index % 4], 100) for index in range(8))
    voice = sing(np.random.default_rng(seed), tones, 11 * RATE, RATE)
    assert voice.dtype == np.float32
    assert np.array_equal(voice, sing(np.random.default_rng(seed), tones, 11 * RATE, RATE))
    assert np.isfinite(voice).all()
    assert np.abs(voice[: RATE // 10]).max() < 0.05 * np.abs(voice).max()
    assert np.abs(voice[-RATE:]).max() < 0.05 * np.abs(voice).max()
    assert abs(cents_of(frame_peaks(voice, RATE).resultant) or 0.0) < 40
    for tone in tones[1:]:  # in the middle of a note, after the glide
        start = int((tone.start + 0.4) * RATE)
        measured, _ = pitch_of(voice[start : start + RATE // 4], RATE)
        assert abs((measured - tone.pitch + 6) % 12 - 6) < 0.8


def test_without_tones_a_singer_is_silent() -> None:
    assert not sing(np.random.default_rng(0), (), RATE, RATE).any()
    assert not sing(np.random.default_rng(0), (Tone(5.0, 1.0, 60, 100),), RATE, RATE).any()
    assert len(sing(np.random.default_rng(0), (Tone(0.9, 5.0, 60, 100),), RATE, RATE)) == RATE


def test_blue_thirds_change_only_the_third() -> None:
    rng = np.random.default_rng(0)
    blue = with_blue_thirds(rng, TUNE, C_MAJOR, 1.0)
    assert {note.pitch for note in blue if note.pitch not in (63, 64)} == {60, 62, 65, 67, 69, 71, 72}
    assert [note.start for note in blue if note.pitch == 63] == [2.0, 8.0, 9.0]
    assert sum(note.duration for note in blue) == pytest.approx(sum(note.duration for note in TUNE))
    assert with_blue_thirds(rng, TUNE, C_MAJOR, 0.0) == list(TUNE)


@pytest.mark.parametrize("above", [False, True])
def test_a_second_voice_is_consonant_and_in_the_key(above: bool) -> None:
    second = harmony(TUNE, C_MAJOR, ChordLookup(CHORDS), above)
    assert len(second) == len(TUNE)
    for first, other in zip(TUNE, second, strict=True):
        distance = other.pitch - first.pitch
        assert (distance > 0) == above
        assert abs(distance) in (3, 4, 5, 8, 9)
        assert other.pitch % 12 in {0, 2, 4, 5, 7, 9, 11}
        assert (other.start, other.duration) == (first.start, first.duration)


@pytest.mark.parametrize("voices", [2, 3])
def test_held_chords_are_the_chords(voices: int) -> None:
    lines = held_chords(CHORDS, 57, voices)
    assert len(lines) == voices
    for index, chord in enumerate(CHORDS):
        tones = {line[index].pitch % 12 for line in lines}
        assert tones <= set(chord.pitch_classes)
        assert len(tones) == voices


def test_a_strum_keeps_the_notes_and_their_ends() -> None:
    chord = tuple(Tone(beat, 0.5, pitch, 90) for beat in (0.0, 1.0) for pitch in (48, 55, 60, 64))
    out = strummed(np.random.default_rng(0), chord, 0.02)
    assert sorted(tone.pitch for tone in out) == sorted(tone.pitch for tone in chord)
    assert len({round(tone.start, 4) for tone in out}) > 4
    for before, after in zip(sorted(chord, key=lambda t: (t.start > 0.9, t.pitch)),
                             sorted(out, key=lambda t: (t.start > 0.9, t.pitch)), strict=True):  # fmt: skip
        assert 0 <= after.start - before.start < 0.1
        assert after.start + after.duration == pytest.approx(before.start + before.duration)
