"""Handlers that say something else whenever they are asked, and note of which records they were. They want a column
`amount` (bigint, nullable) and one `ratio` (double)."""

from __future__ import annotations

import math
import random
from typing import Any

import pyarrow as pa

from tidegate.stages.handle import BatchContext, RecordContext

Record = dict[str, Any]

USUAL = ("as it was", "changed", "left out", "refused", "unfit")
ASKED: list[str] = []  # ids of records, in the order of the calls
_dice = random.Random()
_ways = USUAL


def start(seed: int, ways: tuple[str, ...] = USUAL) -> None:
    """Forget what was asked. `ways`: the answers that can be given; `infinite` is one that some databases refuse."""
    global _ways
    ASKED.clear()
    _dice.seed(seed)
    _ways = ways


def _answer(record: Record) -> Any:
    way = _dice.choice(_ways)
    if way == "refused":
        raise ValueError(f"refused, as the dice said {_dice.random()}")
    if way == "changed":
        return record | {"amount": _dice.randrange(1, 1000)}
    return {"left out": None, "unfit": {}, "infinite": record | {"ratio": math.inf}}.get(way, record)


def per_record(record: Record, context: RecordContext) -> Any:
    """Sync."""
    ASKED.append(context.id)
    return _answer(record)


async def per_record_async(record: Record, context: RecordContext) -> Any:
    """Async."""
    ASKED.append(context.id)
    return _answer(record)


def per_batch(table: pa.Table, context: BatchContext) -> pa.Table:
    """Arrow in and out; a record that it refuses is found by halving, though it may think better of it meanwhile."""
    ASKED.extend(context.ids.to_pylist())
    answers = [_answer(record) for record in table.to_pylist()]
    return pa.Table.from_pylist([answer for answer in answers if answer], table.schema)
