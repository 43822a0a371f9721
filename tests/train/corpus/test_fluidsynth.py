from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest

from stonecli.tuning import cents_of, frame_peaks
from train.corpus.arrange import Part, Tone
from train.corpus.fluidsynth import SOUND_FONTS, draw_font, installed_fonts, is_installed, midi_file, render_parts

RATE = 22050
PARTS = (
    Part("chords", tuple(Tone(0.5 * place, 0.5, 60 + place % 12, 90) for place in range(8)), 0, 1.0),
    Part("drums", (Tone(0.0, 0.1, 36, 100), Tone(1.0, 0.1, 38, 100))),
    Part("chords", (Tone(0.0, 9.0, 45, 100), Tone(99.0, 1.0, 45, 100)), 30, 0.5, amplified=True),
)


def test_the_midi_file_says_what_the_parts_say() -> None:
    mido = pytest.importorskip("mido")
    file = mido.MidiFile(file=io.BytesIO(midi_file(PARTS, 5.0)))
    assert file.length == pytest.approx(5.0, abs=0.01)
    assert len(file.tracks) == 4
    first, drums, guitar = ([message for message in track if message.type == "note_on"] for track in file.tracks[1:])
    assert [message.note for message in first] == list(range(60, 68))
    assert {message.channel for message in drums} == {9}
    assert len(guitar) == 1  # what begins after the end is left out
    pans = [message.value for track in file.tracks for message in track if message.is_cc(10)]
    assert pans == [127, 127, 0]


def test_there_is_room_for_more_parts_than_channels() -> None:
    assert midi_file(PARTS[:1] * 20, 5.0).startswith(b"MThd")


def test_every_font_is_either_for_training_or_held_out() -> None:
    assert {font.held_out for font in SOUND_FONTS} == {False, True}
    assert not {font.path for font in installed_fonts(True)} & {font.path for font in installed_fonts(False)}


@pytest.mark.skipif(not is_installed(), reason="FluidSynth or its soundfonts are not here")
def test_both_stems_have_length_and_sound_in_tune() -> None:
    font = draw_font(np.random.default_rng(0))
    guitar = replace(PARTS[2], tones=(Tone(0.0, 4.0, 57, 100),))
    clean, amplified = render_parts((PARTS[0], guitar), font, 4.0, RATE, reverb=False)
    for stem in (clean, amplified):
        assert stem.shape == (4 * RATE,)
        assert stem.dtype == np.float32
        assert np.std(stem) > 1e-4
        assert abs(cents_of(frame_peaks(stem, RATE).total) or 0.0) < 12
    only, silent = render_parts(PARTS[:1], font, 4.0, RATE, reverb=False)
    assert np.std(only) > 10 * np.std(silent)
