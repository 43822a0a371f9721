"""The fuzzer, for a while: benchmarks/fuzz_tags.py says what is asked of a damaged file."""

import os
import subprocess
import sys
from pathlib import Path


def test_damaged_files_are_refused_or_whole() -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "fuzz_tags.py"
    count = os.environ.get("STONE_FUZZ", "10000")
    result = subprocess.run(
        [sys.executable, script, "--count", count, "--seed", "1"], capture_output=True, text=True, timeout=3000
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert " written" in result.stdout
    assert " refused" in result.stdout
