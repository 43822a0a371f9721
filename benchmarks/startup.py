"""How long stone takes to start, beside Python itself and beside the download.

    python benchmarks/startup.py [--stone PATH]... [--file SONG]

Each program runs the same commands, in turn, so that the load of the machine affects all of them alike. The table has
the median and the smallest wall time in milliseconds.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = [["--version"], ["--help"], ["tag", "--help"]]


def main() -> None:
    """Print one row per program and command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stone", action="append", help="a program to measure; default: stone on the PATH")
    parser.add_argument("--file", type=Path, help="also analyze this file")
    parser.add_argument("--runs", type=int, default=15)
    options = parser.parse_args()
    programs = options.stone or [shutil.which("stone") or parser.error("no stone on the PATH; use --stone")]
    commands = COMMANDS + ([["analyze", str(options.file)]] if options.file else [])
    rows = {(sys.executable, "-c pass"): [sys.executable, "-c", "pass"]}
    rows |= {(program, " ".join(command)): [program, *command] for program in programs for command in commands}
    times: dict[tuple[str, str], list[float]] = {row: [] for row in rows}
    for _ in range(options.runs):
        for row, command in rows.items():
            times[row].append(milliseconds(command))
    for (program, arguments), values in times.items():
        print(f"{statistics.median(values):7.0f} {min(values):7.0f}  {program} {arguments}")


def milliseconds(command: list[str]) -> float:
    """Wall time of a command that must succeed."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return 1000 * (time.perf_counter() - start)


if __name__ == "__main__":
    main()
