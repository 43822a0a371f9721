"""The number of CPUs by control groups, from real files in a folder that stands for /sys/fs/cgroup."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stonecli.jobs import default_jobs
from stonecli.util.cpus import available_cpus


@pytest.fixture
def cpus_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Counts CPUs of 16 for a process in the given groups: ``cpus_of("0::/a", {"a/cpu.max": ...})``."""
    if sys.version_info >= (3, 13):
        monkeypatch.setattr(os, "process_cpu_count", lambda: 16)
    else:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)

    def count(membership: str, files: dict[str, str]) -> int:
        for name, content in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        (tmp_path / "membership").write_text(membership)
        return available_cpus(tmp_path / "cgroup", tmp_path / "membership")

    return count


@pytest.mark.parametrize(
    ("content", "cpus"),
    [
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),  # rounded up, so that the whole quota can be used
        ("10000 100000\n", 1),
        ("max 100000\n", 16),
        ("6400000 100000\n", 16),  # more than there are
        ("", 16),
        ("-1 -1\n", 16),
        ("0 0\n", 16),
        ("words\n", 16),
    ],
)
def test_a_quota_of_version_2_limits_the_cpus(cpus_of: Callable[..., int], content: str, cpus: int) -> None:
    assert cpus_of("0::/box\n", {"box/cpu.max": content}) == cpus


def test_the_strictest_parent_decides(cpus_of: Callable[..., int]) -> None:
    files = {"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000", "a/b/c/cpu.max": "800000 100000"}
    assert cpus_of("0::/a/b/c\n", files) == 3


@pytest.mark.parametrize("path", ["/", "/docker/0123abcd", "/../../system.slice"])
def test_in_a_container_the_root_is_its_own_group(cpus_of: Callable[..., int], path: str) -> None:
    assert cpus_of(f"0::{path}\n", {"cpu.max": "200000 100000"}) == 2


@pytest.mark.parametrize("controllers", ["cpu", "cpu,cpuacct", "cpuacct,cpu"])
def test_a_quota_of_version_1_limits_the_cpus(cpus_of: Callable[..., int], controllers: str) -> None:
    files = {
        f"{controllers}/box/cpu.cfs_quota_us": "250000\n",
        f"{controllers}/box/cpu.cfs_period_us": "100000\n",
        f"{controllers}/cpu.cfs_quota_us": "-1\n",
        f"{controllers}/cpu.cfs_period_us": "100000\n",
    }
    membership = f"7:blkio:/\n4:{controllers}:/box\n3:cpuset:/\n1:name=systemd:/\n0::/\n"
    assert cpus_of(membership, files) == 3


def test_without_control_groups_all_cpus_count(cpus_of: Callable[..., int], tmp_path: Path) -> None:
    assert cpus_of("0::/box\n", {}) == 16
    assert available_cpus(tmp_path / "none", tmp_path / "none") == 16


def test_the_real_groups_of_this_machine_are_read() -> None:
    assert 1 <= available_cpus() == default_jobs() <= (os.cpu_count() or 1)
