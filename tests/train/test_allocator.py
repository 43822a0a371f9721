from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("torch")

# Page faults of allocating and freeing 50 MB ten times, after ten that are not counted. By default, glibc returns each
# block of more than 32 MB to the system.
SCRIPT = """
import resource, sys
import torch
from stonecli_train.allocator import keep_freed_memory
if "keep" in sys.argv:
    assert keep_freed_memory()
def use():
    for _ in range(10):
        torch.ones(12_500_000)
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*arguments: str) -> int:
    done = subprocess.run([sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="page faults are counted on Linux")
def test_freed_memory_stays_with_the_process() -> None:
    from stonecli_train.allocator import keep_freed_memory

    if subprocess.run([sys.executable, "-c", "import platform; exit(platform.libc_ver()[0] != 'glibc')"]).returncode:
        assert not keep_freed_memory()
        pytest.skip("another allocator than glibc's")
    assert faults("keep") < 100
    assert faults() > 1000  # otherwise the test has no effect to measure
