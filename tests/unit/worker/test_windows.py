"""The windows of one aggregation in the local state: merging, ranges of ends, and what a layout is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.unit.worker.pieces import plan_of
from tidegate.stages.sql import connect
from worker.statedb import PartitionDB
from worker.windows import BEGINNING, FOREVER, WindowRows, WindowTable


@pytest.fixture
def db(tmp_path: Path) -> Iterator[PartitionDB]:
    opened = PartitionDB(tmp_path / "state")
    yield opened
    opened.close()


@pytest.fixture
def table() -> WindowTable:
    return WindowTable(plan_of().aggregations[0], connect())


def deltas(table: WindowTable, *rows: tuple[int, str | None, int, int, int], lane: str = "live") -> pa.Table:
    """(window end, key, count, sum, upto) as a batch's deltas."""
    types = {partial.name: partial.type for partial in table.plan.partials}
    ends, keys, counts, sums, uptos = zip(*rows, strict=True)
    return pa.table(
        {
            "window_start": pa.array([end - 10_000 for end in ends]),
            "window_end": pa.array(ends),
            "lane": [lane] * len(rows),
            "k": pa.array(keys, pa.string()),
            "n__n": pa.array(counts, types["n__n"]),
            "total__n": pa.array(counts, types["total__n"]) if "total__n" in types else pa.array(counts),
            "total__sum": pa.array(sums).cast(types["total__sum"]),
            "records": pa.array(counts),
            "upto": pa.array(uptos),
        }
    ).select(["window_start", "window_end", "lane", "k", *types, "records", "upto"])


def write(db: PartitionDB, rows: WindowRows) -> WindowRows:
    db.write(list(zip(rows.keys, rows.values, strict=True)), [], 1)
    return rows


def shown(rows: WindowRows) -> list[tuple[Any, ...]]:
    """(window end, key, count, sum, upto, revision), in some fixed order."""
    columns = ("window_end", "k", "n__n", "total__sum", "upto", "revision")
    return sorted(zip(*(rows.table[column].to_pylist() for column in columns), strict=True), key=str)


def ends_of(rows: WindowRows) -> list[int]:
    return sorted(rows.table["window_end"].to_pylist())


def test_totals_add_up_and_revisions_count_the_changes(db: PartitionDB, table: WindowTable) -> None:
    """A group that is new has revision 1; one that is known is merged with what was there; a null is a group too."""
    write(db, table.apply(db, deltas(table, (10_000, "a", 2, 5, 3), (10_000, None, 1, 1, 4))))
    changed = write(db, table.apply(db, deltas(table, (10_000, "a", 1, -7, 9), (20_000, "a", 1, 1, 8))))
    assert shown(changed) == [(10_000, "a", 3, -2, 9, 2), (20_000, "a", 1, 1, 8, 1)]
    assert shown(table.ending(db, BEGINNING, FOREVER)) == sorted(
        [(10_000, "a", 3, -2, 9, 2), (10_000, None, 1, 1, 4, 1), (20_000, "a", 1, 1, 8, 1)], key=str
    )


def test_lanes_are_one_total(db: PartitionDB, table: WindowTable) -> None:
    """A replayed record and a live one of the same window and group are one row here, and two changes, as in the store."""
    both = pa.concat_tables(
        [deltas(table, (10_000, "a", 1, 1, 1)), deltas(table, (10_000, "a", 1, 2, 2), lane="replay")]
    )
    assert shown(table.apply(db, both)) == [(10_000, "a", 2, 3, 2, 2)]


def test_ranges_are_open_below_and_closed_above(db: PartitionDB, table: WindowTable) -> None:
    """Windows that end after one bound and up to another, before 1970 too."""
    write(db, table.apply(db, deltas(table, *((end, "a", 1, 1, 1) for end in (-10_000, 0, 10_000, 20_000)))))
    assert ends_of(table.ending(db, -10_000, 10_000)) == [0, 10_000]
    assert ends_of(table.ending(db, 10_000, 10_000)) == []
    assert len(table.expired(db, BEGINNING, 0)) == 2
    assert table.open_ends(db, 0) == {10_000, 20_000}
    assert table.open_ends(db, BEGINNING) == {-10_000, 0, 10_000, 20_000}


def test_a_layout_changes_with_what_rows_look_like(table: WindowTable) -> None:
    """Another size, group or measure is another layout; another way of emitting is not."""
    plan, con = table.plan, connect()
    assert WindowTable(replace(plan, emit="final"), con).layout == table.layout
    others = [replace(plan, size=5_000), replace(plan, group=()), replace(plan, measures=plan.measures[:1])]
    assert len({table.layout, *(WindowTable(other, con).layout for other in others)}) == 4
