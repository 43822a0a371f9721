from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from stonecli.errors import StoneError
from stonecli.key import Key
from stonecli_train.corpus.score import (
    Chord,
    CorpusFiles,
    Note,
    Passage,
    agrees_with_notes,
    diatonic_share,
    profile_correlations,
)

C, G, A_MINOR = Key(0, "major"), Key(7, "major"), Key(9, "minor")
SCALE = (60, 62, 64, 65, 67, 69, 71, 72)


def passage() -> Passage:
    return Passage(
        keys=((0.0, C), (12.0, G)),
        length=32.0,
        source="test",
        origin="test",
        chords=(Chord(0, 8, 0, (0, 4, 7), 0), Chord(8, 24, 7, (0, 4, 7, 10), 11)),
        melody=tuple(Note(4.0 * index, 4.0, pitch) for index, pitch in enumerate(SCALE)),
        bar_start=1.0,
    )


def test_the_main_key_is_the_one_that_sounds_longest() -> None:
    key, share = passage().main_key()
    assert key == G
    assert share == 20 / 32


def test_an_excerpt_cuts_notes_and_is_labeled_by_its_sound() -> None:
    part = passage().excerpt(6.0, 8.0)
    assert part.keys == ((0.0, C), (6.0, G))
    assert part.key == C
    assert part.length == 8.0
    assert [(chord.start, chord.duration) for chord in part.chords] == [(0.0, 2.0), (2.0, 6.0)]
    assert [(note.start, note.duration, note.pitch) for note in part.melody] == [(0, 2, 62), (2, 4, 64), (6, 2, 65)]
    assert part.bar_start == 3.0  # bars at beats 1, 5, 9: three beats after 6


def test_an_excerpt_at_a_change_of_key_has_the_new_one() -> None:
    assert passage().excerpt(12.0, 8.0).keys == ((0.0, G),)


def test_transposition_shifts_all_pitches() -> None:
    moved = passage().transposed(-3)
    assert moved.keys == ((0.0, Key(9, "major")), (12.0, Key(4, "major")))
    assert [(chord.root, chord.bass) for chord in moved.chords] == [(9, 9), (4, 8)]
    assert [note.pitch for note in moved.melody] == [pitch - 3 for pitch in SCALE]
    assert np.allclose(moved.histogram(), np.roll(passage().histogram(), -3))


def test_a_scale_is_diatonic_and_a_foreign_note_is_not() -> None:
    histogram = np.bincount([pitch % 12 for pitch in SCALE], minlength=12).astype(float)
    assert diatonic_share(histogram, C) == 1.0
    histogram[1] = histogram.sum()
    assert diatonic_share(histogram, C) == 0.5


def test_profiles_separate_keys_in_all_transpositions() -> None:
    minor = np.zeros(12)
    minor[[0, 2, 3, 5, 7, 8, 11]] = (5, 2, 3, 2, 4, 2, 1)
    for tonic in range(12):
        assert int(profile_correlations(np.roll(minor, tonic)).argmax()) == Key(tonic, "minor").index
        assert agrees_with_notes(np.roll(minor, tonic), Key(tonic, "minor"))
        assert not agrees_with_notes(np.roll(minor, tonic), Key((tonic + 2) % 12, "minor"))
        assert not agrees_with_notes(np.roll(minor, tonic), Key((tonic + 6) % 12, "major"))


def test_files_are_read_from_folders_and_zips(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.txt").write_bytes(b"one")
    (folder / "b.bin").write_bytes(b"two")
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as archive:
        archive.write(folder / "deep" / "a.txt", "deep/a.txt")
        archive.write(folder / "b.bin", "b.bin")
    for root in (folder, tmp_path / "packed.zip", tmp_path / "packed"):
        assert list(CorpusFiles(root, lambda name: name.endswith(".txt"))) == [("deep/a.txt", b"one")]


def test_a_zip_is_read_in_memory_and_within_bounds(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "packed.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../outside.txt", b"a name is only a name")
        archive.writestr("large.bin", bytes(65 << 20))
    assert (tmp_path / "packed.zip").stat().st_size < 100_000
    names = CorpusFiles(tmp_path / "packed.zip", lambda name: name.endswith(".txt"))
    assert list(names) == [("../outside.txt", b"a name is only a name")]
    assert [path.name for path in tmp_path.iterdir()] == ["packed.zip"]
    with pytest.raises(StoneError, match=r"large\.bin: larger than 64 MB"):
        list(CorpusFiles(tmp_path / "packed.zip"))


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_damaged_zip_is_one_line(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "packed.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", bytes(range(256)) * 99)
    content = bytearray(path.read_bytes())
    content[60:80] = bytes(20)
    path.write_bytes(content[:-30] if damage == "cut" else content)
    with pytest.raises(StoneError, match="not a readable zip"):
        list(CorpusFiles(path))
