"""What the process asks of the allocators."""

from __future__ import annotations

import contextlib
import ctypes
import sys

import pyarrow as pa

_M_ARENA_MAX = -8  # of malloc.h


def spare_memory() -> None:
    """What is freed goes back to the system, for the most part. To be called before the first thread begins.

    Every thread of glibc's allocator keeps what it has freed for itself, and Arrow's does the same: with a million open
    windows that was 80 MB of the worker's 760. Two arenas are enough for the threads that compute at the same time.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # a C library of another kind has no arenas to bound
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)
    pa.set_memory_pool(pa.system_memory_pool())
