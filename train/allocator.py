"""Memory that training frees is kept for the next step, instead of going back to the system after every layer.

The large tensors of a layer are mapped and unmapped by glibc one by one, and the kernel fills each with zeros again: a
third of the time of a step. With the settings below the second step has no page faults (docs/performance.md).
"""

from __future__ import annotations

import ctypes
import platform

# Parameters of mallopt(3), by number, in the order in which they have to be set.
_SETTINGS = {
    -8: 1,  # M_ARENA_MAX: all threads share what is kept
    -4: 0,  # M_MMAP_MAX: no tensor is mapped for itself
    -1: -1,  # M_TRIM_THRESHOLD: nothing goes back to the system
    -2: 64 << 20,  # M_TOP_PAD: grow in steps of 64 MB
}


def keep_freed_memory() -> bool:
    """Set glibc's allocator up for training; False where it is another one (musl, macOS, Windows, jemalloc)."""
    if platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all(mallopt(parameter, value) == 1 for parameter, value in _SETTINGS.items())
