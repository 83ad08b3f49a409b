"""Topics that change under a pipeline: deleted and made anew, grown, with another configuration."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka.admin import NewPartitions, NewTopic  # type: ignore[attr-defined]  # its stubs do not re-export them

from tests.aio import in_a_loop
from tests.harness import produce, running, wait_until
from tests.providers.partition import close, context_of, record, until
from tests.scene import Scene, events
from tidegate.clock import Deadline
from tidegate.config.pipeline import Pipeline
from tidegate.errors import TopicRecreated
from tidegate.record import TopicPartition
from tidegate.topics import partition_counts
from worker.build import Runtime
from worker.partition import Context
from worker.source_partition import SourcePartition

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.slow]


def make_anew(scene: Scene, topic: str, partitions: int = 1, **config: str) -> None:
    """Delete the topic, and create one with its name."""
    for done in scene.admin.delete_topics([topic]).values():
        done.result(30)
    wait_until(lambda: topic not in scene.admin.list_topics(timeout=10).topics, 20, f"{topic} is gone")
    for done in scene.admin.create_topics([NewTopic(topic, partitions, 1, config=config)]).values():
        done.result(30)


async def opened(context: Context, tp: TopicPartition) -> SourcePartition:
    task = SourcePartition(tp, context)
    try:
        await task._until_done(task._ensure_open)
    except BaseException:
        await task.stop(Deadline(5))
        raise
    return task


async def apply(context: Context, tp: TopicPartition, *records: Any) -> None:
    """A worker comes, takes these records and goes."""
    task = await opened(context, tp)
    await task._until_done(lambda: task._work(list(records)))
    await task.stop(Deadline(5))


@in_a_loop
async def test_a_source_that_was_made_anew_is_not_taken_for_the_old_one(
    make_scene: Callable[..., Scene], tmp_path: Path
) -> None:
    """Grown past the offset that the state goes on at: its first records would be skipped in silence. The worker says so,
    with the ways out, also when only the database knows of the old topic."""
    scene = make_scene(partitions=1)
    context, tp = await context_of(scene, tmp_path), TopicPartition(scene.topic, 0)
    await apply(context, tp, record(0), record(1))
    make_anew(scene, scene.topic)
    produce(scene.servers, scene.topic, ({"value": b"new"} for _ in range(5)))
    with pytest.raises(TopicRecreated, match=rf"'{scene.topic}' was deleted and made anew(.|\n)*new pipelineId"):
        await opened(context, tp)
    make_anew(scene, SourcePartition(tp, context).changelog[0], **{"cleanup.policy": "compact"})
    with pytest.raises(TopicRecreated, match="the database goes on after offset 1"):
        await opened(context, tp)
    close(context)


@in_a_loop
async def test_a_changelog_that_was_made_anew_is_not_mixed_with_the_old_state(
    make_scene: Callable[..., Scene], tmp_path: Path
) -> None:
    """However long it has grown meanwhile: the local state is of the old one and is wiped; all is counted again."""
    scene = make_scene(partitions=1)
    context, tp = await context_of(scene, tmp_path), TopicPartition(scene.topic, 0)
    await apply(context, tp, record(0), record(1))
    changelog = SourcePartition(tp, context).changelog[0]
    make_anew(scene, changelog, **{"cleanup.policy": "compact"})
    produce(scene.servers, changelog, ({"key": b"Wother", "value": b"x"} for _ in range(200)))
    task = await opened(context, tp)
    assert (task.upto, task.begun) == (-1, False)
    await task._until_done(lambda: task._work([record(0), record(1), record(2)]))
    assert task._state.ledger.read == 3
    assert scene.applied() == 3
    await task.stop(Deadline(5))
    close(context)


@in_a_loop
async def test_a_changelog_that_was_made_anew_under_a_worker_is_not_taken_for_whole(
    make_scene: Callable[..., Scene], tmp_path: Path
) -> None:
    """It has only what was written since, with an offset that looks as if all were there: the next start refuses it."""
    scene = make_scene(partitions=1)
    context, tp = await context_of(scene, tmp_path), TopicPartition(scene.topic, 0)
    task = await opened(context, tp)
    await task._until_done(lambda: task._work([record(0)]))
    make_anew(scene, task.changelog[0], **{"cleanup.policy": "compact"})
    await task._until_done(lambda: task._work([record(1)]))
    await task.stop(Deadline(5))
    with pytest.raises(TopicRecreated, match="was deleted and made anew while a worker wrote to it"):
        await opened(context, tp)
    close(context)


@in_a_loop
async def test_a_topic_that_is_made_anew_under_a_worker_ends_it(make_scene: Callable[..., Scene]) -> None:
    """Noticed when it looks for new partitions, however far the new topic has grown by then."""
    scene = make_scene(partitions=1)
    scene.pipeline["kafka"]["metadataMaxAge"] = "200 ms"
    runtime, failures = Runtime(Pipeline.model_validate(scene.pipeline)), list[BaseException]()
    runtime._partitions = await partition_counts(runtime._confluent, runtime.topics)
    context: Any = SimpleNamespace(fail=failures.append, partition_counts=await runtime._ensure_topics())
    runtime._topic_ids = await runtime._ids()
    watching = asyncio.create_task(runtime._watch_partitions(context))
    await asyncio.sleep(0.5)
    assert failures == []
    await asyncio.to_thread(make_anew, scene, scene.topic)
    await until(lambda: failures != [])
    assert isinstance(failures[0], TopicRecreated)
    assert scene.topic in str(failures[0])
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await runtime.take_down()


@pytest.mark.timeout(180)
def test_starting_at_the_end_misses_nothing_of_partitions_that_come_later(
    make_scene: Callable[..., Scene], seed: int
) -> None:
    """`startAt: latest` passes over what was there when the pipeline first started, and over nothing else: not over what
    was written to new partitions before a worker noticed them, nor over what comes while no worker runs."""
    scene, random = make_scene(), Random(seed)
    scene.pipeline["source"]["startAt"] = "latest"
    scene.pipeline["kafka"]["metadataMaxAge"] = "4 seconds"
    scene.feed(events(random, 300))
    scene.produced.clear()  # before the beginning
    worker = scene.worker()
    with running(worker):
        worker.wait_ready()
        scene.feed(events(random, 300, first=300))
        for done in scene.admin.create_partitions([NewPartitions(scene.topic, 6)]).values():
            done.result(30)
        wait_until(lambda: len(scene.admin.list_topics(scene.topic).topics[scene.topic].partitions) == 6, 10, "growth")
        scene.feed(events(random, 600, first=600))
        assert {one.partition for one in scene.produced} == set(range(6))
        wait_until(lambda: scene.applied() == 900, 60, f"all since the beginning is applied\n{worker.tail()}")
        assert worker.stop() == 0
    for done in scene.admin.create_partitions([NewPartitions(scene.topic, 7)]).values():
        done.result(30)
    wait_until(lambda: len(scene.admin.list_topics(scene.topic).topics[scene.topic].partitions) == 7, 10, "growth")
    scene.feed({**one, "partition": 6} for one in events(random, 50, first=1200))
    worker = scene.worker()
    with running(worker):
        wait_until(lambda: scene.applied() == 950, 60, f"what came meanwhile is applied\n{worker.tail()}")
        scene.check_database(scene.truth())
        assert worker.stop() == 0
