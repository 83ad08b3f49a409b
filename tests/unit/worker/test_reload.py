"""A partition's state taken over from what another engine has applied; here another partition's state stands for the store."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from tests.unit.worker.pieces import SIZE, Partition, partition, record, small_plan
from tidegate.stages.batch import LATE_WINDOWS_SCHEMA
from worker.reload import Stored, reload_steps
from worker.windows import BEGINNING, FOREVER


def taken_over(mine: Partition, other: Partition, changed_after: int, *, chunk: int = 50_000) -> None:
    """Reload from what `other` has of later offsets, each step committed."""
    table = other.stages.windows["totals"].ending(other.db, BEGINNING, FOREVER).table
    table = table.filter(pa.compute.greater(table["upto"], changed_after))
    chunks = [table.slice(start, chunk) for start in range(0, table.num_rows, chunk)]
    late = pa.Table.from_pylist([], schema=LATE_WINDOWS_SCHEMA)
    for step in reload_steps(
        mine.stages, Stored(other.state, {"totals": chunks}, late, []), mine.state, mine.closed_upto
    ):
        mine.apply(step)


def test_the_state_is_the_other_s_and_results_are_the_newest(tmp_path: Path) -> None:
    """Windows that were known, new, and closed by it, in chunks of one row; each result once more at most, never older."""
    log = [record(n, n * 1_700, "ab"[n % 2]) for n in range(12)]
    with partition(small_plan(), tmp_path / "mine") as mine, partition(small_plan(), tmp_path / "other") as other:
        mine.take(*log[:4])
        assert mine.stages.emitter.last_end(mine.closed_upto) == SIZE
        for start in range(0, 12, 4):
            other.take(*log[start : start + 4])
        taken_over(mine, other, 3, chunk=1)
        assert (mine.state, mine.closed_upto) == (other.state, other.closed_upto)
        assert (
            mine.stages.emitter.last_end(mine.closed_upto)
            == other.stages.emitter.last_end(other.closed_upto)
            == 2 * SIZE
        )
        ours, theirs = mine.newest(), other.newest()
        assert {key: (row["values"], row["final"]) for key, row in ours.items()} == {
            key: (row["values"], row["final"]) for key, row in theirs.items()
        }
        after = [record(12, 21_000, "a")]
        assert mine.take(*after).result.deltas["totals"].equals(other.take(*after).result.deltas["totals"])
        assert {k: r["values"] for k, r in mine.newest().items()} == {k: r["values"] for k, r in other.newest().items()}


def test_what_is_forgotten_is_sent_and_not_kept(tmp_path: Path) -> None:
    """A window that another engine has changed by a replay long after its end, and windows that have come and gone meanwhile."""
    with partition(small_plan(), tmp_path / "mine") as mine, partition(small_plan(), tmp_path / "other") as other:
        mine.take(record(0, 1_000))
        mine.take(record(1, 100_000))
        other.take(record(0, 1_000))
        other.take(record(2, 2_000, replay=True), record(3, 55_000, replay=True))
        other.state = mine.state  # the store forgets nothing, so `other` must not either
        taken_over(mine, other, 1)
        sent = {row["window"]["start"]: (row["values"]["n"], row["final"]) for row in mine.newest().values()}
        assert sent["1970-01-01T00:00:00.000Z"] == (2, True)
        assert sent["1970-01-01T00:00:50.000Z"] == (1, True)
        left = mine.stages.windows["totals"].ending(mine.db, BEGINNING, FOREVER).table
        assert left["window_end"].to_pylist() == [11 * SIZE]
