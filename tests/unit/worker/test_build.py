"""A worker's runtime: the look at new partitions, and an end before the beginning."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.aio import in_a_loop
from tests.unit.worker.pieces import plan_of
from tidegate.errors import BrokerUnavailable, ConfigError
from worker.build import Runtime


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
async def test_a_worker_that_is_told_to_end_while_it_starts() -> None:
    """A broker that is away, say: what was not begun need not be ended, and does not fail."""
    await Runtime(plan_of().pipeline).take_down()


def test_a_sink_that_wants_all_results_each_time() -> None:
    """A worker has those of its own partitions only: refused by the name of the field."""
    with pytest.raises(ConfigError, match="never all results") as error:
        Runtime(plan_of(sinks=[{"type": "kafka", "outputMode": "complete"}]).pipeline)
    assert error.value.field == "sinks[0].outputMode"
