"""How many CPUs this process may use: its affinity, and the CPU quota of its control groups (containers)."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_CGROUP_ROOT = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def available_cpus(cgroup_root: Path = _CGROUP_ROOT, membership: Path = _MEMBERSHIP) -> int:
    """The number of CPUs that this process may use, at least 1.

    It is the smaller of two numbers: the CPUs that the process may run on (affinity), and the CPU quota of its control
    groups (``docker --cpus``, systemd's ``CPUQuota``), rounded up, so that a quota of 1.5 CPUs is used completely.

    Args:
        cgroup_root: where the control groups are mounted. Systems other than Linux have none.
        membership: the file that names the control groups of this process.
    """
    if sys.version_info >= (3, 13):
        cpus = os.process_cpu_count() or 1  # also follows PYTHON_CPU_COUNT
    elif hasattr(os, "sched_getaffinity"):
        cpus = len(os.sched_getaffinity(0))
    else:
        cpus = os.cpu_count() or 1
    quotas = [math.ceil(quota) for quota in _quotas(cgroup_root, membership)]
    return max(1, min([cpus, *quotas]))


def _quotas(root: Path, membership: Path) -> Iterator[float]:
    """The quota in CPUs of each control group of this process, and of each parent group, that sets a limit."""
    try:
        lines = membership.read_text("utf-8", "replace").splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if not controllers:  # version 2: one hierarchy for all controllers
            for folder in _with_parents(root, group):
                yield from _quota_v2(folder / "cpu.max")
        elif "cpu" in controllers.split(","):
            for name in {"cpu", controllers}:
                for folder in _with_parents(root / name, group):
                    yield from _quota_v1(folder)


def _with_parents(root: Path, group: str) -> Iterator[Path]:
    """The folder of a group and of each of its parents.

    In a container the path may be that on the host, which does not exist here: then the root is the container's group.
    """
    parts = [part for part in PurePosixPath(group).parts if part not in ("/", "..")]
    for count in range(len(parts), -1, -1):
        yield root.joinpath(*parts[:count])


def _quota_v2(path: Path) -> Iterator[float]:
    """The quota in CPUs from ``cpu.max``, which holds the quota (or ``max``) and the period in microseconds."""
    try:
        quota, period = map(int, path.read_text("ascii").split())
    except (OSError, ValueError):  # no such file, or "max"
        return
    if quota > 0 and period > 0:
        yield quota / period


def _quota_v1(folder: Path) -> Iterator[float]:
    """The quota in CPUs from ``cpu.cfs_quota_us`` (-1: none) and ``cpu.cfs_period_us``."""
    try:
        quota, period = (int((folder / f"cpu.cfs_{name}_us").read_text("ascii")) for name in ("quota", "period"))
    except (OSError, ValueError):
        return
    if quota > 0 and period > 0:
        yield quota / period
