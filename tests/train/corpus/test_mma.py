"""Accompaniment by MMA: the chart that it reads, the parts that it plays, and excerpts from both."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from stonecli.key import Key
from stonecli_train.corpus import mma
from stonecli_train.corpus.score import Chord, Passage
from stonecli_train.corpus.songs import MINOR_SHARES
from stonecli_train.corpus.sources import Library
from stonecli_train.corpus.styles import STYLES

needs_mma = pytest.mark.skipif(
    shutil.which("mma") is None or not mma.LIBRARY.is_dir(), reason="MMA or its library is not installed"
)
LOOP = tuple(
    Chord(4.0 * bar, 4.0, root, intervals, root)
    for bar, (root, intervals) in enumerate([(9, (0, 3, 7)), (5, (0, 4, 7)), (0, (0, 4, 7)), (7, (0, 4, 7))] * 4)
)


def test_a_chart_has_bars_of_four_beats_with_chords_and_grooves() -> None:
    chords = (Chord(0.0, 6.0, 9, (0, 3, 7), 9), Chord(6.0, 2.0, 7, (0, 4, 7), 11), Chord(12.0, 4.0, 0, (0, 4, 7), 0))
    text = mma.chart(chords, 16.0, [(0.0, "a:One"), (8.0, "a:Two")], 96.5, 7)
    assert text.splitlines() == [
        "RndSeed 7",
        "Tempo 96.500",
        "Groove a:One",
        "1 Am / / /",
        "2 Am / G/B /",
        "Groove a:Two",
        "3 z / / /",
        "4 C / / /",
    ]


@pytest.mark.parametrize(
    ("root", "intervals", "bass", "name"),
    [
        (0, (0, 4, 7), 0, "C"),
        (6, (0, 3, 7), 6, "F#m"),
        (10, (0, 4, 7, 11), 10, "BbM7"),
        (2, (0, 3, 6), 2, "Ddim3"),
        (7, (0, 10, 4, 7), 11, "G7/B"),
        (5, (0, 7), 5, "F5"),
        (5, (0, 7, 10), 5, "F5"),
        (4, (0, 4, 7, 10, 14, 18), 4, "E7"),
    ],
)
def test_chords_are_spelled_as_mma_reads_them(root: int, intervals: tuple[int, ...], bass: int, name: str) -> None:
    assert mma.chord_name(Chord(0.0, 1.0, root, intervals, bass)) == name


def test_grooves_are_for_styles_of_songs() -> None:
    assert set(mma.GROOVES) <= set(MINOR_SHARES)
    assert not mma.styles_with_grooves(("orchestra",), held_out=False)
    with pytest.raises(ValueError, match="no grooves for orchestra"):
        mma.draw_grooves(np.random.default_rng(0), "orchestra", held_out=False)


@needs_mma
def test_every_style_has_grooves_and_held_out_ones_are_others() -> None:
    assert set(mma.styles_with_grooves(tuple(STYLES), held_out=False)) == set(mma.GROOVES)
    drawn = {
        held_out: {
            groove.partition(":")[0]
            for style in mma.styles_with_grooves(tuple(mma.GROOVES), held_out)
            for seed in range(8)
            for groove in mma.draw_grooves(np.random.default_rng(seed), style, held_out)
        }
        for held_out in (False, True)
    }
    assert drawn[True]
    assert not drawn[True] & drawn[False]
    assert all((mma.LIBRARY / f"{file}.mma").exists() for files in mma.GROOVES.values() for file in files)


@needs_mma
@pytest.mark.parametrize("file", ["casio/house", "stdlib/dsoul"])
def test_a_band_plays_the_chords_for_the_whole_song(file: str) -> None:
    groove = next(
        line.split()[1]
        for line in (mma.LIBRARY / f"{file}.mma").read_text("utf-8", errors="replace").splitlines()
        if line.startswith("DefGroove ")
    )
    changes = [(0.0, f"{file}:{groove}")]
    parts = mma.accompany(np.random.default_rng(3), LOOP, 64.0, changes, 120.0, (0,))
    assert {"bass", "chords", "drums"} <= {part.role for part in parts}
    tones = [tone for part in parts if part.role != "drums" for tone in part.tones]
    assert max(tone.start for tone in tones) > 28.0  # of 32 s
    inside = [tone.pitch % 12 in LOOP[min(15, int(tone.start / 2.0 + 0.05))].pitch_classes for tone in tones]
    assert np.mean(inside) > 0.8
    assert parts == mma.accompany(np.random.default_rng(3), LOOP, 64.0, changes, 120.0, (0,))


@needs_mma
def test_charts_that_mma_cannot_play_are_reported() -> None:
    with pytest.raises(mma.MMAError, match="MMA failed"):
        mma.accompany(np.random.default_rng(0), LOOP, 64.0, [(0.0, "no/such:Groove")], 120.0, (0,))


@needs_mma
def test_excerpts_are_songs_with_the_parts_of_mma() -> None:
    pytest.importorskip("mido")
    library = Library({}, styles=("house", "rnb"))
    excerpt = library.draw(np.random.default_rng(5), "mma", 20.0)
    assert excerpt.passage.source == "mma"
    assert excerpt.style in ("house", "rnb")
    assert {"bass", "chords"} <= {part.role for part in excerpt.parts}
    again = library.draw(np.random.default_rng(5), "mma", 20.0)
    assert (again.parts, again.bpm) == (excerpt.parts, excerpt.bpm)


@needs_mma
def test_charts_of_installed_corpora_are_accompanied(tmp_path: Path) -> None:
    pytest.importorskip("mido")
    assert Library.load(tmp_path, ["mma"], False, ["pop"], Counter()).draw(np.random.default_rng(0), "mma", 10.0)
    cadence = tuple(
        Chord(4.0 * bar, 4.0, root, intervals, root)
        for bar, (root, intervals) in enumerate([(9, (0, 3, 7)), (2, (0, 3, 7)), (4, (0, 4, 7)), (9, (0, 3, 7))] * 4)
    )
    charts = [Passage(((0.0, Key(9, "minor")),), 64.0, "cocopops", f"{index}", chords=cadence) for index in range(9)]
    library = Library({"cocopops": charts}, styles=("pop",))
    drawn = [library.draw(np.random.default_rng(seed), "mma", 10.0).passage for seed in range(12)]
    assert {passage.source for passage in drawn} == {"mma"}
    assert 0 < sum(passage.origin.isdigit() for passage in drawn) < 12
