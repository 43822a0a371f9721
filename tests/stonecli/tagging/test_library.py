import os
import shutil
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stonecli.jobs import Outcome
from stonecli.key import Key
from stonecli.library.locations import Location, Seen
from stonecli.model.session import KeyModel
from stonecli.tagging import TagOptions, TagResult, tag_library
from stonecli.tags import read_tags, undo_run, write_key

Song = Callable[..., Path]
Fingerprint = Callable[[Path], dict[str, tuple[int, int, str]]]


class TestTagLibrary:
    def test_each_file_has_its_outcome_and_undo_restores_all(self, key_model: KeyModel, song: Song) -> None:
        path = song("flac", "a")
        before = path.read_bytes()
        (path.parent / "broken.mp3").write_bytes(b"no music")
        outcomes: list[Outcome[Location, TagResult]] = []
        found: list[Location] = []
        done: list[int] = []
        summary = tag_library(
            [path.parent],
            TagOptions(write=True, jobs=2),
            model=key_model,
            on_start=found.extend,
            on_done=lambda: done.append(1),
            on_result=outcomes.append,
        )
        assert found == [path, path.parent / "broken.mp3"]
        assert len(done) == 2
        assert [outcome.result and outcome.result.status for outcome in outcomes] == ["written", None]
        assert outcomes[1].error is not None
        assert (summary.files, summary.failed, summary.interrupted) == (2, 1, False)
        assert [undone.error for undone in undo_run(summary.run)] == [None]
        assert path.read_bytes() == before

    def test_a_preview_changes_nothing_and_has_no_run(
        self, key_model: KeyModel, song: Song, fingerprint: Fingerprint
    ) -> None:
        path = song("flac")
        before = fingerprint(path.parent)
        summary = tag_library([str(path)], model=key_model)
        assert (summary.files, summary.failed, summary.run) == (1, 0, None)
        assert fingerprint(path.parent) == before

    def test_files_to_skip_are_skipped(self, key_model: KeyModel, song: Song) -> None:
        first, second = song("flac", "a"), song("flac", "b")
        skip = Seen()
        skip.add(str(first))
        outcomes: list[Outcome[Location, TagResult]] = []
        tag_library([first, second], model=key_model, skip=skip, on_result=outcomes.append)
        assert [outcome.item for outcome in outcomes] == [second]

    @pytest.mark.skipif(sys.platform == "win32", reason="Windows has no way to send Ctrl-C to one process")
    def test_a_signal_ends_the_run_and_loses_no_result(self, key_model: KeyModel, song: Song, tmp_path: Path) -> None:
        music = tmp_path / "many"
        music.mkdir()
        for number in range(40):
            shutil.copy(song("flac"), music / f"{number:02}.flac")
        shown: list[str] = []

        def on_result(outcome: Outcome[Location, TagResult]) -> None:
            shown.append(str(outcome.item))
            if len(shown) == 1:
                os.kill(os.getpid(), signal.SIGINT)

        handler = signal.getsignal(signal.SIGINT)
        options = TagOptions(write=True, jobs=1, use_cache=False)
        summary = tag_library([music], options, model=key_model, on_result=on_result)
        assert signal.getsignal(signal.SIGINT) is handler
        assert summary.interrupted
        assert 1 <= summary.files == len(shown) < 40
        assert shown == [str(path) for path in sorted(music.iterdir()) if read_tags(path).text is not None]

    def test_it_works_in_a_thread_of_its_own(self, key_model: KeyModel, song: Song) -> None:
        with ThreadPoolExecutor(1) as executor:
            summary = executor.submit(tag_library, [song("flac")], model=key_model).result()
        assert (summary.files, summary.failed) == (1, 0)

    def test_removing_analyzes_nothing(self, song: Song) -> None:
        path = song("flac")
        write_key(path, Key.parse("Dm"))
        outcomes: list[Outcome[Location, TagResult]] = []
        tag_library([path], TagOptions(write=True, remove=True), on_result=outcomes.append)
        assert [outcome.result and outcome.result.status for outcome in outcomes] == ["removed"]
        assert read_tags(path).text is None
