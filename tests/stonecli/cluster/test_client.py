"""Against a real scheduler and two worker processes on this machine."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from stonecli.cluster import client as cluster
from stonecli.cluster.client import BATCHES_PER_THREAD, MAX_BATCH_FILES, ClusterRun, connected
from stonecli.cluster.worker import Answers
from stonecli.errors import ClusterError
from stonecli.library.locations import Location
from stonecli.remote.prefetch import Prefetcher
from stonecli.remote.storage import Found
from stonecli.tags import read_tags
from stonecli.tags.undo.journal import UndoJournal
from tests.fixture_types import MakeModel, Serve

distributed = pytest.importorskip("distributed", reason="needs stonecli[cluster]")
pytestmark = pytest.mark.cluster

Invoke = Callable[..., Result]
Fingerprint = Callable[[Path], dict[str, tuple[int, int, str]]]
PATIENCE = 240.0
"""Seconds after which a test that hangs fails; nothing waits that long."""
SONGS = 16
"""More than the workers have in hand while the first ones are done."""

# A file that kills the process that opens it: only workers and their child processes do.
KILLER = """
import os, signal, sys
def hook(event, arguments):
    if event == "open" and str(arguments[0]).endswith("killer.flac"):
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
"""


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A scheduler and two worker processes, which are killed by files named killer.flac."""
    import dask.config

    folder = tmp_path_factory.mktemp("workers")
    (folder / "sitecustomize.py").write_text(KILLER)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), *([before] if before else [])])
    root = str(Path(__file__).parents[3])  # workers import this file as tests.stonecli.cluster.test_client
    sys.path.append(root)
    settings = {
        "distributed.scheduler.allowed-failures": 1,
        "distributed.comm.timeouts.connect": "120s",
        "distributed.deploy.lost-worker-timeout": "1h",  # a busy machine takes its time to start another
        "temporary-directory": str(folder),
    }
    with dask.config.set(settings):
        try:
            with distributed.LocalCluster(
                n_workers=2, threads_per_worker=1, dashboard_address=None, processes=True
            ) as made:
                yield made
        finally:
            sys.path.remove(root)
            os.environ.pop("PYTHONPATH")
            if before:
                os.environ["PYTHONPATH"] = before


@pytest.fixture
def address(local: Any) -> str:
    """Address of the scheduler, once both workers are connected."""
    local.wait_for_workers(2, timeout=PATIENCE)
    return str(local.scheduler_address)


@pytest.fixture
def client(address: str) -> Iterator[Any]:
    with connected(address, timeout=PATIENCE) as made:
        yield made


@pytest.fixture
def folder(songs: Mapping[str, Path], tmp_path: Path) -> Path:
    """``SONGS`` songs without tags."""
    made = tmp_path / "music"
    made.mkdir()
    for number in range(SONGS):
        shutil.copy(songs["flac"], made / f"{number:02}.flac")
    return made


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def start(stone_command: list[str], *arguments: str | Path) -> "subprocess.Popen[str]":
    command = [*stone_command, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def wait_until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)


