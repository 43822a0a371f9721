"""Measure the cost of a cluster without that of the analysis: ``python benchmarks/cluster.py``, all on this machine.

The scheduler, the workers and the client are separate processes, as on a cluster. The files are simulated: "analyzing"
one is a sleep of that duration that returns a result of the real size. Measured are

1. the cost per file for the scheduler and the client in batches of 1 to 128 (CPU time; no sleep);
2. the growth of their memory, up to ``--files`` (100,000), extrapolated to a million files;
3. files per second with 1, 2 and 4 workers that sleep 0.38 s per file, compared with sleeping alone;
4. bytes per file: of a result in transit, in NDJSON, in Parquet, and of an undo record.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import psutil
import soundfile

from stonecli.cluster.client import MAX_BATCH_FILES, ClusterRun, connected, count_threads
from stonecli.cluster.worker import Answers
from stonecli.detection.estimate import KeyEstimate
from stonecli.detection.segments import Segment
from stonecli.key import Key
from stonecli.library.locations import Location
from stonecli.output.parquet import ParquetFolder
from stonecli.output.records import tag_record
from stonecli.output.resumable import ResumableLog
from stonecli.remote.prefetch import Prefetcher
from stonecli.remote.storage import Found
from stonecli.tagging import TagResult
from stonecli.tags import write_key
from stonecli.tags.undo.journal import UndoJournal

ANALYSIS_SECONDS = 0.38  # CPU time that stone takes for four minutes of MP3 (docs/performance.md)
BATCHES = (1, 4, 16, 32, 64, 128)


@dataclass(frozen=True)
class SimulatedAnalysis:
    """Returns the answers for a batch after the time that an analysis would take."""

    seconds: float
    is_isolated: bool = False  # an attribute of Job

    def __call__(self, locations: Sequence[Location]) -> Answers:
        time.sleep(self.seconds * len(locations))
        return Answers([(result_for(location), None) for location in locations])


def result_for(location: Location) -> TagResult:
    """A random result of the usual size, seeded by the location: up to five minutes with two key changes."""
    rng = np.random.default_rng(crc32(str(location).encode()))
    probabilities = rng.dirichlet(np.ones(24)).astype(np.float32)
    keys = [Key.from_index(int(index)) for index in rng.integers(24, size=3)]
    ends = [0.0, *sorted(map(float, rng.uniform(30, 300, 3)))]
    segments = tuple(Segment(ends[i], ends[i + 1], key, float(rng.uniform())) for i, key in enumerate(keys))
    confidence, tuning, concentration = map(float, rng.uniform(size=3))
    estimate = KeyEstimate(keys[0], confidence, probabilities, (), segments, 50 * tuning, ends[-1], concentration)
    return TagResult(location, "detected", estimate.key, None, None, estimate)


def names(count: int) -> Iterator[Found]:
    """``count`` paths as long as those of real libraries."""
    for number in range(count):
        folder = f"/storage/music/Some Artist {number // 120:05}/2019 - An Album of Theirs"
        yield Found(Path(f"{folder}/{number % 12:02} - The Title of It {number:07}.mp3"), None)


@contextmanager
def cluster(workers: int, threads: int) -> Iterator[tuple[Any, psutil.Process]]:
    """A client, and the process of its scheduler."""
    here = str(Path(__file__).parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        file = folder / "scheduler.json"
        common = ["--scheduler-file", str(file), "--no-dashboard", "--host", "127.0.0.1"]

        def start(module: str, *options: str) -> subprocess.Popen[bytes]:
            command = [sys.executable, "-m", f"distributed.cli.{module}", *common, *options]
            process = subprocess.Popen(command, env=environment, cwd=folder, stderr=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        scheduler = start("dask_scheduler", "--port", "0")
        for _ in range(workers):
            start("dask_worker", "--no-nanny", "--nthreads", str(threads), "--death-timeout", "300")
        while not file.exists():
            time.sleep(0.1)
        address = json.loads(file.read_text())["address"]
        client = stack.enter_context(connected(address, timeout=120))
        while count_threads(client) < workers * threads:
            time.sleep(0.1)
        yield client, psutil.Process(scheduler.pid)


@dataclass(frozen=True)
class Cost:
    """CPU time of the scheduler and the client and wall time of one run in seconds, and their memory at its end."""

    scheduler: float
    client: float
    wall: float
    scheduler_mb: float
    client_mb: float


def measure(client: Any, scheduler: psutil.Process, files: int, batch: int, seconds: float, output: Path) -> Cost:
    """The cost of a simulated analysis of ``files`` files, including all that the client does with a result."""
    analysis = importlib.import_module("cluster").SimulatedAnalysis(seconds)  # the workers import it by name as well
    this = psutil.Process()

    def cpu(process: psutil.Process) -> float:
        times = process.cpu_times()
        return float(times.user + times.system)

    output.unlink(missing_ok=True)
    before, start = (cpu(scheduler), cpu(this)), time.perf_counter()
    with ResumableLog(output) as log:
        for outcome in ClusterRun(client, analysis, Prefetcher(names(files), 4096), max_batch_files=batch):
            if outcome.error is not None:
                raise SystemExit(outcome.error)
            log.write(tag_record(outcome.item, outcome.result, None, None))
    wall = time.perf_counter() - start
    memory = [process.memory_info().rss / 1e6 for process in (scheduler, this)]
    return Cost(cpu(scheduler) - before[0], cpu(this) - before[1], wall, *memory)


def by_batch(folder: Path, files: int) -> None:
    """Measurement 1."""
    print(f"1. {files} files, 2 workers, no sleep; CPU milliseconds per file")
    print("   batch  scheduler  client  (scheduler, per batch)  files/s")
    with cluster(2, 2) as (client, scheduler):
        measure(client, scheduler, 200, 1, 0, folder / "warm.ndjson")
        for batch in BATCHES:
            count = min(files, 400 * batch)
            cost = measure(client, scheduler, count, batch, 0, folder / "x.ndjson")
            each, ours = 1000 * cost.scheduler / count, 1000 * cost.client / count
            print(f"   {batch:5}  {each:9.3f}  {ours:6.3f}  {each * batch:22.2f}  {count / cost.wall:7.0f}", flush=True)


def by_count(folder: Path, files: int) -> None:
    """Measurement 2."""
    print(f"2. batches of {MAX_BATCH_FILES}, 2 workers, no sleep; memory after N files, CPU milliseconds per file")
    print("      files  scheduler MB  client MB  scheduler ms  client ms  files/s")
    with cluster(2, 2) as (client, scheduler):
        measure(client, scheduler, 200, MAX_BATCH_FILES, 0, folder / "warm.ndjson")
        share = files // 8
        costs = [measure(client, scheduler, share, MAX_BATCH_FILES, 0, folder / "x.ndjson")]
        for done in range(share, 9 * share, share):
            last = costs[-1]
            cost = f"{1000 * last.scheduler / share:12.3f}  {1000 * last.client / share:9.3f}"
            print(
                f"   {done:8}  {last.scheduler_mb:12.0f}  {last.client_mb:9.0f}  {cost}  {share / last.wall:7.0f}",
                flush=True,
            )
            if done < 8 * share:
                costs.append(measure(client, scheduler, share, MAX_BATCH_FILES, 0, folder / "x.ndjson"))
    first, last = costs[0], costs[-1]
    more = (1e6 - files) / (files - share)
    scheduler_mb = last.scheduler_mb + more * (last.scheduler_mb - first.scheduler_mb)
    client_mb = last.client_mb + more * (last.client_mb - first.client_mb)
    print(f"   extrapolated to a million files: {scheduler_mb:.0f} and {client_mb:.0f} MB")


def by_workers(folder: Path, files: int) -> None:
    """Measurement 3."""
    print(f"3. {files} files per worker, {ANALYSIS_SECONDS} s each, 1 thread per worker")
    print("   workers  files/s  share of the maximum (sleeping alone)")
    for workers in (1, 2, 4):
        with cluster(workers, 1) as (client, scheduler):
            measure(client, scheduler, 4 * workers, 1, 0, folder / "warm.ndjson")
            count = files * workers
            cost = measure(client, scheduler, count, MAX_BATCH_FILES, ANALYSIS_SECONDS, folder / "x.ndjson")
            share = count * ANALYSIS_SECONDS / workers / cost.wall
            print(f"   {workers:7}  {count / cost.wall:7.2f}  {share:.3f}", flush=True)


def by_bytes(folder: Path) -> None:
    """Measurement 4."""
    count = 8192
    locations = [found.location for found in names(count)]
    answers = Answers([(result_for(location), None) for location in locations[:MAX_BATCH_FILES]])
    sent = len(pickle.dumps(answers)) / MAX_BATCH_FILES
    records = [tag_record(location, result_for(location), None, None) for location in locations]
    with ResumableLog(folder / "x.ndjson") as log:
        for record in records:
            log.write(record)
    with ParquetFolder(folder / "x.parquet") as table:
        for record in records:
            table.write(record)
    (part,) = (folder / "x.parquet").iterdir()
    song = folder / "song.mp3"
    axis = np.arange(2 * 22050) / 22050
    soundfile.write(song, np.sin(440 * 2 * np.pi * axis) / 2, 22050, format="MP3", subtype="MPEG_LAYER_III")
    journal = UndoJournal(folder / "undo.sqlite3")
    run = journal.start("benchmark")
    for number in range(200):
        copy = folder / f"{number}.mp3"
        copy.write_bytes(song.read_bytes())
        write_key(copy, Key.parse("8A"), journal=run)
    journal.close()
    undo = (folder / "undo.sqlite3").stat().st_size / 200
    sizes = [(folder / "x.ndjson").stat().st_size / count, part.stat().st_size / count]
    print(f"4. bytes per file: {sent:.0f} in transit, {sizes[0]:.0f} in NDJSON, {sizes[1]:.0f} in Parquet")
    print(f"   {undo:.0f} as an undo record of a short path")


def main() -> None:
    """Run all four measurements, or that of ``--only``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000, help="number of files in the second measurement")
    parser.add_argument("--only", type=int, choices=(1, 2, 3, 4), help="run only this measurement")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stone-benchmark-") as name:
        folder = Path(name)
        if options.only in (None, 4):
            by_bytes(folder)
        if options.only in (None, 1):
            by_batch(folder, 20_000)
        if options.only in (None, 2):
            by_count(folder, options.files)
        if options.only in (None, 3):
            by_workers(folder, 100)


if __name__ == "__main__":
    main()
