"""A handler that changes its mind."""

from __future__ import annotations

import threading
from typing import Any

refusing = threading.Event()


def refuse_bob(record: dict[str, Any]) -> dict[str, Any]:
    if refusing.is_set() and record["user"] == "bob":
        raise ValueError("no bob")
    return record
