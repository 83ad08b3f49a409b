"""A run that was paused while it wrote to a sink, and wakes behind another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from tests.contract.publishing import Recorded, Run, published_plan
from tests.unit.worker.pieces import record
from tidegate.errors import StoreFenced

if TYPE_CHECKING:
    from tests.providers.postgres import Database

pytestmark = [pytest.mark.postgres, pytest.mark.slow]


def test_a_run_at_work_gives_again_what_an_overtaken_one_wrote_too_late(
    postgres: Database, request: pytest.FixtureRequest
) -> None:
    """It is told of nothing; but what it published last is not where the sink's rows are, so that its micro-batch is not all."""
    plan, target = published_plan(postgres.url), Recorded("kafka")
    paused = Run(plan)
    request.addfinalizer(paused.close)
    paused.commit(p0=[record(0, 1000, "a")])
    late = paused.published.plan("kafka", paused.claims.epochs)
    assert late is not None
    run = Run(plan, "another")
    request.addfinalizer(run.close)
    publisher = run.publisher(run.follower(target))
    publisher.catch_up()
    publisher.follow(run.commit(p0=[record(1, 1000, "a")]))
    with pytest.raises(StoreFenced):
        paused.published.done(late)
    publisher.follow(run.commit(p1=[record(0, 1000, "b")]))
    assert sorted(target.given[-2][2]["k"].to_pylist()) == ["a", "b"]
    results, looked_for = run.published.results, list[bool]()

    def watched(*what: Any) -> pa.Table:
        looked_for.append(what[-1] is None)
        return results(*what)

    run.published.results = watched  # type: ignore[method-assign]  # sees whether the partials are looked through
    publisher.follow(run.commit(p1=[record(1, 1000, "c")]))
    assert (target.given[-2][2]["k"].to_pylist(), looked_for) == (["c"], [False, False])
