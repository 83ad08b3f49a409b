"""One source partition in this process, on a real broker and a real database: a worker without Faust around it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.scene import START, Scene
from tidegate.clock import SystemClock
from tidegate.config.kafka import aiokafka_options
from tidegate.config.pipeline import Pipeline
from tidegate.record import TopicPartition
from tidegate.resilience.guard import Guard
from tidegate.topics import partition_counts
from transport import SourceBatch
from worker.build import Runtime
from worker.context import Context, Delivery


def record(offset: int, colour: str = "red", *, value: bytes | None = None) -> Any:
    """One record as aiokafka gives it; `value` in place of a good one."""
    event_time = START + offset * 1000
    good = {"id": offset, "person": "p", "colour": colour, "amount": 1, "event_time": event_time}
    return SimpleNamespace(
        offset=offset, timestamp=event_time, key=b"k", value=value or json.dumps(good).encode(), headers=()
    )


def delivered(tp: TopicPartition, records: Sequence[Any], acked: list[int]) -> Delivery:
    """These records as one batch; its last offset goes to `acked` when it is acknowledged."""

    async def ack() -> None:
        acked.append(records[-1].offset)

    return Delivery(SourceBatch(tp, list(records), 100), ack)


async def context_of(
    scene: Scene, directory: Path, fail: Callable[[BaseException], None] = lambda error: pytest.fail(repr(error))
) -> Context:
    """What a worker's partitions share, without the worker."""
    runtime = Runtime(Pipeline.model_validate(scene.pipeline))
    runtime._partitions = await partition_counts(runtime._confluent, runtime.topics)
    counts = await runtime._ensure_topics()
    assert runtime._store is not None
    await asyncio.to_thread(runtime._store.prepare)
    consumer: Any = SimpleNamespace(
        pause_partitions_for=lambda *_: None,
        resume_partitions_for=lambda *_: None,
        idle_seconds=lambda _: None,
        is_current=lambda _: True,
    )
    return Context(
        plan=runtime.plan,
        handlers=runtime._handlers,
        clock=SystemClock(),
        owner="test",
        state_dir=directory / "state",
        executor=runtime._executor,
        stages=runtime._stages,
        readers=runtime._readers,
        kafka=aiokafka_options(runtime.pipeline.kafka),
        confluent=runtime._confluent,
        store=runtime._store,
        store_guard=Guard("store", runtime.pipeline.error_handling),
        observer=runtime.observer,
        consumer=consumer,
        fail=fail,
        sources=runtime._sources,
        pipeline_watermark=lambda: None,
        partition_counts=counts,
    )


def close(context: Context) -> None:
    """Let go of the database's connections and of the threads."""
    assert context.store is not None
    context.store.close()
    context.handlers.close()
    for pool in (context.executor, context.stages):
        pool.shutdown()
    context.readers.shutdown()


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until something is true."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 (what it waits for has no event)
            await asyncio.sleep(0.01)
