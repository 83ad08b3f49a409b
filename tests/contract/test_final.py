"""When a result is called final, by a worker and by a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.contract.publishing import Recorded, Run, Workers, published_plan
from tests.reference import Record
from tests.unit.worker.pieces import SIZE, record

if TYPE_CHECKING:
    from tests.providers.postgres import Database

pytestmark = [pytest.mark.postgres, pytest.mark.slow]


def test_who_calls_a_result_final_first(postgres: Database, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Where one partition has passed a window and another has not, a worker calls the results final that are of the first
    alone; a run does not; of groups that spread neither does. Once all partitions have passed it, there is no difference."""
    plan = published_plan(postgres.url)
    run, target, workers = Run(plan), Recorded("kafka"), Workers(plan, tmp_path)
    request.addfinalizer(workers.close)
    request.addfinalizer(run.close)
    publisher = run.publisher(run.follower(target))

    def after(**batch: list[Record]) -> dict[str, tuple[dict[str, bool], dict[str, bool]]]:
        """Aggregation → group → whether the first window's result is final: of the run, of the worker."""
        run.commit(**batch)
        publisher.catch_up()
        for name, records in batch.items():
            workers.sources[int(name[1])].take(*records)
        workers.merge()
        found = {}
        for aggregation in plan.aggregations:
            (group,) = [column.name for column in aggregation.group]
            told = [row for name, _, table, _ in target.given if name == aggregation.name for row in table.to_pylist()]
            sent = [row for _, row in workers.newest(aggregation.name).values()]
            found[aggregation.name] = (
                {row[group]: row["final"] for row in told if row["window_start"] == 0},
                {
                    row["group"][group]: row["final"]
                    for row in sent
                    if row["window"]["start"].startswith("1970-01-01T00:00:00")
                },
            )
        return found

    one = {
        "p0": [record(0, 1000, "a", colour="red"), record(1, SIZE + 1000, "a")],
        "p1": [record(0, 1000, "b", colour="red")],
    }
    assert after(**one) == {
        "totals": ({"a": False, "b": False}, {"a": True, "b": False}),
        "colours": ({"red": False}, {"red": False}),
    }
    assert after(p1=[record(1, SIZE + 1000, "b")]) == {
        "totals": ({"a": True, "b": True}, {"a": True, "b": True}),
        "colours": ({"red": True}, {"red": True}),
    }
