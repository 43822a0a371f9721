"""Worker processes: they make the same batches, and exit with the process that started them in all cases."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sys
import textwrap
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.fixture_types import StartProcess

torch = pytest.importorskip("torch")

from stonecli_train.data import StepDataset, Track  # noqa: E402
from stonecli_train.workers import WorkerError, batch_stream  # noqa: E402
from tests.train.data.batches import same  # noqa: E402
from tests.train.fixture_types import MakeConfig, MakeTracks  # noqa: E402

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


@pytest.fixture
def tracks(tmp_path: Path, make_tracks: MakeTracks) -> list[Track]:
    """Six unlabeled tracks."""
    return make_tracks(tmp_path / "tracks", 6, labeled=False, frames=300)


@pytest.fixture
def dataset(tracks: list[Track], tiny_config: MakeConfig) -> StepDataset:
    """Batches of the six tracks."""
    return StepDataset(tracks, [], tiny_config(), (1,))


def workers() -> list[Any]:
    """The worker processes of this process."""
    return multiprocessing.active_children()


class TestTheStream:
    def test_is_the_same_with_and_without_workers(self, dataset: StepDataset) -> None:
        alone = list(itertools.islice(batch_stream(dataset, 4, 0), 5))
        with closing(batch_stream(dataset, 4, 2)) as stream:
            helped = list(itertools.islice(stream, 5))
        assert all(same(one, other) for one, other in zip(alone, helped, strict=True))
        assert same(alone[0], dataset[4])

    def test_stops_its_workers_when_it_is_closed(self, dataset: StepDataset) -> None:
        stream = batch_stream(dataset, 0, 2)
        next(stream)
        assert len(workers()) == 2
        stream.close()
        assert workers() == []

    def test_reports_the_error_of_a_worker_in_one_line(self, dataset: StepDataset, tracks: list[Track]) -> None:
        for track in tracks:
            track.features.unlink()
        with pytest.raises(WorkerError) as failed:
            next(batch_stream(dataset, 0, 1))
        line = str(failed.value)
        assert line in {f"{track.features}: no such file or folder" for track in tracks}
        assert any("Traceback" in note for note in failed.value.__notes__)
        assert workers() == []

    def test_data_that_cannot_be_pickled_is_a_clear_error(self) -> None:
        with pytest.raises(WorkerError, match="use --workers 0"):
            next(batch_stream([lambda: None], 0, 1))  # type: ignore[arg-type]
        assert workers() == []

    @POSIX
    @pytest.mark.parametrize(("kind", "said"), [("SIGKILL", 1), ("SIGTERM", 0)])
    def test_training_continues_when_a_worker_is_killed(self, kind: str, said: int, dataset: StepDataset) -> None:
        reports: list[str] = []
        with closing(batch_stream(dataset, 0, 2, reports.append)) as stream:
            batches = [next(stream)]
            os.kill(workers()[0].pid, getattr(signal, kind))
            batches += itertools.islice(stream, 7)
        assert all(same(batch, dataset[step]) for step, batch in enumerate(batches))
        assert len(reports) == said
        assert all("SIGKILL" in report for report in reports)

    @POSIX
    @pytest.mark.parametrize("size", [8, 64])
    def test_a_stopped_worker_does_not_delay_the_last_step(
        self, size: int, tracks: list[Track], tiny_config: MakeConfig
    ) -> None:
        """A larger batch does not fit into the pipe, so the worker is stopped while it sends one."""
        dataset = StepDataset(tracks, [], tiny_config(data__batch_size=size), (1,))
        stops: list[bool] = []
        stream = batch_stream(dataset, 0, 1, stop=lambda: bool(stops))
        batches = [next(stream)]
        time.sleep(0.5)  # it has made the next batches, and waits until the pipe is read
        os.kill(workers()[0].pid, signal.SIGSTOP)
        stops.append(True)
        batches += itertools.islice(stream, 5)
        assert all(same(batch, dataset[step]) for step, batch in enumerate(batches))
        stream.close()
        assert workers() == []


SCRIPT = """
    import multiprocessing, os, sys, time
    from pathlib import Path
    from stonecli_train.config import config_from_dict
    from stonecli_train.data import StepDataset, Track
    from stonecli_train.workers import batch_stream

    if __name__ == "__main__":
        config = config_from_dict({"network": {"rows": 1, "normalization": "affine"}, "data": {"batch_size": 4}})
        tracks = [Track(path) for path in Path(sys.argv[1]).iterdir()]
        stream = batch_stream(StepDataset(tracks, [], config, (1,)), 0, 2)
        next(stream)
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        if sys.argv[2] == "error":
            raise RuntimeError("while the workers wait")
        time.sleep(100)
"""


@pytest.fixture
def script(tmp_path: Path, tracks: list[Track]) -> list[str]:
    """The command of a process that starts two workers and then runs the code of its last argument."""
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    return [sys.executable, str(tmp_path / "script.py"), str(tracks[0].features.parent)]


def is_running(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize(
    "end",
    ["error", "SIGINT", "SIGKILL", *(pytest.param(name, marks=pytest.mark.slow) for name in ("SIGTERM", "SIGHUP"))],
)
def test_workers_end_with_the_process_that_started_them(
    end: str, script: list[str], start_process: StartProcess
) -> None:
    process = start_process([*script, end])
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert len(pids) == 2
    if end != "error":
        process.send_signal(getattr(signal, end))  # to this process only: the workers have to notice
    process.wait(60)
    deadline = time.monotonic() + 60
    while any(map(is_running, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, pids))
