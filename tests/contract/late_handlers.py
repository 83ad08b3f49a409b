"""A handler that changes its mind."""

from __future__ import annotations

import threading
from typing import Any

refusing = threading.Event()


def choose(record: dict[str, Any]) -> dict[str, Any] | None:
    """While refusing: no bob, an ann that PostgreSQL does not hold, and nobody without a name."""
    if not refusing.is_set():
        return record
    if record["user"] == "bob":
        raise ValueError("no bob")
    if record["user"] == "ann":
        return {**record, "user": "ann\0"}
    return None if record["user"] is None else record
