"""The readers of Humdrum and ABC on snippets, and of whole corpora if they are installed."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from stonecli.key import Key
from stonecli_train.corpus import (
    abc_notation,
    bach_chorales,
    cocopops,
    humdrum,
    jazz_standards,
    music21_corpus,
    nottingham,
    pop909,
)
from stonecli_train.corpus.score import Skipped, diatonic_share
from stonecli_train.corpus.sources import READERS

TUNE = """X: 1
T:Test Jig
M:4/4
L:1/4
K:{key}
D|"D"DEFG|"G"G/A/B "A7"c/B/A|"D"d>e f-|"Bm/f+"f2 z "Fine"[DF]|
(3DEF G ^G =G|"D"D3:|D4|E4|F4|E4|D4|F4|E4|D4|
"""


@pytest.fixture
def skipped() -> Skipped:
    return Counter()


def test_abc_notes_lengths_accidentals_and_chords(skipped: Skipped) -> None:
    (tune,) = abc_notation.read_tunes("% file header\n\n" + TUNE.format(key="D"), "test", "t.abc", skipped)
    assert tune.key == Key(2, "major")
    assert tune.bar_start == 1.0
    pitches = [note.pitch for note in tune.melody]
    assert pitches[:11] == [62, 62, 64, 66, 67, 67, 69, 71, 73, 71, 69]
    assert [note.duration for note in tune.melody[:11]] == [1, 1, 1, 1, 1, 0.5, 0.5, 1, 0.5, 0.5, 1]
    d, e, tied = tune.melody[11:14]
    assert (d.duration, e.duration, tied.duration, tied.start) == (1.5, 0.5, 3.0, 11.0)  # broken rhythm, tie
    assert [note.pitch for note in tune.melody[14:16]] == [62, 66]  # a chord in brackets
    triplet = tune.melody[16:19]
    assert np.allclose([note.duration for note in triplet], 2 / 3)
    assert [note.pitch for note in tune.melody[19:22]] == [67, 68, 67]
    assert [(chord.start, chord.root, chord.bass) for chord in tune.chords[:4]] == [
        (1.0, 2, 2),
        (5.0, 7, 7),
        (7.0, 9, 9),
        (9.0, 2, 2),
    ]
    assert not skipped


@pytest.mark.parametrize(
    ("field", "key", "sharps"),
    [
        ("G", Key(7, "major"), 1),
        ("Am", Key(9, "minor"), 0),
        ("Bb", Key(10, "major"), -2),
        ("A Mixolydian", Key(9, "major"), 2),
        ("Edor", Key(4, "minor"), 2),
        ("F#m", Key(6, "minor"), 3),
        ("E Minor", Key(4, "minor"), 1),
        ("Bphr", Key(11, "minor"), 1),
        ("Glyd", Key(7, "major"), 2),
        ("AMix", Key(9, "major"), 2),
        ("Cm", Key(0, "minor"), -3),
    ],
)
def test_modal_keys_are_labeled_by_tonic_and_third(field: str, key: Key, sharps: int) -> None:
    assert abc_notation.parse_key(field) == (key, sharps)


def test_malformed_tunes_are_counted_and_the_rest_is_read(skipped: Skipped) -> None:
    bad = TUNE.format(key="Hp").replace("X: 1", "X: 2")
    tunes = list(abc_notation.read_tunes(TUNE.format(key="D") + "\n" + bad + "\nX: 3\nK:C\nCD", "t", "t", skipped))
    assert len(tunes) == 1
    assert skipped == {"t: not a key": 1, "t: too short": 1}


def test_a_tune_with_a_borrowed_signature_is_skipped(tmp_path: Path, skipped: Skipped) -> None:
    bar = '"{0}"{1}|"{2}"{3}|"{0}"{1}|"{2}"{3}|'
    head = "X:1\nM:4/4\nL:1/4\nK:G\n"
    good = bar.format("G", "GBdB", "D7", "FAdA") * 2 + '"C"cegc|"D7"dcAF|"G"GBdB|"G"G4|\n'
    (tmp_path / "good.abc").write_text(head + good)
    (tmp_path / "bad.abc").write_text(head + bar.format("Am", "AceA", "D", "dfaf") * 4 + "\n")
    tunes = list(nottingham.read(tmp_path, skipped))
    assert [tune.key for tune in tunes] == [Key(7, "major")]
    assert skipped == {"nottingham: the key is not certain": 1}


KERN = """!!!COM: nobody
**kern\t**kern
*k[]\t*k[]
*C:\t*C:
*M4/4\t*M4/4
=1\t=1
4C\t8cL
.\t8dJ
4G\t[4e
*\t*^
2E\t4e]\t2c
.\t4g\t.
*\t*v\t*v
=2\t=2
4.F#\t4.BB-
8E\t8qf
.\t8ee
*-\t*-
"""


def test_humdrum_times_splits_and_grace_notes() -> None:
    kinds, records = humdrum.parse_humdrum(KERN)
    assert kinds == ("**kern", "**kern")
    rows = [
        (now, record.spines)
        for now, record in humdrum.times(records, (0, 1))
        if not record.is_interpretation and not record.is_bar
    ]
    assert [now for now, _ in rows] == [0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 5.5, 5.5]
    assert rows[3][1] == (("2E",), ("4e]", "2c"))
    assert [humdrum.pitches(token) for token in ("4C", "8cL", "4.F#", "4.BB-", "8ee", "4r", ".")] == [
        [48], [60], [54], [46], [76], [], [],
    ]  # fmt: skip
    assert humdrum.duration("2..r") == 3.5
    assert humdrum.duration("0c") == 8.0
    assert humdrum.key_of("*b-:") == "b-"


def test_files_that_are_not_humdrum_are_refused() -> None:
    for text in ("", "C D E", "**kern\t**kern\n4c"):
        with pytest.raises(ValueError, match=r"Humdrum|spines"):
            humdrum.parse_humdrum(text)


def test_a_chorale_has_its_voices_ties_and_key(tmp_path: Path, skipped: Skipped) -> None:
    bars = []
    for bass, soprano in (("C", "cc"), ("F", "cc"), ("G", "b"), ("C", "cc")) * 8:
        bars += [f"4{bass}\t4e\t[4g\t4{soprano}", f"4{bass}\t4f\t4g]\t4{soprano}", "4GG\t4d\t4g\t4b"]
    text = "**kern\t**kern\t**kern\t**kern\n*C:\t*C:\t*C:\t*C:\n*M3/4\t*M3/4\t*M3/4\t*M3/4\n" + "\n".join(bars)
    (tmp_path / "a.krn").write_text(text + "\n*-\t*-\t*-\t*-\n")
    (tmp_path / "b.krn").write_text(text.replace("*C:", "*F#:"))
    (tmp_path / "c.krn").write_text("rubbish")
    (chorale,) = bach_chorales.read(tmp_path, skipped)
    assert chorale.key == Key(0, "major")
    assert chorale.beats_per_bar == 3
    assert [note.pitch for note in chorale.notes if note.voice == 0][:3] == [72, 72, 71]
    assert [note.duration for note in chorale.notes if note.voice == 1][:2] == [2.0, 1.0]
    assert sum(skipped.values()) == 2


def test_rolling_stone_lines_divide_their_bars_evenly(skipped: Skipped) -> None:
    lines = ["**harm\t**harte\t**kern", "*M4/4\t*M4/4\t*M4/4", "*A:\t*A:\t*a:"]
    for _ in range(8):
        lines += ["=\t=\t=", "i\tA:min\te", ".\t.\tc", "-VII\tG:maj\td", ".\t.\tr"]
    (song,) = cocopops.read_song("\n".join(lines), "x", skipped)
    assert song.key == Key(9, "minor")
    assert song.length == 32.0
    assert [(chord.start, chord.root) for chord in song.chords[:3]] == [(0.0, 9), (2.0, 7), (4.0, 9)]
    assert [(note.start, note.duration) for note in song.melody[:3]] == [(0.0, 1.0), (1.0, 1.0), (2.0, 1.0)]


def test_billboard_songs_are_cut_where_the_key_changes(skipped: Skipped) -> None:
    def bars(tonic: str, chord: str, note: str) -> list[str]:
        return [f"*{tonic}:\t*{tonic}:\t*{tonic}:", *[f"1I\t{chord}\t1{note}", "1r\tN\t1r"] * 4]

    lines = ["**harm\t**harte\t**kern", "*M4/4\t*M4/4\t*M4/4", *bars("C", "C:maj", "e"), *bars("D", "D:maj7", "f#")]
    first, second = cocopops.read_song("\n".join(lines), "x", skipped)
    assert (first.key, second.key) == (Key(0, "major"), Key(2, "major"))
    assert first.length == second.length == 32.0
    assert [(chord.start, chord.duration) for chord in second.chords[:2]] == [(0.0, 4.0), (8.0, 4.0)]


def test_a_chart_with_repeated_bars_and_endings() -> None:
    song = {
        "Title": "T", "Key": "Gmin", "TimeSignature": "3/4",
        "Sections": [{"MainSegment": {"Chords": "Gm7|%|Cm7,D7b9|Gm6/D"}, "Endings": [{"Chords": "Am7b5|D7"}]}],
    }  # fmt: skip
    chart = jazz_standards.read_chart(song, "x")
    assert chart.key == Key(7, "minor")
    assert [(chord.start, chord.duration, chord.root, chord.bass) for chord in chart.chords] == [
        (0, 6, 7, 7), (6, 1.5, 0, 0), (7.5, 1.5, 2, 2), (9, 3, 7, 2), (12, 3, 9, 9), (15, 3, 2, 2),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="no tonic chord"):
        jazz_standards.read_chart(song | {"Key": "F"}, "x")


def test_charts_that_cannot_be_read_are_counted(tmp_path: Path, skipped: Skipped) -> None:
    (tmp_path / "a.json").write_text(json.dumps([{"Title": "no key"}, {"Key": "C", "Sections": 3}, {"Key": "C"}]))
    assert list(jazz_standards.read(tmp_path, skipped)) == []
    assert sum(skipped.values()) == 3


def test_romantext_keys_are_those_that_sound() -> None:
    text = (
        "Time Signature: 4/4\n\nm0 b4 C: I\nm1 V6 b2.5 IV[add9] b3 V6/5\nm1var1 ii\nm2 a: i || b3 V7\nm3 ii/o6/5 b3 i\n"
    )
    passage = music21_corpus.read_romantext(text, "x")
    assert passage.keys == ((0.0, Key(0, "major")), (5.0, Key(9, "minor")))
    assert [(chord.start, chord.root, chord.bass) for chord in passage.chords] == [
        (0, 0, 0), (1, 7, 11), (2.5, 5, 5), (3, 7, 11), (5, 9, 9), (7, 4, 4), (9, 11, 2), (11, 9, 9),
    ]  # fmt: skip


def midi_song(tonic: int) -> bytes:
    mido = pytest.importorskip("mido")
    file = mido.MidiFile(ticks_per_beat=480)
    conductor, piano = mido.MidiTrack(), mido.MidiTrack()
    conductor.append(mido.MetaMessage("set_tempo", tempo=500_000))
    piano.append(mido.MetaMessage("track_name", name="PIANO"))
    for degree in (0, 4, 7, 5, 9, 12, 7, 11, 14, 0, 4, 7) * 4:
        piano.append(mido.Message("note_on", note=60 + tonic + degree, velocity=80, time=0))
        piano.append(mido.Message("note_on", note=60 + tonic + degree, velocity=0, time=480))
    file.tracks += [conductor, piano]
    out = io.BytesIO()
    file.save(file=out)
    return out.getvalue()


def test_pop909_times_become_beats_and_wrong_keys_are_dropped(tmp_path: Path, skipped: Skipped) -> None:
    for name, key in (("001", "D:maj"), ("002", "Ab:maj"), ("003", None)):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.mid").write_bytes(midi_song(2) if name != "003" else b"MThd rubbish")
        (tmp_path / name / "key_audio.txt").write_text(f"0.0\t24.0\t{key or 'C:maj'}\n")
        (tmp_path / name / "chord_midi.txt").write_text("0.0\t1.5\tD:maj\n1.5\t3.0\tG:maj/5\n3.0\t4.5\tN\n")
    (song,) = pop909.read(tmp_path, skipped)
    assert song.key == Key(2, "major")
    assert song.length == 48.0  # 24 s at 120 a minute
    assert [(note.start, note.pitch, note.voice) for note in song.notes[:2]] == [(0.0, 62, 2), (1.0, 66, 2)]
    assert [(chord.start, chord.duration, chord.root, chord.bass) for chord in song.chords] == [
        (0, 3, 2, 2),
        (3, 3, 7, 2),
    ]
    assert skipped["pop909: the key does not fit the notes"] == 1
    assert sum(skipped.values()) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "minimum", "min_minor"),
    [("cocopops", 400, 80), ("jazz_standards", 900, 150), ("bach_chorales", 250, 80), ("nottingham", 800, 40)],
)
def test_the_real_corpora(source: str, minimum: int, min_minor: int, skipped: Skipped) -> None:
    folder = Path(__file__).resolve().parents[4] / "shared" / "corpus"
    if not (folder / f"{source}.zip").exists():
        pytest.skip("the corpora are missing")
    passages = list(READERS[source](folder / source, skipped))
    assert len(passages) >= minimum
    assert sum(passage.key.mode == "minor" for passage in passages) >= min_minor
    shares = [diatonic_share(passage.histogram(), passage.key) for passage in passages]
    assert np.mean(shares) > 0.88
    for passage in passages:
        assert passage.chords or passage.notes
        for events in (passage.chords, passage.melody, passage.notes):
            assert all(event.start >= -1e-6 and event.duration > 0 for event in events)
            assert all(event.start <= passage.length + 1e-6 for event in events)


def test_the_fiddle_tunes_of_music21(skipped: Skipped, tmp_path: Path) -> None:
    pytest.importorskip("importlib.util").find_spec("music21") or pytest.skip("music21 is not installed")
    source = music21_corpus.installed_corpus() / "ryansMammoth"
    target = tmp_path / "ryansMammoth"
    target.mkdir()
    for path in sorted(source.glob("*.abc"))[::10]:
        (target / path.name).write_bytes(path.read_bytes())
    tunes = list(music21_corpus.read(tmp_path, skipped))
    assert len(tunes) > 50
    assert np.mean([diatonic_share(tune.histogram(), tune.key) for tune in tunes]) > 0.97
