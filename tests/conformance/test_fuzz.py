"""The fuzzer for a few seconds; ``benchmarks/fuzz_tags.py`` states the requirements for a damaged file.

The slow test damages 10,000 files; ``STONE_FUZZ=100000`` sets another number.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

COUNTS = [1000, pytest.param(int(os.environ.get("STONE_FUZZ", "10000")), marks=pytest.mark.slow)]


@pytest.mark.parametrize("count", COUNTS)
def test_damaged_files_are_refused_or_whole(count: int) -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "fuzz_tags.py"
    result = subprocess.run(
        [sys.executable, script, "--count", str(count), "--seed", "1"], capture_output=True, text=True, timeout=3000
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert " written" in result.stdout
    assert " refused" in result.stdout