def lines_in(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def pids(client: Any) -> list[int]:
    """Process ids of the workers; one that has just died may still be listed."""
    return [pid for pid in client.run(os.getpid, on_error="ignore").values() if isinstance(pid, int)]


# The same as without it


def test_the_answers_are_those_of_one_machine(
    invoke: Invoke, address: str, songs: Mapping[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "broken.mp3").write_bytes(b"text" * 1000)
    paths = [*songs.values(), tmp_path / "broken.mp3", tmp_path / "gone.mp3"]
    alone = invoke("tag", *paths, "--output", tmp_path / "alone.ndjson", "--no-cache")
    result = invoke("tag", *paths, "--cluster", address, "--output", tmp_path / "cluster.ndjson")
    assert (result.exit_code, alone.exit_code) == (1, 1)
    found, wanted = (
        sorted(records(tmp_path / f"{name}.ndjson"), key=lambda record: str(record["path"]))
        for name in ("cluster", "alone")
    )
    assert found == wanted
    assert len(found) == len(songs) + 2
    assert sorted(result.stderr.splitlines()) == sorted(alone.stderr.splitlines())
    assert sorted(result.stdout.splitlines()) == sorted(alone.stdout.splitlines())


def test_a_second_run_does_the_remaining_files(invoke: Invoke, address: str, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "keys.ndjson"
    assert invoke("tag", folder, "--cluster", address, "--output", output).exit_code == 0
    whole = output.read_bytes()
    lines = whole.splitlines(keepends=True)
    output.write_bytes(b"".join(lines[:5]) + lines[5][:50])  # as a kill leaves it
    result = invoke("tag", folder, "--cluster", address, "--output", output)
    assert (result.exit_code, result.stderr) == (0, f"stone: skipping 5 files that are already in {output}\n")
    assert len(result.stdout.splitlines()) == 1 + SONGS - 5
    assert output.read_bytes().startswith(b"".join(lines[:5]))
    assert sorted(output.read_bytes().splitlines()) == sorted(whole.splitlines())


def test_a_writing_run_does_not_resume_a_preview(invoke: Invoke, address: str, folder: Path, tmp_path: Path) -> None:
    for name in ("keys.ndjson", "keys.parquet"):
        output = tmp_path / name
        assert invoke("tag", folder / "00.flac", "--cluster", address, "--output", output).exit_code == 0
        result = invoke("tag", folder, "--cluster", address, "--output", output, "--write-tags")
        said = f"stone: {output} contains a preview, whose files would be skipped; choose another --output\n"
        assert (result.exit_code, result.stderr) == (2, said)
    assert {read_tags(path).text for path in folder.iterdir()} == {None}


def test_parquet(invoke: Invoke, address: str, folder: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    output = tmp_path / "keys.parquet"
    assert invoke("tag", folder / "00.flac", "--cluster", address, "--output", output).exit_code == 0
    assert invoke("tag", folder, "--cluster", address, "--output", output, "--json").exit_code == 0
    table = parquet.read_table(output)
    assert sorted(table["path"].to_pylist()) == sorted(map(str, folder.iterdir()))
    assert {key["camelot"] for key in table["key"].to_pylist()} == {"7A"}
    assert sorted(path.name for path in output.iterdir()) == ["part-00000.parquet", "part-00001.parquet"]


def test_addresses_are_fetched_by_the_workers(
    invoke: Invoke,
    address: str,
    client: Any,
    s3: Any,
    serve: Serve,
    folder: Path,
    songs: Mapping[str, Path],
    tmp_path: Path,
) -> None:
    client.run(_set_environment, {name: text for name, text in os.environ.items() if name.startswith("AWS_")})
    for number in range(5):
        s3.put_object(Bucket="music", Key=f"cluster/{number}.mp3", Body=songs["mp3"].read_bytes())
    top = serve(folder)
    output = tmp_path / "keys.ndjson"
    pages = [f"{top}/{number:02}.flac" for number in range(SONGS)]
    locations = ["s3://music/cluster", "s3://music/gone.mp3", *pages, folder / "00.flac"]
    result = invoke("tag", *locations, "--cluster", address, "--output", output)
    assert (result.exit_code, result.stderr) == (1, "s3://music/gone.mp3: no such file\n")
    wanted = [f"s3://music/cluster/{number}.mp3" for number in range(5)] + pages
    detected = {record["path"]: record["key"] and record["key"]["camelot"] for record in records(output)}
    assert detected == dict.fromkeys([*wanted, str(folder / "00.flac")], "7A") | {"s3://music/gone.mp3": None}


def _set_environment(values: dict[str, str]) -> None:
    os.environ.update(values)


def test_another_model_is_sent_and_loaded_once(
    invoke: Invoke, address: str, client: Any, folder: Path, tiny_model: MakeModel, tmp_path: Path
) -> None:
    model = tiny_model(tmp_path / "tiny.onnx")
    loaded = []
    for name in ("first.ndjson", "second.ndjson"):
        output = tmp_path / name
        result = invoke("tag", folder, "--cluster", address, "--model", model, "--output", output)
        assert (result.exit_code, result.stderr) == (0, "")
        assert {record["model"].partition("@")[0] for record in records(output)} == {"tiny.onnx"}
        assert Counter(record["key"]["musical"] for record in records(output)) == {"Bm": SONGS}  # its last class
        loaded.append(client.run(_loaded_models))
    assert loaded[0] == loaded[1]
    assert all(len(models) <= 1 for models in loaded[0].values())
    assert any(loaded[0].values())


def _loaded_models() -> set[int]:
    from stonecli.cluster import worker

    return {id(model) for (sha, _), model in worker._models.items() if model.name != "stone_8.onnx"}


def test_a_list_without_end_on_standard_input(
    stone_command: list[str], address: str, folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "keys.ndjson"
    command = [*stone_command, "tag", "-", "--cluster", address, "--output", str(output), "--quiet"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(f"{folder}/00.flac\n{folder}/01.flac\n".encode())
    process.stdin.flush()
    wait_until(lambda: lines_in(output) == 2)  # before the others are done
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert errors == b"stone: interrupted; the files shown above are done\n"


# Failures during a run


def test_a_killed_worker_loses_nothing_and_repeats_nothing(
    stone_command: list[str],
    invoke: Invoke,
    address: str,
    client: Any,
    folder: Path,
    fingerprint: Fingerprint,
    tmp_path: Path,
) -> None:
    music = sorted(folder.iterdir())  # later there may be what the worker that died was writing
    before = {name: content for name, (_, _, content) in fingerprint(folder).items()}
    output = tmp_path / "keys.ndjson"
    process = start(stone_command, "tag", folder, "--cluster", address, "--write-tags", "--output", output)
    for count in (3, 8):
        wait_until(lambda: lines_in(output) >= count)  # noqa: B023
        for pid in pids(client)[:1]:
            os.kill(pid, signal.SIGKILL)
    _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (0, "")
    assert Counter(record["path"] for record in records(output)) == Counter(map(str, music))
    assert {(record["status"], record["key"]["camelot"]) for record in records(output)} == {("written", "7A")}
    assert all(record["confidence"] is not None for record in records(output))
    assert {read_tags(path).text for path in music} == {"7A"}

    journal = UndoJournal()
    (run,) = journal.runs()
    changed = Counter(change.path for change in journal.changes(run.number))
    journal.close()
    # A record may be there twice whose change was made once: the worker died between the two.
    assert set(changed) == set(music)
    assert invoke("undo").exit_code == 0
    after = {name: content for name, (_, _, content) in fingerprint(folder).items()}
    assert {name: after[name] for name in before} == before


def test_a_file_that_kills_workers_is_one_error(
    invoke: Invoke, address: str, songs: Mapping[str, Path], folder: Path, tmp_path: Path
) -> None:
    shutil.copy(songs["flac"], folder / "killer.flac")
    output = tmp_path / "keys.ndjson"
    result = invoke("tag", folder, "--cluster", address, "--write-tags", "--output", output)
    assert result.exit_code == 1
    assert result.stderr == f"{folder}/killer.flac: the process that analyzed it died (SIGKILL)\n"
    assert Counter(record["path"] for record in records(output)) == Counter(map(str, folder.iterdir()))
    assert Counter(record["status"] for record in records(output)) == {"written": SONGS, "error": 1}


def test_an_interrupted_run_is_resumed(
    stone_command: list[str], invoke: Invoke, address: str, folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "keys.ndjson"
    process = start(stone_command, "tag", folder, "--cluster", address, "--write-tags", "--output", output)
    wait_until(lambda: lines_in(output) >= 3)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert errors == "stone: interrupted; the files shown above are done\n"
    done = records(output)
    assert {record["path"] for record in done} == {str(path) for path in folder.iterdir() if read_tags(path).text}
    rest = invoke("tag", folder, "--cluster", address, "--write-tags", "--output", output)
    skipped = f"stone: skipping {len(done)} files that are already in {output}\n" if done else ""
    assert (rest.exit_code, rest.stderr) == (0, skipped)
    assert Counter(record["path"] for record in records(output)) == Counter(map(str, folder.iterdir()))
    assert {record["status"] for record in records(output)} == {"written"}


def test_the_run_of_a_killed_client_is_resumed(
    stone_command: list[str], invoke: Invoke, address: str, folder: Path, fingerprint: Fingerprint, tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow")
    before = {name: content for name, (_, _, content) in fingerprint(folder).items()}
    output = tmp_path / "keys.parquet"
    process = start(stone_command, "tag", folder, "--cluster", address, "--write-tags", "--output", output)
    wait_until(lambda: lines_in(output / "_pending.ndjson") >= 3)
    process.kill()
    process.communicate()
    result = invoke("tag", folder, "--cluster", address, "--write-tags", "--output", output)
    assert result.exit_code == 0
    from pyarrow.parquet import read_table

    paths = read_table(output)["path"].to_pylist()
    assert Counter(paths) == Counter(map(str, folder.iterdir()))
    assert {read_tags(path).text for path in folder.iterdir()} == {"7A"}
    for run in UndoJournal().runs():  # both
        assert invoke("undo", str(run.number)).exit_code == 0
    assert {name: content for name, (_, _, content) in fingerprint(folder).items()} == before


def test_a_scheduler_that_dies_gives_one_line(
    stone_command: list[str], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    options = ["--no-dashboard", *("--host", "127.0.0.1")]
    python = [sys.executable, "-m", "distributed.cli"]
    scheduler = subprocess.Popen(
        [*python[:2], "distributed.cli.dask_scheduler", "--port", where.rpartition(":")[2], *options],
        stderr=subprocess.DEVNULL,
    )
    worker = subprocess.Popen(
        [*python[:2], "distributed.cli.dask_worker", where, "--no-nanny", "--death-timeout", "200", *options],
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
    )
    try:
        with distributed.Client(where, timeout=PATIENCE, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=PATIENCE)
        output = tmp_path / "keys.ndjson"
        monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT", "10s")  # after which it is given up
        process = start(stone_command, "tag", folder, "--cluster", where, "--output", output)
        wait_until(lambda: lines_in(output) >= 1)
        scheduler.kill()
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 1
        assert errors == "stone: lost the connection to the scheduler; run the same command again to resume\n"
    finally:
        for started in (scheduler, worker):
            started.kill()
            started.wait()


# Runs that cannot start


def test_a_missing_scheduler_gives_one_line(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1.0)
    with (
        pytest.raises(ClusterError, match=r"^the scheduler tcp://127\.0\.0\.1:9 cannot be reached: no answer; "),
        connected("tcp://127.0.0.1:9", timeout=1),
    ):
        pass
    result = invoke("tag", tmp_path, "--cluster", "nonsense://x")
    assert result.exit_code == 1
    assert result.stderr.startswith("stone: the scheduler nonsense://x cannot be reached: unknown address scheme")
    assert len(result.stderr.splitlines()) == 1


def test_workers_with_another_version_are_one_line(
    invoke: Invoke, address: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "__version__", "99.0")
    result = invoke("tag", folder, "--cluster", address)
    assert result.exit_code == 1
    assert result.stderr.startswith("stone: the worker tcp://127.0.0.1:")
    assert result.stderr.endswith("this machine 99.0; install the same version on both\n")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "options", [["--jobs", "2"], ["--playlist", "x.m3u8"], ["--output", "x.csv"], ["--html", "x.html"]]
)
def test_options_without_a_meaning_for_an_action(invoke: Invoke, options: list[str]) -> None:
    assert invoke("tag", "x", "--cluster", "tcp://127.0.0.1:9", *options).exit_code == 2


# A million


def test_the_number_of_pending_tasks_is_bounded(client: Any) -> None:
    taken = []

    def endless() -> Iterator[Found]:
        number = 0
        while True:
            number += 1
            taken.append(number)
            yield Found(Path(f"/{number}.mp3"), None)

    ahead = Prefetcher(endless(), size=100)
    going = ClusterRun(client, _no_work, ahead)
    done = 0
    for _ in going:
        done += 1
        waiting = len(taken) - done
        assert waiting <= 100 + 1 + (BATCHES_PER_THREAD * 2 + 2) * 8 * MAX_BATCH_FILES
        if done == 5000:
            going.stop()
    assert done >= 5000


def _no_work(locations: tuple[Location, ...]) -> Answers:
    return Answers([(None, None)] * len(locations))


def test_a_hundred_files_are_divided_among_the_workers(client: Any) -> None:
    sizes = []

    class Seen(ClusterRun[Any]):
        def _batches(self) -> Iterator[Any]:
            for batch in super()._batches():
                assert isinstance(batch, tuple)
                sizes.append(len(batch))
                yield batch

    found = (Found(Path(f"/{number}.mp3"), None) for number in range(3000))
    assert len(list(Seen(client, _no_work, Prefetcher(found, size=3000)))) == 3000
    assert max(sizes[:20]) <= 3
    assert max(sizes) == MAX_BATCH_FILES
