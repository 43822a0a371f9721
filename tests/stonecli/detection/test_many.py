"""Analyze many files: order, errors, options, signals."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from stonecli import AnalysisSummary, KeyEstimate, KeyModel, Outcome, analyze
from stonecli.library.locations import Location
from tests.fixture_types import CopySong, MakeMusic


class TestAnalyze:
    def test_a_folder_is_replaced_by_its_music(self, key_model: KeyModel, song: CopySong) -> None:
        first, second = song("flac", "1.flac"), song("mp3", "2.mp3")
        other = song("wav 16 bit").rename(first.parent.parent / "other.wav")
        outcomes: list[Outcome[Location, KeyEstimate]] = []
        summary = analyze([other, first.parent, "none.mp3"], key_model, on_result=outcomes.append)
        assert [outcome.item for outcome in outcomes] == [other, first, second, Path("none.mp3")]
        assert [str(outcome.result.key) if outcome.result else None for outcome in outcomes] == ["Dm", "Dm", "Dm", None]
        assert outcomes[3].error == "no such file or folder"
        assert summary == AnalysisSummary(4, 1, interrupted=False)

    def test_the_options_are_those_of_detect_key(self, key_model: KeyModel, music: MakeMusic, tmp_path: Path) -> None:
        ends: list[float] = []

        def show(outcome: Outcome[Location, KeyEstimate]) -> None:
            assert outcome.result is not None
            ends.append(outcome.result.windows[0].end)

        soundfile.write(tmp_path / "long.wav", np.tile(music("Dm"), 5), 22050)
        analyze([tmp_path / "long.wav"], key_model, window_seconds=12.0, on_result=show)
        analyze([tmp_path / "long.wav"], key_model, window_seconds=20.0, on_result=show)
        assert [round(end) for end in ends] == [12, 20]
        with pytest.raises(ValueError, match="overlap must be"):
            analyze([tmp_path], key_model, overlap=2.0)

    def test_an_error_of_the_caller_ends_it(self, key_model: KeyModel, song: CopySong) -> None:
        def fail(outcome: Outcome[Location, KeyEstimate]) -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            analyze([song("flac"), song("mp3")], key_model, jobs=2, on_result=fail)
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("stone_")]

    @pytest.mark.skipif(sys.platform == "win32", reason="sends SIGTERM")
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_ends_it_within_a_file(self, key_model: KeyModel, song: CopySong, number: signal.Signals) -> None:
        files = [song("flac", f"{index}.flac") for index in range(50)]
        outcomes: list[Outcome[Location, KeyEstimate]] = []

        def show(outcome: Outcome[Location, KeyEstimate]) -> None:
            if not outcomes:
                os.kill(os.getpid(), number)
            outcomes.append(outcome)

        summary = analyze(files, key_model, jobs=1, on_result=show)
        assert summary == AnalysisSummary(len(outcomes), 0, interrupted=True)
        assert [outcome.item for outcome in outcomes] == files[: len(outcomes)]
        assert len(outcomes) < 10
