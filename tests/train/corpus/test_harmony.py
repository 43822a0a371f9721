from __future__ import annotations

import pytest

from stonecli.key import Mode
from stonecli_train.corpus.harmony import parse_harte, parse_roman, parse_symbol, pitch_class
from stonecli_train.corpus.progressions import LOOPS


@pytest.mark.parametrize(("name", "expected"), [("C", 0), ("B-", 10), ("f+", 6), ("E#", 5), ("Cb", 11), ("g", 7)])
def test_note_names_of_all_corpora(name: str, expected: int) -> None:
    assert pitch_class(name) == expected


@pytest.mark.parametrize("name", ["", "H", "C!", "Cis"])
def test_invalid_notes_are_an_error(name: str) -> None:
    with pytest.raises(ValueError, match="not a note"):
        pitch_class(name)


@pytest.mark.parametrize(
    ("text", "root", "intervals", "bass"),
    [
        ("C:maj", 0, (0, 4, 7), 0),
        ("B-:min7/b3", 10, (0, 3, 7, 10), 1),
        ("F#:maj7/5", 6, (0, 4, 7, 11), 1),
        ("G:sus4(b7)", 7, (0, 5, 7, 10), 7),
        ("A:(1,4,5,b7)", 9, (0, 5, 7, 10), 9),
        ("D:7(b9)", 2, (0, 4, 7, 10, 13), 2),
        ("E:5", 4, (0, 7), 4),
    ],
)
def test_harte(text: str, root: int, intervals: tuple[int, ...], bass: int) -> None:
    chord = parse_harte(text)
    assert chord is not None
    assert (chord.root, chord.intervals, chord.bass) == (root, intervals, bass)


def test_no_chord_is_accepted_and_nonsense_is_an_error() -> None:
    assert parse_harte("N") is None
    assert parse_symbol("NC") is None
    for parse in (parse_harte, parse_symbol):
        with pytest.raises(ValueError, match="not a"):
            parse("C:wobble")


@pytest.mark.parametrize(
    ("text", "root", "intervals", "bass"),
    [
        ("G", 7, (0, 4, 7), 7),
        ("Em", 4, (0, 3, 7), 4),
        ("E7/b", 4, (0, 4, 7, 10), 11),
        ("A/c+", 9, (0, 4, 7), 1),
        ("Fm7b5", 5, (0, 3, 6, 10), 5),
        ("Bbmaj7#11", 10, (0, 4, 7, 11, 18), 10),
        ("Dbmaj7", 1, (0, 4, 7, 11), 1),
        ("C07", 0, (0, 3, 6, 9), 0),
        ("Bd", 11, (0, 3, 6), 11),
        ("G7sus", 7, (0, 5, 7, 10), 7),
        ("Ab69", 8, (0, 4, 7, 9), 8),
        ("C-7", 0, (0, 3, 7, 10), 0),
        ("D+", 2, (0, 4, 8), 2),
        ("Ebm7(Ab7)", 3, (0, 3, 7, 10), 3),
        ("G7b9", 7, (0, 4, 7, 10, 13), 7),
        ("Cmaj7#5", 0, (0, 4, 8, 11), 0),
        ("Gm/maj7", 7, (0, 3, 7, 11), 7),
        ("Gm/maj7/D", 7, (0, 3, 7, 11), 2),
    ],
)
def test_lead_sheet_symbols(text: str, root: int, intervals: tuple[int, ...], bass: int) -> None:
    chord = parse_symbol(text)
    assert chord is not None
    assert (chord.root, chord.intervals, chord.bass) == (root, intervals, bass)


@pytest.mark.parametrize(
    ("text", "mode", "root", "intervals", "bass"),
    [
        ("V7", "major", 7, (0, 4, 7, 10), 7),
        ("Imaj7", "major", 0, (0, 4, 7, 11), 0),
        ("V65", "major", 7, (0, 4, 7, 10), 11),
        ("bVII", "major", 10, (0, 4, 7), 10),
        ("bVII", "minor", 10, (0, 4, 7), 10),
        ("VII", "minor", 10, (0, 4, 7), 10),
        ("viio6", "minor", 11, (0, 3, 6), 2),
        ("iiø7", "minor", 2, (0, 3, 6, 10), 2),
        ("V7/V", "major", 2, (0, 4, 7, 10), 2),
        ("vii/o7", "minor", 11, (0, 3, 6, 10), 11),
        ("bII", "minor", 1, (0, 4, 7), 1),
        ("IV", "minor", 5, (0, 4, 7), 5),
        ("I64", "major", 0, (0, 4, 7), 7),
        ("VI", "minor", 8, (0, 4, 7), 8),
    ],
)
def test_roman_numerals(text: str, mode: Mode, root: int, intervals: tuple[int, ...], bass: int) -> None:
    for tonic in range(12):
        chord = parse_roman(text, tonic, mode)
        assert (chord.root, chord.intervals, chord.bass) == ((root + tonic) % 12, intervals, (bass + tonic) % 12)


def test_nonsense_numerals_are_refused() -> None:
    for text in ("", "x", "VIIII", "I99"):
        with pytest.raises(ValueError, match="not a roman numeral"):
            parse_roman(text, 0, "major")


def test_all_loops_can_be_read_and_have_the_third_of_their_mode() -> None:
    for group, modes in LOOPS.items():
        for mode, loops in modes.items():
            assert len(loops) == len(set(loops)), group
            assert len(loops) >= 5  # so that one is held out
            for loop in loops:
                numerals = [numeral for numeral in loop.split() if "/" not in numeral]  # V7/iv is a major tonic
                chords = [parse_roman(numeral, 0, mode) for numeral in numerals]
                tonics = [chord for chord in chords if chord.root == 0]
                third = 4 if mode == "major" else 3
                assert any(third in chord.intervals for chord in tonics) or not tonics, (group, mode, loop)
                foreign = 3 if mode == "major" else 4
                assert not any(foreign in chord.intervals for chord in tonics), (group, mode, loop)
