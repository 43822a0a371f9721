from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stonecli.key import Key, Mode
from stonecli_train.corpus.arrange import HIGHEST, LOWEST, arrange, arrange_score
from stonecli_train.corpus.drums import draw_drums
from stonecli_train.corpus.layers import LAYERS
from stonecli_train.corpus.melodies import ChordLookup, draw_hook, draw_melody, draw_riff
from stonecli_train.corpus.progressions import LOOPS, draw_loop, harmonized
from stonecli_train.corpus.scene import Scene
from stonecli_train.corpus.score import Chord, Note, Passage, diatonic_share
from stonecli_train.corpus.styles import DRUMS, STYLES

C = Key(0, "major")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def pitch_classes(parts: object) -> np.ndarray:
    counts = np.zeros(12)
    for part in parts:  # type: ignore[attr-defined]
        if part.role not in ("drums", "spoken"):
            for tone in part.tones:
                counts[tone.pitch % 12] += tone.duration
    return counts


@pytest.mark.parametrize("name", list(STYLES))
def test_every_style_plays_in_range_in_time_and_in_its_key(name: str) -> None:
    style = STYLES[name]
    shares = []
    for seed in range(4):
        mode: Mode = "minor" if seed % 2 else "major"
        passage = draw_loop(rng(seed), style.loops, mode, 60.0, held_out=False).excerpt(0.0, 48.0)
        parts = arrange(rng(seed), passage, style, 120.0)
        assert parts == arrange(rng(seed), passage, style, 120.0)  # deterministic
        assert any(part.role not in ("drums", "spoken") for part in parts)
        for part in parts:
            assert 0 <= part.program <= 127
            assert 0.0 < part.gain < 2.0
            assert part.tones
            for tone in part.tones:
                assert 0.0 <= tone.start <= 24.1
                assert tone.duration > 0
                assert LOWEST <= tone.pitch <= HIGHEST
                assert 1 <= tone.velocity <= 127
        shares.append(diatonic_share(pitch_classes(parts), passage.key))
    assert np.mean(shares) > 0.85, shares


@pytest.mark.parametrize("name", ["house", "rock", "jazz", "classical_piano", "hiphop"])
def test_an_arrangement_is_transposed_with_its_key(name: str) -> None:
    passage = draw_loop(rng(5), STYLES[name].loops, "minor", 60.0, held_out=False).excerpt(0.0, 48.0)
    here = pitch_classes(arrange(rng(3), passage, STYLES[name], 110.0))
    shares = [
        float(np.minimum(np.roll(here, up), there).sum() / there.sum())
        for up in (2, 7)
        for there in [pitch_classes(arrange(rng(3), passage.transposed(up), STYLES[name], 110.0))]
    ]
    assert min(shares) > 0.6  # melodies move by their range, chords and basses exactly


@pytest.mark.parametrize("name", list(LAYERS))
def test_layers_follow_the_chords_in_any_meter(name: str) -> None:
    chords = tuple(Chord(3.0 * index, 3.0, root, (0, 4, 7), root) for index, root in enumerate((0, 5, 7, 0) * 3))
    passage = Passage(((0.0, C),), 36.0, "t", "t", chords, beats_per_bar=3, bar_start=2.0)
    for seed in range(3):
        notes = LAYERS[name](Scene(rng(seed), passage, STYLES["pop"], ChordLookup(chords)))
        assert notes
        assert all(note.duration > 0 for note in notes)
        inside = np.mean([(note.pitch - 0) % 12 in (0, 2, 4, 5, 7, 9, 10, 11, 3) for note in notes])
        assert inside > 0.7, name


def test_half_of_the_electronic_styles_is_minor() -> None:
    electronic = [style.minor for style in STYLES.values() if style.loops in ("electronic", "beds")]
    assert min(electronic) >= 0.5


def test_styles_refer_to_existing_layers_and_drums() -> None:
    for style in STYLES.values():
        assert set(style.layers) <= set(LAYERS)
        assert set(style.drums) <= set(DRUMS)
        assert style.loops in LOOPS
    for pattern in DRUMS.values():
        assert len({len(row) for row in pattern}) == 1
        assert set("".join(pattern)) <= set("xo.")


def test_the_keys_of_loops_are_uniform_over_the_tonics() -> None:
    draws = [draw_loop(rng(seed), "pop", "major", 16.0, False).key.tonic for seed in range(600)]
    counts = np.bincount(draws, minlength=12)
    assert counts.min() > 25
    assert counts.max() < 80


def test_held_out_loops_are_never_drawn_for_training() -> None:
    draws = [{draw_loop(rng(seed), "rock", "minor", 8.0, held).origin for seed in range(200)} for held in (False, True)]
    assert draws[1]
    assert not draws[0] & draws[1]
    assert draws[0] | draws[1] == set(LOOPS["rock"]["minor"])


@pytest.mark.parametrize("mode", ["major", "minor"])
def test_melodies_riffs_and_hooks_define_key_and_mode(mode: Mode) -> None:
    key = Key(4, mode)
    third = (4 + (4 if mode == "major" else 3)) % 12
    lookup = ChordLookup(draw_loop(rng(1), "pop", mode, 70.0, False).chords)
    thirds = []
    for seed in range(12):
        riff = draw_riff(rng(seed), key, ChordLookup(()), 64.0, 40)
        assert any(note.pitch % 12 == third for note in riff) or len({note.start % 2 for note in riff}) == 1
        for notes in (riff, draw_melody(rng(seed), key, lookup, 64.0), draw_hook(rng(seed), key, lookup, 64.0)):
            assert notes
            assert all(0 <= note.start < 64 and 20 < note.pitch < 100 for note in notes)
        thirds.append(any(note.pitch % 12 == third for note in draw_melody(rng(seed), key, ChordLookup(()), 64.0)))
    assert np.mean(thirds) > 0.8


def test_a_tune_gets_chords_that_contain_its_notes() -> None:
    pitches = (60, 64, 67, 64, 65, 69, 72, 69, 67, 71, 74, 71, 60, 64, 67, 72)
    tune = Passage(
        ((0.0, C),), 16.0, "t", "t", melody=tuple(Note(float(index), 1.0, pitch) for index, pitch in enumerate(pitches))
    )
    assert [chord.root for chord in harmonized(tune, rng(0)).chords] == [0, 5, 7, 0]


def test_drums_follow_the_meter_and_end_in_time() -> None:
    for pattern in DRUMS:
        for bar in (3, 4):
            hits = draw_drums(rng(1), pattern, 30.0, bar, 1.0)
            assert all(0 <= hit.start < 30 and 27 <= hit.pitch <= 87 for hit in hits)
    house = draw_drums(rng(2), "house", 32.0, 4, 0.0)
    kicks = [hit.start for hit in house if hit.pitch in (35, 36)]
    assert np.mean([beat % 1 == 0 for beat in kicks]) > 0.8


def test_a_whole_score_keeps_its_pitch_classes() -> None:
    notes = tuple(Note(float(index), 1.0, 50 + index, voice=index % 3) for index in range(24))
    passage = Passage(((0.0, C),), 24.0, "bach_chorales", "t", notes=notes)
    for seed in range(5):
        counts = pitch_classes(arrange_score(rng(seed), passage, 60.0))
        assert np.allclose(counts, 2.0)
    for seed in range(5):
        assert arrange_score(rng(seed), replace(passage, source="pop909"), 60.0)
