from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from stonecli.detection.tuning import cents_of, frame_peaks
from stonecli_train.corpus.arrange import Part, Tone
from stonecli_train.corpus.fluidsynth import (
    GAP,
    SOUND_FONTS,
    FluidSynthError,
    draw_font,
    installed_fonts,
    is_installed,
    midi_file,
    render_parts,
)

RATE = 22050
PARTS = (
    Part("chords", tuple(Tone(0.5 * place, 0.5, 60 + place % 12, 90) for place in range(8)), 0, 1.0),
    Part("drums", (Tone(0.0, 0.1, 36, 100), Tone(1.0, 0.1, 38, 100))),
    Part("chords", (Tone(0.0, 9.0, 45, 100), Tone(99.0, 1.0, 45, 100)), 30, 0.5, amplified=True),
)


def test_the_midi_file_plays_the_parts_one_after_another() -> None:
    mido = pytest.importorskip("mido")
    file = mido.MidiFile(file=io.BytesIO(midi_file(PARTS, 5.0)))
    stretch = 5.0 + GAP
    assert file.length == pytest.approx(3 * stretch - GAP / 2, abs=0.01)
    time, played = 0.0, []
    for message in file:
        time += message.time
        if message.type == "note_on":
            played.append((time, message.channel, message.note))
    expected = [
        (number * stretch + tone.start, 9 if part.role == "drums" else 0, tone.pitch)
        for number, part in enumerate(PARTS)
        for tone in part.tones
        if tone.start < 5.0  # notes that start after the end are omitted
    ]
    assert [row[1:] for row in played] == [row[1:] for row in expected]
    assert [row[0] for row in played] == pytest.approx([row[0] for row in expected], abs=0.002)
    assert [message.program for message in file.tracks[0] if message.type == "program_change"] == [0, 0, 30]


def test_more_parts_than_midi_channels_are_rendered() -> None:
    assert midi_file(PARTS[:1] * 20, 5.0).startswith(b"MThd")


def test_every_font_is_either_for_training_or_held_out() -> None:
    assert {font.held_out for font in SOUND_FONTS} == {False, True}
    assert not {font.path for font in installed_fonts(True)} & {font.path for font in installed_fonts(False)}


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
def test_truncated_audio_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk, FluidSynth writes truncated audio and exits with code 0."""
    program = tmp_path / "fluidsynth"
    program.write_text('#!/bin/sh\nwhile [ "$1" != -F ]; do shift; done\nhead -c 80000 /dev/zero > "$2"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(FluidSynthError, match="truncated"):
        render_parts(PARTS[:1], SOUND_FONTS[0], 5.0, RATE)


@pytest.mark.skipif(not is_installed(), reason="FluidSynth or its soundfonts are not installed")
def test_each_part_is_alone_in_time_in_tune_and_as_loud_as_alone() -> None:
    font = draw_font(np.random.default_rng(0))
    late = Part("lead", (Tone(2.0, 1.5, 69, 100),), 19)  # an organ: it sounds at once
    strings = Part("voice", (Tone(0.0, 4.0, 57, 110),), 48)  # which ring on
    stems = render_parts((PARTS[0], strings, late, PARTS[1]), font, 4.0, RATE)
    for stem in stems:
        assert stem.shape == (4 * RATE,)
        assert stem.dtype == np.float32
        assert np.std(stem) > 1e-4
    for stem in stems[:3]:
        assert abs(cents_of(frame_peaks(stem, RATE).resultant) or 0.0) < 12
    assert np.abs(stems[2][: int(1.99 * RATE)]).max() < 1e-4 * np.abs(stems[2]).max()  # nothing of the strings
    onset = int(np.argmax(np.abs(stems[2]) > 0.05 * np.abs(stems[2]).max()))
    assert onset / RATE == pytest.approx(2.0, abs=0.03)
    [alone] = render_parts((late,), font, 4.0, RATE)
    assert np.std(stems[2]) == pytest.approx(np.std(alone), rel=0.02)
