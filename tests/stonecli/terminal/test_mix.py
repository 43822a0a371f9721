import io
from itertools import pairwise
from pathlib import Path

import pytest
from rich.console import Console

from stonecli.key import Key
from stonecli.mixing.mix import Mix, MixTrack
from stonecli.mixing.transitions import Track, transition
from stonecli.tags.track_info import TrackInfo
from stonecli.terminal.mix import print_mix, print_rows


@pytest.mark.parametrize(
    ("cost", "bound", "claim"),
    [
        (200.0, 200.0, "no order is better"),
        (200.0, 199.9999, "no order is better"),  # rounding of float32
        (200.0, 199.2, "at most 1% can be saved"),  # nothing says that there is none better
        (200.0, 189.1, "at most 6% can be saved"),
    ],
)
def test_the_saving_below_the_table_is_correct(cost: float, bound: float, claim: str) -> None:
    tracks = [Track(Path(name), Key.parse("8A")) for name in "ab"]
    rows = tuple(MixTrack(track.path, track, TrackInfo(), None) for track in tracks)
    mix = Mix(rows, (transition(tracks[0], tracks[1]),), cost, bound, 1 - bound / cost)
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    print_mix(console, mix, "camelot")
    assert console.file.getvalue().splitlines()[-1] == f"2 tracks, total cost {cost:.1f}; {claim}"  # type: ignore[attr-defined]


def test_a_tempo_of_many_digits_keeps_the_columns() -> None:
    tracks = [Track(Path(name), Key.parse("8A"), bpm=bpm) for name, bpm in (("a", 117.45383522727273), ("b", 128.0))]
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    print_rows(console, [(MixTrack(track.path, track, TrackInfo(), None), None) for track in tracks], "camelot")
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert "in-out" not in lines[0]  # no track changes key
    assert "117.45" in lines[1]
    assert [line.rindex("  ") for line in lines[1:]] == [lines[0].index("file") - 2] * 2


def test_half_and_double_tempo_are_shown() -> None:
    tracks = [Track(Path(name), Key.parse("8A"), bpm=bpm) for name, bpm in (("a", 87.0), ("b", 174.0), ("c", 88.0))]
    rows = [MixTrack(track.path, track, TrackInfo(), None) for track in tracks]
    changes = [None, *(transition(first, second) for first, second in pairwise(tracks))]
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    print_rows(console, list(zip(rows, changes, strict=True)), "camelot")
    header, first, double, half = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert "x2 +0.0%" in double
    assert "/2 +1.1%" in half
    assert first.rindex("  ") == double.rindex("  ") == header.index("file") - 2


def test_the_energy_of_a_transition() -> None:
    tracks = [
        Track(Path(name), Key.parse(key), tuning_cents=cents, bpm=bpm, last_key=Key.parse(last))
        for name, key, last, cents, bpm in (("a", "8A", "9A", 4.0, 120.0), ("b", "10A", "10A", -2.4, 123.0))
    ]
    rows = [MixTrack(track.path, track, TrackInfo(), None) for track in tracks]
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    print_rows(console, [(rows[0], None), (rows[1], transition(tracks[0], tracks[1]))], "camelot")
    header, first, second = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert header.split() == ["key", "in-out", "BPM", "cents", "transition", "tempo", "tuning", "cost", "file"]
    assert first.split() == ["8A", "8A-9A", "120", "+4", "a"]
    assert second.split() == ["10A", "123", "-2", "one", "up", "+2.5", "%", "-6", "ct", "2.2", "b"]
