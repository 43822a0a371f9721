"""Measure bursts of files in ``stone watch``: ``python benchmarks/watch.py [--files 100 500 1000 5000]``.

N short recordings are copied into one watched folder as fast as the disk allows. Prints for each N: seconds from the
first copy to the first and to the last result, time and CPU time per file (without the start), and seconds from SIGTERM
to the end. The recordings are identical, so all but the first come from the result cache: this measures the watch, not
the analysis. The time per file must not grow with N.

Everything is in a temporary folder, with its own journal and cache.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import soundfile

STONE = [sys.executable, "-c", "from stonecli.cli.main import run; run()"]
RATE, SETTLE = 8000, 1.0


def main() -> None:
    """Measure each number of files, and print one row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, nargs="+", default=[100, 500, 1000, 5000])
    counts = parser.parse_args().files
    print(f"settle time {SETTLE:.0f} s")
    print(f"{'files':>6} {'first (s)':>10} {'last (s)':>10} {'ms/file':>8} {'CPU ms/file':>12} {'end (s)':>8}")
    start_cpu = measured(0)[2]
    for count in counts:
        first, last, cpu, end = measured(count)
        each, cpu_each = ((last - first) / count * 1000, (cpu - start_cpu) / count * 1000)
        print(f"{count:6} {first:10.1f} {last:10.1f} {each:8.1f} {cpu_each:12.1f} {end:8.2f}")


def measured(count: int) -> tuple[float, float, float, float]:
    """Seconds to the first and to the last result, CPU seconds of the process, and seconds from SIGTERM to its end."""
    with tempfile.TemporaryDirectory(prefix="stone-watch-") as name:
        folder = Path(name) / "in"
        folder.mkdir()
        names = ("DATA", "CONFIG", "STATE", "CACHE")
        env = {**os.environ, **{f"STONE_{kind}_DIR": str(Path(name) / kind.lower()) for kind in names}}
        command = [*STONE, "watch", str(folder), "--json", "--settle", str(SETTLE)]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as process:
            assert process.stdout is not None  # noqa: S101 (for mypy)
            assert process.stderr is not None  # noqa: S101
            process.stderr.readline()  # printed when it watches
            start = time.monotonic()
            copier = threading.Thread(target=copy, args=(folder, count))
            copier.start()
            times = []
            for _ in range(count):
                process.stdout.readline()
                times.append(time.monotonic() - start)
            copier.join()
            sent = time.monotonic()
            process.send_signal(signal.SIGTERM)
            process.communicate()
            end = time.monotonic() - sent
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return (times or [0.0])[0], (times or [0.0])[-1], cpu, end


def copy(folder: Path, count: int) -> None:
    """Write ``count`` files with the same two seconds of a chord."""
    seconds = np.arange(2 * RATE) / RATE
    chord = sum(np.sin(2 * np.pi * frequency * seconds) for frequency in (220.0, 261.63, 329.63)) / 4
    first = folder.parent / "chord.wav"
    soundfile.write(first, chord, RATE)
    content = first.read_bytes()
    for number in range(count):
        (folder / f"{number}.wav").write_bytes(content)


if __name__ == "__main__":
    main()
