"""What the process asks of the allocators."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

import pyarrow as pa

_M_ARENA_MAX = -8  # of malloc.h


class _NoPandas(MetaPathFinder):
    """Finds that there is no pandas."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError(f"{fullname} is left out", name=fullname)


def leave_pandas_out() -> None:
    """Nothing here uses pandas, but the first array that Arrow makes imports it, to recognise its types: 30 MB and a quarter of
    a second. To be called before that. A handler that asks for pandas, as by `to_pandas()`, gets it: Arrow then looks again.
    """
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(finder)


def spare_memory() -> None:
    """What is freed goes back to the system, for the most part. To be called before the first thread begins.

    Every thread of glibc's allocator keeps what it has freed for itself, and Arrow's does the same: with a million open
    windows that was 80 MB of the worker's 760. Two arenas are enough for the threads that compute at the same time.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # a C library of another kind has no arenas to bound
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)
    pa.set_memory_pool(pa.system_memory_pool())
