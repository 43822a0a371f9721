"""Reading drummers' performances."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from stonecli.errors import StoneError
from stonecli_train.corpus.grooves import read_groove, read_grooves

mido = pytest.importorskip("mido")


def performance(beats: int, *, first: int = 0) -> bytes:
    """A MIDI file with a hit on every beat, on the edge of the hi-hat."""
    file = mido.MidiFile(ticks_per_beat=480)
    track = mido.MidiTrack()
    for beat in range(beats):
        track.append(mido.Message("note_on", channel=9, note=22, velocity=90, time=480 if beat else first))
        track.append(mido.Message("note_off", channel=9, note=22, velocity=0, time=0))
    file.tracks.append(track)
    content = io.BytesIO()
    file.save(file=content)
    return content.getvalue()


def test_tempo_and_meter_are_in_the_name() -> None:
    groove = read_groove("1_funk_80_beat_4-4.mid", performance(33))
    assert groove is not None
    assert (groove.bpm, groove.beats_per_bar, groove.beats, len(groove.tones)) == (80.0, 4, 32.0, 32)
    assert {tone.pitch for tone in groove.tones} == {42}


def test_a_performance_at_another_tempo_fills_the_excerpt() -> None:
    groove = read_groove("1_funk_80_beat_4-4.mid", performance(17))
    assert groove is not None
    tones = groove.played(120.0, 20.0, first_bar=1)
    starts = [tone.start for tone in tones]
    assert starts == pytest.approx([0.5 * beat for beat in range(40)])


def test_a_short_performance_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "1_rock_100_beat_4-4.mid").write_bytes(performance(4))
    (tmp_path / "2_rock_100_beat_4-4.mid").write_bytes(performance(33))
    (tmp_path / "3_rock_100_fill_4-4.mid").write_bytes(performance(33))
    assert [groove.name for groove in read_grooves(tmp_path)] == ["2_rock_100_beat_4-4.mid"]


def test_a_folder_without_performances_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoneError, match="no performances"):
        read_grooves(tmp_path)
