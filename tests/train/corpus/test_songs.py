"""Songs: their sections, keys, modes by style, and annotations."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from stonecli_train.corpus.annotation import COLUMNS, FRAME_SECONDS, MAJOR, MINOR, OTHER, UNKNOWN, annotate, quality
from stonecli_train.corpus.arrange import Part, Tone
from stonecli_train.corpus.score import Chord, diatonic_share
from stonecli_train.corpus.songs import MINOR_SHARES, WEIGHTS, Song, arrange_song, draw_song, draw_style
from stonecli_train.corpus.styles import STYLES

NAMES = tuple(STYLES)


def song(seed: int) -> tuple[Song, str]:
    rng = np.random.default_rng(seed)
    style, mode = draw_style(rng, NAMES)
    return draw_song(rng, style, mode, 96.0, held_out=False), style.name


def test_styles_of_songs_are_styles() -> None:
    assert set(MINOR_SHARES) <= set(STYLES)
    assert set(WEIGHTS) <= set(MINOR_SHARES)
    with pytest.raises(ValueError, match="no songs"):
        draw_style(np.random.default_rng(0), ("orchestra",))


def test_the_share_of_minor_depends_on_the_style() -> None:
    rng = np.random.default_rng(0)
    modes = {name: Counter(draw_style(rng, (name,))[1] for _ in range(300)) for name in ("trap", "country")}
    assert modes["trap"]["minor"] > 220
    assert modes["country"]["minor"] < 70


@pytest.mark.parametrize("seed", range(12))
def test_sections_chords_and_melody_cover_the_song(seed: int) -> None:
    drawn, _ = song(seed)
    passage = drawn.passage
    assert passage.length >= 96.0
    assert [part.start for part in drawn.sections] == [0.0, *(part.end for part in drawn.sections[:-1])]
    assert drawn.sections[-1].end == passage.length
    ends = [chord.end for chord in passage.chords]
    assert [chord.start for chord in passage.chords] == pytest.approx([0.0, *ends[:-1]])
    assert ends[-1] == pytest.approx(passage.length)
    assert passage.main_key() == (passage.key, 1.0)
    assert passage.melody
    assert all(note.start < passage.length for note in passage.melody)
    for section in drawn.sections:  # a loop starts with the section
        assert any(chord.start == pytest.approx(section.start) for chord in passage.chords)


def test_songs_are_in_their_key_and_mostly_start_on_the_tonic() -> None:
    shares, anchored = [], []
    for seed in range(60):
        drawn, _ = song(seed)
        key = drawn.passage.key
        shares.append(diatonic_share(drawn.passage.histogram(), key))
        for section in drawn.sections:
            if section.kind == "verse":
                first = next(chord for chord in drawn.passage.chords if chord.start >= section.start)
                anchored.append(first.root == key.tonic)
    assert np.mean(shares) > 0.85
    assert 0.75 < np.mean(anchored) < 0.98


def test_a_song_is_deterministic_and_held_out_loops_are_others() -> None:
    assert song(3) == song(3)
    loops: list[set[str]] = []
    for held_out in (False, True):
        songs = [draw_song(np.random.default_rng(seed), STYLES["rock"], "minor", 96.0, held_out) for seed in range(100)]
        loops.append({loop for each in songs for loop in each.passage.origin.split(" | ") if " " in loop})
    assert loops[1]
    assert not loops[0] & loops[1]


@pytest.mark.parametrize("seed", range(8))
def test_a_band_plays_every_song(seed: int) -> None:
    drawn, name = song(seed)
    parts, bpm = arrange_song(np.random.default_rng(seed), drawn, STYLES[name])
    low, high = STYLES[name].bpm
    assert low <= bpm <= high
    assert any(part.role not in ("drums", "spoken") for part in parts)
    assert all(part.tones for part in parts)


def test_frames_are_annotated_with_chord_bass_and_melody() -> None:
    chords = (Chord(0.0, 2.0, 9, (0, 3, 7), 9), Chord(2.0, 2.0, 5, (0, 4, 7, 11), 9), Chord(4.0, 4.0, 0, (0, 7), 0))
    parts = (
        Part("chords", (Tone(0.0, 3.0, 57, 90),)),
        Part("bass", (Tone(0.0, 0.5, 33, 90), Tone(1.0, 0.5, 29, 90))),
        Part("lead", (Tone(0.0, 1.0, 64, 90),)),
        Part("sung", (Tone(0.5, 0.25, 72, 90),)),
        Part("drums", (Tone(0.0, 4.0, 36, 90),)),
    )
    frames = annotate(parts, chords, bpm=120.0, seconds=4.0)
    assert frames.shape == (round(4.0 / FRAME_SECONDS), len(COLUMNS))
    assert frames.dtype == np.uint8
    at = {seconds: frames[int(seconds / FRAME_SECONDS)].tolist() for seconds in (0.0, 0.5, 1.0, 2.5, 3.5)}
    assert at[0.0] == [9, MINOR, 9, 4]
    assert at[0.5] == [9, MINOR, UNKNOWN, 0]  # the singer, not the lead
    assert at[1.0] == [5, MAJOR, 5, UNKNOWN]
    assert at[2.5] == [0, OTHER, UNKNOWN, UNKNOWN]
    assert at[3.5] == [UNKNOWN] * 4  # only drums play


def test_qualities() -> None:
    assert quality((0, 4, 7)) == quality((0, 4, 7, 10)) == MAJOR
    assert quality((0, 3, 7, 10)) == MINOR
    assert quality((0, 3, 6)) == quality((0, 4, 8)) == quality((0, 5, 7)) == quality((0, 7)) == OTHER
