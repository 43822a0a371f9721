import csv
import errno
from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stonecli.errors import LabelsError
from stonecli.evaluation.evaluate import (
    compare,
    compare_answers,
    evaluate_answers,
    resampled_means,
    score,
    sign_flip_p_value,
)
from stonecli.evaluation.labels import (
    PREDICTION_COLUMNS,
    Label,
    Prediction,
    answers_of,
    read_labels,
    read_predictions,
    write_predictions,
)
from stonecli.evaluation.metrics import NO_KEY
from stonecli.key import Key


def labels_file(tmp_path: Path, text: bytes | str, name: str = "labels.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def label(name: str, key: str, genre: str = "", source: str = "", line: int = 2, folder: Path = Path("music")) -> Label:
    return Label(folder / name, name, Key.parse(key), genre, source, line)


# Labels


def test_labels_have_any_spelling_and_relative_paths(tmp_path: Path) -> None:
    text = (
        '\ufeffGenre,PATH,Key,bpm\r\njazz,"a, b.mp3",F♯ minor,120\r\n\r\n,sub/c.ogg, 8B ,\r\npop,/abs/d.wav,6m,99\r\n'
    )
    tracks, repeated = read_labels(labels_file(tmp_path, text))
    assert [track.path for track in tracks] == [tmp_path / "a, b.mp3", tmp_path / "sub/c.ogg", Path("/abs/d.wav")]
    assert [track.key.musical for track in tracks if track.key] == ["F#m", "C", "G#m"]
    assert [track.genre for track in tracks] == ["jazz", "", "pop"]
    assert [track.line for track in tracks] == [2, 4, 5]
    assert repeated == []


def test_line_numbers_count_line_breaks_in_quotes(tmp_path: Path) -> None:
    path = labels_file(tmp_path, 'path,key,genre\na.mp3,C,"two\nlines"\nb.mp3,H,\n')
    with pytest.raises(LabelsError, match=r"^line 4: not a key: 'H'$"):
        read_labels(path)


def test_names_that_are_not_utf8_come_through(tmp_path: Path) -> None:
    tracks, _ = read_labels(labels_file(tmp_path, b"path,key\ncaf\xe9.mp3,C\n"))
    assert bytes(tracks[0].path).endswith(b"caf\xe9.mp3")


def test_a_track_listed_twice_counts_once(tmp_path: Path) -> None:
    path = labels_file(tmp_path, "path,key\na.mp3,C\nb.mp3,Am\n./x/../a.mp3,C major\n")
    tracks, repeated = read_labels(path)
    assert [track.name for track in tracks] == ["a.mp3", "b.mp3"]
    assert repeated == [4]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("path,key\n", "the file contains no tracks"),
        ("\n\n", "line 1: no column path and no column key (columns: nothing)"),
        ("file,key\na,C\n", "line 1: no column path (columns: file, key)"),
        ("path;key\na;C\n", "line 1: no column path and no column key (columns: path;key)"),
        ("path,key,KEY\na,C,C\n", "line 1: two columns are named key"),
        ("path,key\na.mp3,C\nb.mp3,no\n", "line 3: not a key: 'no'"),
        ("path,key\na.mp3,x\nb.mp3,y\nc.mp3,z\n", "line 2: not a key: 'x' (and 2 more such lines)"),
        ("path,key\na.mp3\n", "line 2: no key"),
        ("path,key\n,C\n", "line 2: no path"),
        ("path,key\na\0.mp3,C\n", "line 2: no path"),
        ("path,key\na, b.mp3,C\n", "line 2: 3 fields for 2 columns (put a path with a comma in quotes)"),
        ("path,key\na,C\nb,C\na,Am\n", "line 4: a is labeled A minor, but C major in line 2"),
        (
            "path,key,tempo\na,C,128\na,C,\na,C,64\n",
            "line 4: the tempo of a is 64 BPM, but 128 BPM in line 2",
        ),
        ("path,key\na," + 200_000 * "x" + "\n", "line 2: not valid CSV: field larger than field limit (131072)"),
    ],
)
def test_bad_labels(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(LabelsError) as caught:
        read_labels(labels_file(tmp_path, text))
    assert str(caught.value) == message


# Predictions


def test_predictions_are_matched_by_name_and_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    music, other = tmp_path / "music", tmp_path / "other"
    music.mkdir()
    other.mkdir()
    tracks, _ = read_labels(labels_file(music, "path,key\na.mp3,C\nb.mp3,C\nc.mp3,C\nd.mp3,C\ne.mp3,C\n"))
    text = f"path,key\na.mp3,8A\n{music}/b.mp3,\n../music/./c.mp3,Em\nmusic/d.mp3,none\nz.mp3,C\n"
    monkeypatch.chdir(tmp_path)
    found = read_predictions(labels_file(other, text, "them.csv"), tracks, music)
    assert found.answers == (Key.parse("Am").index, NO_KEY, Key.parse("Em").index, NO_KEY, None)
    assert (found.unmatched, found.kept) == (1, 0)


def test_the_output_of_stone_tag_is_read(tmp_path: Path) -> None:
    tracks = [label("a.mp3", "C"), label("b.mp3", "C"), label("c.mp3", "C"), label("d.mp3", "C")]
    text = (
        "path,camelot,key,open_key,confidence,old_key,tuning_cents,duration,error,status\n"
        "a.mp3,8A,Am,1m,0.9,,0,10,,detected\nb.mp3,,,,,,,,no audio in it,error\nc.mp3,8B,C,1d,,C,,,,kept\n"
        "d.mp3,,,,,loud,,,,unreadable key\n"
    )
    found = read_predictions(labels_file(tmp_path, text, "them.csv"), tracks, Path("music"))
    assert found.answers == (Key.parse("Am").index, None, Key.parse("C").index, None)
    assert (found.unmatched, found.kept) == (0, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,key\na.mp3,Q\n", "line 2: not a key: 'Q'"),
        ("path,key\na.mp3,C\na.mp3,Am\n", "line 3: another key for a.mp3 than in line 2"),
        ("path,key\n,Am\n", "line 2: no path"),
        ("path\na.mp3\n", "line 1: no column key (columns: path)"),
    ],
)
def test_bad_predictions(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(LabelsError) as caught:
        read_predictions(labels_file(tmp_path, text), [label("a.mp3", "C")], tmp_path)
    assert str(caught.value) == message


def test_written_predictions_are_read_back(tmp_path: Path) -> None:
    names = ["a, b.mp3", "caf\udce9.mp3", "none.mp3", "broken.mp3"]
    tracks = [label(name, "C", genre="jazz", line=index + 2) for index, name in enumerate(names)]
    detected = [
        Prediction(tracks[0], Key.parse("Am"), 0.75, None),
        Prediction(tracks[1], Key.parse("C"), 0.5, None),
        Prediction(tracks[2], None, 0.0, None),
        Prediction(tracks[3], None, 0.0, "the file is empty"),
    ]
    path = tmp_path / "p.csv"
    path.write_text("old")
    write_predictions(path, detected)
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == PREDICTION_COLUMNS
    assert list(rows[0].values()) == ["a, b.mp3", "Am", "8A", "0.7500", "C", "relative", "jazz", "", ""]
    assert list(rows[3].values()) == ["broken.mp3", "", "", "", "C", "", "jazz", "", "the file is empty"]
    answers = read_predictions(path, tracks, Path("music")).answers
    assert answers == answers_of(tracks, detected) == (Key.parse("Am").index, Key.parse("C").index, NO_KEY, None)
    assert [child.name for child in tmp_path.iterdir()] == ["p.csv"]


def test_an_old_file_survives_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("old")

    def breaks_off() -> Iterator[Prediction]:
        yield Prediction(label("a.mp3", "C"), None, 0.0, None)
        raise OSError(errno.ENOSPC, "disk full")

    with pytest.raises(OSError, match="disk full"):
        write_predictions(path, breaks_off())
    assert path.read_text() == "old"
    assert [child.name for child in tmp_path.iterdir()] == ["p.csv"]


# Intervals


def test_means_of_two_tracks_have_three_values_in_known_shares() -> None:
    drawn = resampled_means(np.array([[0.0], [1.0]]), 20_000, np.random.default_rng(3))[:, 0]
    values, counts = np.unique(drawn, return_counts=True)
    assert values.tolist() == [0.0, 0.5, 1.0]
    assert counts / 20_000 == pytest.approx([0.25, 0.5, 0.25], abs=0.015)


def test_columns_are_drawn_together() -> None:
    points = np.array([[1.0, 0.0], [0.0, 1.0], [0.3, 0.7]])
    drawn = resampled_means(points, 500, np.random.default_rng(0))
    assert drawn.sum(axis=1) == pytest.approx(np.ones(500))
    assert np.unique(drawn[:, 0]).size > 5


def test_interval_of_ten_right_of_twenty_is_that_of_the_binomial() -> None:
    # P(X <= 5) = 0.021 and P(X <= 6) = 0.058 for Binomial(20, 1/2): the 2.5 % quantile is 6 of 20, the 97.5 % one 14.
    reference = np.zeros(20, int)
    estimate = np.repeat([0, 6], 10)  # C or F# for C
    found = score(reference, estimate, resamples=20_000).metrics["accuracy"]
    assert (found.value, found.low, found.high) == (0.5, 0.3, 0.7)


def test_a_single_track_has_no_spread() -> None:
    found = score(np.array([0]), np.array([7]), resamples=100)
    assert found.metrics["mirex"] == found.metrics["ksea"]
    assert (found.metrics["mirex"].value, found.metrics["mirex"].low, found.metrics["mirex"].high) == (0.5, 0.5, 0.5)


def test_seed_decides() -> None:
    rng = np.random.default_rng(5)
    reference, estimate = rng.integers(0, 24, 57), rng.integers(-1, 24, 57)
    first = score(reference, estimate, resamples=200, seed=1)
    assert first == score(reference, estimate, resamples=200, seed=1)
    assert first.metrics != score(reference, estimate, resamples=200, seed=2).metrics


keys = st.lists(st.tuples(st.integers(0, 23), st.integers(-1, 23), st.integers(-1, 23)), min_size=1, max_size=30)


@settings(max_examples=40)
@given(keys, st.randoms(use_true_random=False))
def test_the_order_of_tracks_does_not_change_the_scores(rows: list[tuple[int, ...]], random: Random) -> None:
    reference, ours, theirs = np.array(rows).T
    found = score(reference, ours, resamples=200)
    assert sum(found.parts.values()) == found.count == len(rows)
    assert all(0 <= metric.low <= metric.high <= 1 for metric in found.metrics.values())
    random.shuffle(rows)
    shuffled = np.array(rows).T
    again = score(shuffled[0], shuffled[1], resamples=200)
    assert again.parts == found.parts
    assert [(m.low, m.high) for m in again.metrics.values()] == [(m.low, m.high) for m in found.metrics.values()]
    there, back = compare(reference, ours, theirs, resamples=200), compare(reference, theirs, ours, resamples=200)
    for metric, difference in there.items():
        assert difference.value == pytest.approx(difference.ours - difference.theirs)
        assert difference.value == -back[metric].value
        assert difference.p_value == back[metric].p_value
        assert 0 < difference.p_value <= 1
        assert (difference.better, difference.worse) == (back[metric].worse, back[metric].better)


def test_nothing_to_score() -> None:
    nothing = np.array([], dtype=int)
    with pytest.raises(ValueError, match="no tracks"):
        score(nothing, nothing)
    with pytest.raises(ValueError, match="no tracks"):
        compare_answers([label("a", "C")], (0,), (None,))


# Comparison


@pytest.mark.parametrize(
    ("differences", "p_value"),
    [
        ([], 1.0),
        ([0, 0], 1.0),
        ([1.0], 1.0),
        ([1.0] * 5, 2 / 32),
        ([1.0, 1.0, 1.0, -1.0], 10 / 16),  # sums of four signs: 4, 2, 0, -2, -4 in 1, 4, 6, 4, 1 ways
        ([0.5, 0.3], 2 / 4),  # 0.8, 0.2, -0.2, -0.8
        ([0.5, -0.3], 1.0),
        ([0.5, -0.3, 0.0, 1.0], 4 / 8),  # +-0.5 +-0.3 +-1: of 1.8, 1.2, 0.8, 0.2 two are at least 1.2
        ([0.7] * 3 + [0.2], 2 / 16),
    ],
)
def test_sign_flip_test_by_hand(differences: list[float] | list[int], p_value: float) -> None:
    assert sign_flip_p_value(np.array(differences, dtype=float)) == p_value


def test_sign_flip_test_of_many_tracks() -> None:
    # 60 of 100 tosses or more, twice: 0.0569 (binomial).
    assert sign_flip_p_value(np.repeat([1.0, -1.0], [60, 40])) == pytest.approx(0.05689, abs=1e-5)
    assert sign_flip_p_value(np.ones(3000)) < 1e-300


def test_a_paired_comparison_finds_small_differences() -> None:
    # 100 tracks in C. Both wrong on 40 (F#); of the other 60, theirs is wrong on 6 more.
    reference = np.zeros(100, int)
    ours = np.repeat([6, 0], [40, 60])
    theirs = np.repeat([6, 0], [46, 54])
    difference = compare(reference, ours, theirs, resamples=20_000)["accuracy"]
    assert (difference.ours, difference.theirs, difference.value) == (0.6, 0.54, 0.06)
    assert (difference.better, difference.worse) == (6, 0)
    # Binomial(100, 0.06): P(X <= 1) = 0.015, P(X <= 2) = 0.057; P(X <= 10) = 0.962, P(X <= 11) = 0.983.
    assert (difference.low, difference.high) == (0.02, 0.11)
    assert difference.share_above == pytest.approx(1 - 0.94**100, abs=0.002)
    assert difference.p_value == 2 / 2**6
    alone = [score(reference, answers).metrics["accuracy"] for answers in (ours, theirs)]
    assert alone[0].low < alone[1].high


def test_equal_estimators() -> None:
    reference, answers = np.arange(24), np.arange(24)[::-1].copy()
    for difference in compare(reference, answers, answers, resamples=100).values():
        assert (difference.value, difference.low, difference.high, difference.share_above) == (0, 0, 0, 0)
        assert (difference.p_value, difference.better, difference.worse) == (1.0, 0, 0)


def test_only_tracks_that_both_have_answered_are_compared() -> None:
    tracks = [label("a", "C"), label("b", "C"), label("c", "C"), label("d", "C")]
    found = compare_answers(tracks, (0, 0, None, NO_KEY), (0, 6, 0, None), resamples=100)
    assert found.count == 2
    assert (found.metrics["accuracy"].ours, found.metrics["accuracy"].theirs) == (1.0, 0.5)


# Groups


def test_groups_by_genre_and_source() -> None:
    tracks = [
        label("a", "C", genre="rock", source="x"),
        label("b", "C", genre="Jazz", source="x"),
        label("c", "C", genre="rock", source="x"),
        label("d", "C", source="x"),
        label("e", "C", genre="gone", source="x"),
    ]
    found = evaluate_answers(tracks, (0, 7, 9 + 12, NO_KEY, None), resamples=100)
    assert found.overall.count == 4
    assert found.overall.parts == {"same": 1, "fifth": 1, "relative": 1, "parallel": 0, "other": 1}
    assert found.overall.no_key == 1
    assert list(found.genres) == ["Jazz", "rock", ""]  # by name, those without one last
    assert [scores.count for scores in found.genres.values()] == [1, 2, 1]
    assert found.genres["rock"].metrics["mirex"].value == pytest.approx(0.65)
    assert found.sources["x"] == found.overall
    assert found.confusion.sum() == 4


def test_no_groups_without_the_columns() -> None:
    found = evaluate_answers([label("a", "C")], (0,), resamples=100)
    assert (found.genres, found.sources) == ({}, {})
