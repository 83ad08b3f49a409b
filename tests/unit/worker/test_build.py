"""A worker's runtime: the look at new partitions, and an end before the beginning."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from tests.aio import in_a_loop
from tests.unit.worker.pieces import plan_of
from tidegate.errors import BrokerUnavailable, ConfigError
from worker.build import Runtime, create_app
from worker.sinks import leave_to_spark


@in_a_loop
async def test_only_a_topic_that_has_gone_ends_it_and_the_worker(tmp_path: Any) -> None:
    """An outage and a bug are said and tried again; a topic that was deleted ends the worker with its text."""
    settings = {"kafka": {"metadataMaxAge": "1 ms"}, "worker": {"stateDir": str(tmp_path)}}
    runtime = Runtime(plan_of(**settings).pipeline)
    outcomes: list[Exception] = [BrokerUnavailable("away"), KeyError("a bug"), ConfigError("topic 'flights' is gone")]
    failures: list[BaseException] = []

    async def grow(_: Any) -> None:
        raise outcomes.pop(0)

    runtime._grow = grow  # type: ignore[method-assign]  # stands for a look at the broker
    async with asyncio.timeout(5):
        await runtime._watch_partitions(cast(Any, SimpleNamespace(fail=failures.append)))
    assert (outcomes, [type(error) for error in failures]) == ([], [ConfigError])
    assert "topic 'flights' is gone" in str(failures[0])


@in_a_loop
async def test_a_broker_that_has_not_heard_of_new_partitions(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A topic never has fewer than it had: what is known of them stays, and nobody is told otherwise."""
    runtime = Runtime(plan_of(worker={"stateDir": str(tmp_path)}).pipeline)
    runtime._partitions = {"flights": 3}

    async def lagging(*_: Any) -> dict[str, int]:
        return {"flights": 1}

    monkeypatch.setattr("worker.build.partition_counts", lagging)
    await runtime._grow(cast(Any, None))  # which would be told
    assert [tp.partition for tp in runtime._sources()] == [0, 1, 2]
    await runtime.take_down()


@in_a_loop
async def test_a_worker_that_is_told_to_end_while_it_starts() -> None:
    """A broker that is away, say: what was not begun need not be ended, and does not fail."""
    await Runtime(plan_of().pipeline).take_down()


@in_a_loop
async def test_no_state_is_kept_on_standby(tmp_path: Any) -> None:
    """Faust would keep one replica of every table, and knows of none here: the state is ours, and its owner alone has it."""
    app = create_app(plan_of(worker={"stateDir": str(tmp_path)}).pipeline)
    assert app.conf.table_standby_replicas == 0
    assert app.tables.data == {}
    await app.tide.take_down()


def test_a_sink_that_wants_all_results_each_time() -> None:
    """A worker has those of its own partitions only: refused by the name of the field."""
    with pytest.raises(ConfigError, match="never all results") as error:
        Runtime(plan_of(sinks=[{"type": "kafka", "outputMode": "complete"}]).pipeline)
    assert error.value.field == "sinks[0].outputMode"


@in_a_loop
async def test_sinks_of_lakes_are_left_to_spark(tmp_path: Any) -> None:
    """A worker opens the database alone, and says whose work the others are."""
    database = {"type": "postgres", "url": "postgresql://nowhere.invalid/x"}
    lakes = [{"type": "delta", "path": str(tmp_path)}, {"type": "parquet", "path": "s3://bucket/x"}]
    runtime = Runtime(plan_of(sinks=[*lakes, database]).pipeline)
    with capture_logs() as logged:
        leave_to_spark(runtime.pipeline)
    assert [(event["event"], event["sinks"]) for event in logged] == [("sinks.left_to_spark", ["delta", "parquet"])]
    assert runtime._store is not None
    await runtime.take_down()
    with capture_logs() as logged:
        leave_to_spark(plan_of(sinks=[database]).pipeline)
    assert logged == []
