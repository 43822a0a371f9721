import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stonecli.jobs import Outcome
from stonecli.library.locations import Location
from stonecli.model.session import KeyModel
from stonecli.tagging import TagOptions, TagResult, watch_folder
from stonecli.tags import read_tags, undo_run

Song = Callable[..., Path]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no way to send Ctrl-C to one process")
def test_watch_folder_processes_new_files_until_a_signal(key_model: KeyModel, song: Song) -> None:
    path = song("flac")
    outcomes: list[Outcome[Location, TagResult]] = []

    def on_result(outcome: Outcome[Location, TagResult]) -> None:
        outcomes.append(outcome)
        os.kill(os.getpid(), signal.SIGTERM)

    options = TagOptions(write=True, jobs=1)
    summary = watch_folder(
        path.parent, options, model=key_model, settle_seconds=0.5, existing=True, on_result=on_result
    )
    assert (summary.files, summary.failed, summary.interrupted) == (1, 0, True)
    assert [outcome.item for outcome in outcomes] == [path]
    assert read_tags(path).text == "7A"
    assert [undone.error for undone in undo_run(summary.run)] == [None]
