"""Keeps the memory that training frees for the next step, instead of returning it to the system after every layer.

By default, glibc maps and unmaps each large tensor of a layer, and the kernel fills it with zeros every time. This
takes a third of the time of a step. With the settings below, there are no page faults after the first step
(docs/performance.md).
"""

from __future__ import annotations

import ctypes
import platform

# Parameters of mallopt(3), by number, in the order in which they must be set.
_SETTINGS = {
    -8: 1,  # M_ARENA_MAX: all threads share the freed memory
    -4: 0,  # M_MMAP_MAX: no tensor gets a separate mapping
    -1: -1,  # M_TRIM_THRESHOLD: no memory is returned to the system
    -2: 64 << 20,  # M_TOP_PAD: grow in steps of 64 MB
}


def keep_freed_memory() -> bool:
    """Configure glibc's allocator for training; returns False for any other (musl, macOS, Windows, jemalloc)."""
    if platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all(mallopt(parameter, value) == 1 for parameter, value in _SETTINGS.items())
