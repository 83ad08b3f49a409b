"""Handlers as a user would write them, for workers under test. SERVICE is a file: while it exists the service is away."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

Record = dict[str, Any]


def ask_service(record: Record) -> Record:
    """Needs something outside."""
    if Path(os.environ["SERVICE"]).exists():
        raise ConnectionError("the service is away")
    return record


def no_blue(record: Record) -> Record | None:
    """Leaves the blue ones out."""
    return None if record["colour"] == "blue" else record


def refuse_999(record: Record) -> Record:
    """Cannot take one amount."""
    if record["amount"] == 999:
        raise ValueError("999 is more than this handler can take")
    return record


def block_for_ever(record: Record) -> Record:
    """Never comes back."""
    time.sleep(3600)
    return record


def say_and_block(record: Record) -> Record:
    """The same, and a file is there once it was asked."""
    Path(os.environ["TIDEGATE_TEST_ASKED"]).touch()
    return block_for_ever(record)


def block_blue(record: Record) -> Record:
    """Never comes back from a blue one."""
    if record["colour"] == "blue":
        time.sleep(3600)
    time.sleep(0.002)
    return record


def die_once(record: Record) -> Record:
    """Kills its process when the file that TIDEGATE_TEST_KILL names is there, and removes the file first."""
    switch = Path(os.environ["TIDEGATE_TEST_KILL"])
    if record["id"] > 700 and switch.exists():
        switch.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return record


def unchanged(record: Record) -> Record:
    """Has nothing to say, and would have to be asked all the same."""
    return record


def on_the_third_call(record: Record) -> Record:
    """Cannot take every twentieth record before it is asked for the third time, and another twentieth never."""
    calls = Path(os.environ["TIDEGATE_TEST_CALLS"]) / str(record["id"])
    if record["id"] % 20 not in (3, 7):
        return record
    with calls.open("ab") as file:
        file.write(b".")
    if record["id"] % 20 == 7 or calls.stat().st_size < 3:
        raise ValueError(f"not yet: {record['id']}")
    return record
