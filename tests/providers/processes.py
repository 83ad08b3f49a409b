"""Processes that a test has to see the end of."""

from __future__ import annotations

import psutil


def alive(process: psutil.Process) -> bool:
    """Whether it still runs; a zombie that nobody waits for does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
