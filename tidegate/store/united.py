"""approxDistinct in a store: sketches cannot be added in SQL, so they are read, united here, and written back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pyarrow as pa

from tidegate.stages.measures.approx_distinct import estimate, unite
from tidegate.store.statements import ESTIMATE, ROW


class Existing(NamedTuple):
    """A partial that is there: the number of its staged key, whose it is, and a sketch per approxDistinct measure."""

    row: int
    topic: str
    partition: int
    lane: str
    sketches: tuple[bytes | None, ...]


def numbered_keys(deltas: pa.Table, keys: Sequence[str]) -> tuple[pa.Table, list[int]]:
    """The distinct keys among the deltas, numbered in the column ROW, and for each delta row the number of its key."""
    rows = list(zip(*(deltas.column(name).to_pylist() for name in keys), strict=True))
    numbers: dict[tuple[object, ...], int] = {}
    first: list[int] = []
    number_of: list[int] = []
    for index, key in enumerate(rows):
        number = numbers.setdefault(key, len(numbers))
        if number == len(first):
            first.append(index)
        number_of.append(number)
    distinct = deltas.select(keys).take(pa.array(first, pa.int64()))
    return distinct.add_column(0, ROW, pa.array(range(len(first)), pa.int32())), number_of


def with_united_sketches(
    deltas: pa.Table, names: Sequence[str], number_of: Sequence[int], existing: Iterable[Existing]
) -> pa.Table:
    """The deltas, each sketch united with its partial's; beside it the key's estimate over all partitions and lanes.

    `deltas` may be of several source partitions: the columns `topic` and `partition` say of which.
    """
    there = list(existing)
    sources = list(zip(*(deltas.column(name).to_pylist() for name in ("topic", "partition", "lane")), strict=True))
    for index, name in enumerate(names):
        staged: list[bytes | None] = deltas.column(f"{name}__sketch").to_pylist()
        own: dict[tuple[int, str, int, str], bytes | None] = {}
        of_key: dict[int, list[bytes | None]] = {}
        for partial in there:
            own[partial.row, partial.topic, partial.partition, partial.lane] = partial.sketches[index]
            of_key.setdefault(partial.row, []).append(partial.sketches[index])
        united = [
            _unite([own.get((number, *source)), sketch])
            for number, source, sketch in zip(number_of, sources, staged, strict=True)
        ]
        for number, sketch in zip(number_of, staged, strict=True):
            of_key.setdefault(number, []).append(sketch)
        totals = {number: _estimate(sketches) for number, sketches in of_key.items()}
        column = deltas.schema.get_field_index(f"{name}__sketch")
        deltas = deltas.set_column(column, f"{name}__sketch", pa.array(united, pa.binary()))
        deltas = deltas.append_column(f"{name}{ESTIMATE}", pa.array([totals[n] for n in number_of], pa.int64()))
    return deltas


def unite_hex(joined: str | None) -> bytes | None:
    """The union of sketches given as hexadecimal text with commas between them."""
    return None if joined is None else _unite([bytes.fromhex(one) for one in joined.split(",")])


def _unite(sketches: Iterable[bytes | None]) -> bytes | None:
    given = [sketch for sketch in sketches if sketch is not None]
    return unite(given) if given else None


def _estimate(sketches: Iterable[bytes | None]) -> int:
    united = _unite(sketches)
    return 0 if united is None else estimate(united)
