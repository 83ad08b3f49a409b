"""Handlers as a user would write them, for test_handle.py."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tidegate.stages.handle import BatchContext, RecordContext

Record = dict[str, Any]


class Away(Exception):
    """What a client raises when its server is away."""


class Log:
    """What the handlers below have seen; cleared by each test."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.running = 0
        self.most_running = 0
        self.lock = threading.Lock()
        self.failures_left = 0

    def enter(self) -> None:
        with self.lock:
            self.running += 1
            self.most_running = max(self.most_running, self.running)

    def leave(self) -> None:
        with self.lock:
            self.running -= 1


LOG = Log()


def double(record: Record) -> Record:
    return {**record, "n": record["n"] * 2}


def only_even(record: Record) -> Record | None:
    return record if record["n"] % 2 == 0 else None


def refuse_negative(record: Record) -> Record:
    LOG.calls.append(record["n"])
    if record["n"] < 0:
        raise ValueError(f"{record['n']} is negative")
    return record


def remember_context(record: Record, context: RecordContext) -> Record:
    LOG.calls.append(context)
    return record


def flaky(record: Record) -> Record:
    LOG.calls.append(record["n"])
    if LOG.failures_left:
        LOG.failures_left -= 1
        raise ConnectionError("no route")
    return record


def away(record: Record) -> Record:
    LOG.calls.append(record["n"])
    raise Away("gone")


def outage_then_fault(record: Record) -> Record:
    if LOG.failures_left:
        LOG.failures_left -= 1
        raise ConnectionError("no route")
    raise ValueError("bad")


def as_is(record: Record) -> Any:
    return RESULTS[record["n"]]


RESULTS: list[Any] = []


async def async_double(record: Record) -> Record:
    await asyncio.sleep(0)
    LOG.calls.append(threading.current_thread().name)
    return {**record, "n": record["n"] * 2}


async def async_slow(record: Record) -> Record:
    LOG.enter()
    await asyncio.sleep(0.001)
    LOG.calls.append((record["s"], record["n"]))
    LOG.leave()
    return record


async def async_hanging(record: Record) -> Record:
    LOG.calls.append(record["n"])
    await asyncio.sleep(3600)
    return record


async def async_away(record: Record) -> Record:
    LOG.calls.append(record["n"])
    if record["n"] == 0:
        raise Away("gone")
    await asyncio.sleep(3600)
    return record


BARRIER = threading.Barrier(3, timeout=5)


def needs_three_at_once(record: Record) -> Record:
    LOG.enter()
    BARRIER.wait()
    LOG.leave()
    return record


def lingering(record: Record) -> Record:
    LOG.enter()
    time.sleep(0.005)
    LOG.leave()
    return record


def batch_lingering(table: pa.Table) -> pa.Table:
    LOG.enter()
    time.sleep(0.02)
    LOG.leave()
    return table


def slow_sync(record: Record) -> Record:
    LOG.calls.append((record["s"], record["n"]))
    return record


def batch_double(table: pa.Table) -> pa.Table:
    LOG.calls.append(len(table))
    return table.set_column(0, "n", pc.multiply(table.column("n"), 2))


def batch_refuse_negative(table: pa.Table) -> pa.Table:
    LOG.calls.append(len(table))
    if pc.any(pc.less(table.column("n"), 0)).as_py():
        raise ValueError("a negative number")
    return table


def batch_only_even_backwards(table: pa.Table) -> pa.Table:
    even = table.filter(pc.equal(pc.bit_wise_and(table.column("n"), 1), 0))
    return even.sort_by([("_offset", "descending")])


def batch_away(table: pa.Table) -> pa.Table:
    LOG.calls.append(len(table))
    raise Away("gone")


def batch_remember_context(table: pa.Table, context: BatchContext) -> pa.Table:
    LOG.calls.append((context.topic, context.partition, context.ids.to_pylist()))
    if pc.any(pc.less(table.column("n"), 0)).as_py():
        raise ValueError("a negative number")
    return table


async def async_batch(table: pa.Table) -> pa.Table:
    await asyncio.sleep(0)
    return table


def batch_columns(table: pa.Table) -> Any:
    return RESULTS[0](table)


NOT_CALLABLE = 3


def no_argument() -> None:
    return None
