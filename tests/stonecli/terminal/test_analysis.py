import io
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from stonecli.detection.estimate import KeyEstimate
from stonecli.terminal.analysis import print_analysis
from stonecli.terminal.screen import RichScreen
from tests.fixture_types import MakeEstimate


def printed(estimate: KeyEstimate, name: str = "a.mp3", *, per_window: bool = False) -> str:
    console = Console(file=io.StringIO(), width=40, highlight=False)
    print_analysis(RichScreen(console), Path("/folder") / name, estimate, per_window=per_window)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_answer(estimate_of: MakeEstimate) -> None:
    text = printed(estimate_of("Am"))
    assert text.startswith("a.mp3\n  A minor   Camelot 8A   Open Key 1m\n")
    assert "confidence 80%   1:02:05   A = 436.9 Hz (-12 cents)" in text
    assert "mixes with 8A Am   8B C   9A Em   7A Dm" in text
    assert "diagonal     7B F   9B G" in text
    assert "energy boost 3A Bbm   10A Bm" in text
    assert "parallel     11B A" in text
    assert text.count("━") + text.count("·") == 4 * 24  # the key and three candidates
    assert "key over time" not in text
    assert "window by window" not in text


def test_the_key_over_time(estimate_of: MakeEstimate) -> None:
    text = printed(estimate_of("Am", changes_to="Eb"), per_window=True)
    assert "key over time\n  0:00 - 0:15  8A  A minor\n  0:15 - 0:30  5B  Eb major\n" in text
    assert "window by window\n  0:00 - 0:15  8A  Am" in text
    assert "80%\n  0:15 - 0:30  5B  Eb" in text


def test_no_key(estimate_of: MakeEstimate) -> None:
    text = printed(estimate_of(None), per_window=True)
    assert "no key: stone finds nothing tonal  0:20" in text
    assert "0:00 - 0:15  -   nothing tonal" in text
    assert "Camelot" not in text


def test_bars_stay_within_their_width(estimate_of: MakeEstimate) -> None:
    for confidence in (0.05, 0.5, 1.0):
        text = printed(replace(estimate_of("Am", confidence=confidence), confidence=confidence))
        assert all(line.count("━") + line.count("·") in (0, 24) for line in text.splitlines())


def test_the_name_is_data(estimate_of: MakeEstimate) -> None:
    text = printed(estimate_of("Am"), "[bold]\x1b[31m\n:smile:\udcff")
    assert text.splitlines()[0] == "[bold]\\x1b[31m\\n:smile:\\xff"


def test_a_record_between_two_semitones_has_two_names(estimate_of: MakeEstimate) -> None:
    flat, sharp = (replace(estimate_of("Am"), tuning_cents=cents, tuning_confidence=0.97) for cents in (-48.0, 41.0))
    assert "Open Key 1m   or G# minor 1A: between the two\n" in printed(flat)
    assert "(-48 cents), tuning confidence 97%\n" in printed(flat)
    assert "or Bb minor 3A" in printed(sharp)
    assert "between the two" not in printed(replace(sharp, tuning_cents=39.0))
    assert "(+0 cents)" in printed(replace(sharp, tuning_cents=-0.3))  # not "-0"


def test_the_first_and_the_last_key(estimate_of: MakeEstimate) -> None:
    assert "starts in 8A, ends in 5B" in printed(estimate_of("Am", changes_to="Eb"))
    assert "starts in" not in printed(estimate_of("Am"))
