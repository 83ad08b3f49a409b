"""The ways in which Faust loses records, each tried here on a real broker: none of them can happen.

Three places of the code make it so. `transport/positions.py`: an offset moves past finished batches only, from the first
that was delivered. `worker/partition.py`: a batch is acknowledged after its commit, whatever happens before.
`worker/commit.py`: the commit is the last thing, and where to start is read from what it wrote, never from the group.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faust.streams
import pytest
from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as ConfluentPartition
from confluent_kafka.admin import AdminClient

import worker.partition
from tests.aio import in_a_loop
from tests.harness import produce
from tests.providers.flow import Flow, Owner
from tests.providers.partition import close, context_of, delivered, record, until
from tests.scene import Scene, scene
from tidegate.clock import Deadline
from tidegate.errors import BrokerUnavailable
from tidegate.local.kafka import EmbeddedKafka
from tidegate.record import TopicPartition
from worker.context import Context
from worker.source_partition import SourcePartition

if TYPE_CHECKING:
    from tests.providers.kafka import KafkaTopics
    from tests.providers.postgres import Database

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.slow]

_LEDGER = "SELECT read, accepted, dead_lettered FROM tidegate_partitions"


def fill(kafka: KafkaTopics, topic: str, count: int, partitions: int = 1) -> None:
    values = [{"value": b"\xff{", "key": b"\xfe", "partition": p} for p in range(partitions) for _ in range(count)]
    produce(kafka.bootstrap_servers, topic, values)


def group_offset(kafka: KafkaTopics, group: str, topic: str) -> int | None:
    """What the broker has of the group on partition 0: the next offset to read. None: nothing."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": group})
    try:
        (found,) = consumer.committed([ConfluentPartition(topic, 0)], timeout=10)
    finally:
        consumer.close()
    return found.offset if found.offset >= 0 else None


async def settled(flow: Flow) -> None:
    """Long enough for several commits, if there were anything to commit."""
    await asyncio.sleep(5 * flow.app.conf.broker_commit_interval)


# 1. Faust: an agent that raises has its record acknowledged by the iterator's `finally`, and goes on with the next.


@in_a_loop
async def test_an_agent_that_raises_acknowledges_nothing(kafka: KafkaTopics, tmp_path: Path) -> None:
    """Here agents read `noack` streams: the batch stays unacknowledged, nothing after it moves the group's offset, and
    the next worker reads it again (transport/app.py, transport/positions.py)."""
    topic, group, tp, owner = (name := kafka.topic()), f"g-{name}", TopicPartition(name, 0), Owner()
    fill(kafka, topic, 40)

    async def raise_on_the_second(event: Any) -> None:
        if event.value.first == 10:
            raise ValueError("the agent's own fault")

    options = {"group": group, "owner": owner, "max_batch_records": 10, "max_in_flight": 4}
    flow = Flow(kafka.bootstrap_servers, tmp_path / "1", topic, **options)  # type: ignore[arg-type]  # the scene's settings, passed on
    flow.on_event = raise_on_the_second
    async with flow:  # Faust's default supervisor starts the agent again, which then takes 20 to 39
        await flow.until(lambda: (tp, 39) in flow.finished)
        await settled(flow)
        assert flow.committed() == {tp: 10}
    assert (tp, 10) not in flow.finished
    assert group_offset(kafka, group, topic) == 10


@in_a_loop
async def test_a_stage_that_raises_moves_nothing(make_scene: Callable[..., Scene], tmp_path: Path) -> None:
    """Here a bug in a stage ends the worker, with offset, state and database unmoved; whoever comes next does the whole
    batch (worker/partition.py)."""
    one, failures, acked = make_scene(partitions=1), list[BaseException](), list[int]()
    context, tp = await context_of(one, tmp_path, failures.append), TopicPartition(one.topic, 0)
    records = [record(0), record(1), record(2)]
    first = SourcePartition(tp, context)
    await first.start()

    def bug(*_: Any) -> Any:
        raise ZeroDivisionError("a bug")

    first._open_stages()._stages.run = bug  # type: ignore[method-assign]  # the bug that the test puts in
    first.offer(delivered(tp, records, acked))
    await until(lambda: bool(failures))
    await first.stop(Deadline(5))
    assert ([type(error) for error in failures], acked, first.upto) == ([ZeroDivisionError], [], -1)
    assert one.rows(_LEDGER) == [(0, 0, 0)]
    await finished_by_the_next(one, context, records)
    close(context)


async def finished_by_the_next(one: Scene, context: Context, records: list[Any]) -> None:
    """Another owner starts from the state, is given the records, and each counts once."""
    acked = list[int]()
    tp = TopicPartition(one.topic, 0)
    task = SourcePartition(tp, context)
    await task.start()
    task.offer(delivered(tp, records, acked))
    await until(lambda: acked == [records[-1].offset])
    await task.stop(Deadline(5))
    assert one.rows("SELECT read, upto FROM tidegate_partitions") == [(len(records), records[-1].offset)]


# 2. Faust: `take()` acknowledges the whole batch, also when the code behind it raises.


@in_a_loop
async def test_a_failing_record_holds_back_its_whole_batch(
    make_scene: Callable[..., Scene], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here a batch is committed whole or not at all: while a handler fails on one record for an outage, nothing of the
    batch is acknowledged or written; afterwards all of it is (worker/source.py writes nothing, worker/commit.py all)."""
    monkeypatch.setattr(worker.partition, "_OUTAGE_WAIT", (0.05, 0.1))
    monkeypatch.setenv("SERVICE", str(switch := tmp_path / "away"))
    errors = {"retry": {"maxAttempts": 1}, "circuitBreaker": {"resetTimeoutSeconds": 0.1}}
    handlers = [{"call": "tests.handlers:ask_service"}]
    one, acked = make_scene(partitions=1, settings={"handlers": handlers, "errorHandling": errors}), list[int]()
    context, tp = await context_of(one, tmp_path), TopicPartition(one.topic, 0)
    task = SourcePartition(tp, context)
    await task.start()
    switch.touch()
    task.offer(delivered(tp, [record(0), record(1, value=b"{"), record(2)], acked))
    await until(lambda: tp in context.observer.waiting)
    await asyncio.sleep(0.5)
    assert (acked, task.upto, one.rows(_LEDGER), one.read(".dlq")) == ([], -1, [(0, 0, 0)], [])
    switch.unlink()
    await until(lambda: acked == [2])
    await task.stop(Deadline(5))
    close(context)
    assert (one.rows(_LEDGER), len(one.read(".dlq"))) == ([(3, 2, 1)], 1)


# 3. Faust: with 37 committed and 38 and 39 acknowledged it commits 40.


@in_a_loop
async def test_nothing_past_a_gap_is_committed(kafka: KafkaTopics, tmp_path: Path) -> None:
    """Here the group's offset stays at 37 until 37 itself is done (transport/positions.py: `sweep`)."""
    topic, group, tp, owner = (name := kafka.topic()), f"g-{name}", TopicPartition(name, 0), Owner()
    fill(kafka, topic, 37)
    async with Flow(kafka.bootstrap_servers, tmp_path / "1", topic, group=group, owner=owner) as flow:
        await flow.until(lambda: flow.committed() == {tp: 37})
    fill(kafka, topic, 3)
    options = {"group": group, "owner": owner, "max_batch_records": 1}
    async with Flow(kafka.bootstrap_servers, tmp_path / "2", topic, **options) as flow:  # type: ignore[arg-type]  # the scene's settings, passed on
        flow.hold = True
        await flow.until(lambda: [event.value.first for event in flow.events] == [37, 38, 39])
        flow.events[2].ack()
        flow.events[1].ack()
        await settled(flow)
        assert group_offset(kafka, group, topic) == 37
        flow.events[0].ack()
        await flow.until(lambda: flow.committed() == {tp: 40})
    assert group_offset(kafka, group, topic) == 40


# 4. Faust: in a new group (committed None or 0), 5 and 6 acknowledged, it commits 7.


@pytest.mark.parametrize("start", [0, 5])
@in_a_loop
async def test_a_new_group_commits_nothing_past_its_first_gap(kafka: KafkaTopics, tmp_path: Path, start: int) -> None:
    """Here the first batch delivered is the first to be done, at the log's start or where retention has put it: before,
    the group has no offset at all (transport/positions.py: `done` is None)."""
    topic, group, tp = (name := kafka.topic()), f"g-{name}", TopicPartition(name, 0)
    fill(kafka, topic, start + 3)
    if start:
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
        for done in admin.delete_records([ConfluentPartition(topic, 0, start)]).values():
            done.result(10)
    async with Flow(kafka.bootstrap_servers, tmp_path, topic, group=group, max_batch_records=1) as flow:
        flow.hold = True
        await flow.until(lambda: [event.value.first for event in flow.events] == [start, start + 1, start + 2])
        flow.events[1].ack()
        flow.events[2].ack()
        await settled(flow)
        assert group_offset(kafka, group, topic) is None
        flow.events[0].ack()
        await flow.until(lambda: flow.committed() == {tp: start + 3})


# 5. Faust without its compiled stream iterator: what is skipped because of a rebalance is acknowledged.


@pytest.mark.parametrize("build", ["compiled", "pure Python"])
@in_a_loop
async def test_what_a_rebalance_skips_is_not_acknowledged(
    kafka: KafkaTopics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: str
) -> None:
    """Here an acknowledgement of what no agent has taken up counts for nothing, whichever iterator Faust has: the next
    owner reads it (transport/consumer.py: `ack`)."""
    if build == "pure Python":
        monkeypatch.setattr(faust.streams, "_CStreamIterator", None)  # as NO_CYTHON=1, PyPy or a missing wheel do
    else:
        assert faust.streams._CStreamIterator is not None
    topic, group, tp, owner = (name := kafka.topic()), f"g-{name}", TopicPartition(name, 0), Owner()
    fill(kafka, topic, 30)
    go_on = asyncio.Event()
    first, second = (
        Flow(kafka.bootstrap_servers, tmp_path / name, topic, group=group, owner=owner, max_batch_records=10)
        for name in ("first", "second")
    )

    async def wait_in_the_first_batch(event: Any) -> None:
        await go_on.wait()

    async def finish_the_first_batch() -> None:
        go_on.set()
        await asyncio.sleep(0.5)  # the agent goes on to the batches that wait in its queue, and skips them
        first.hold = True  # it may be the next owner, too

    first.on_event, owner.before_release, second.hold = wait_in_the_first_batch, finish_the_first_batch, True
    async with first:
        await first.until(lambda: first.consumer.in_flight(tp) == 3)
        async with second:
            await first.until(lambda: first.count() + second.count() == 30, 30)
            assert owner.calls[1] == ("revoked", frozenset({tp}))
            assert (first.finished, group_offset(kafka, group, topic)) == ([(tp, offset) for offset in range(10)], 10)


# 6. Faust: a producer's flush that makes no headway returns after 100 ms, and the offsets are committed without it.


@in_a_loop
async def test_an_undelivered_changelog_holds_the_offset(
    own_kafka: EmbeddedKafka, postgres: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here what is not confirmed is not acknowledged: the partition waits for the broker and opens anew, and the batch
    counts once although the database had it already (worker/producer.py: `commit`)."""
    monkeypatch.setattr(worker.partition, "_OUTAGE_WAIT", (0.1, 0.2))
    short = functools.partial(worker.partition.PartitionProducer, timeout=1.0)
    monkeypatch.setattr(worker.partition, "PartitionProducer", short)
    with scene(own_kafka.bootstrap_servers, postgres.url, tmp_path, partitions=1) as one:
        acked, tp = list[int](), TopicPartition(one.topic, 0)
        context = await context_of(one, tmp_path)
        task = SourcePartition(tp, context)
        await task.start()
        own_kafka.pause()
        task.offer(delivered(tp, [record(0), record(1), record(2)], acked))
        await until(lambda: context.observer.waiting.get(tp) == "outage", 30)
        assert (acked, one.applied()) == ([], 3)
        own_kafka.resume()
        await until(lambda: acked == [2], 120)  # a restore that met the broker asleep waits out its silence first
        await task.stop(Deadline(5))
        close(context)
        assert one.rows("SELECT read, upto FROM tidegate_partitions") == [(3, 2)]
        assert {m.json["values"]["n"] for m in one.read(".per_key")} == {3}


# 7. Faust: a record that cannot be decoded is acknowledged first, and then thrown into the agent.


@in_a_loop
async def test_an_undecodable_record_is_done_when_its_dead_letter_is(
    make_scene: Callable[..., Scene], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here Faust decodes nothing (transport/batch.py: `BatchSchema`); the dead letter is in the transaction that the
    acknowledgement waits for, so without it there is none."""
    monkeypatch.setattr(worker.partition, "_OUTAGE_WAIT", (0.05, 0.1))
    one, acked = make_scene(partitions=1), list[int]()
    context, tp = await context_of(one, tmp_path), TopicPartition(one.topic, 0)
    task, seen = SourcePartition(tp, context), list[tuple[list[int], int]]()
    await task.start()

    async def away(rows: Any) -> Any:
        seen.append((list(acked), len(one.read(".dlq"))))
        raise BrokerUnavailable("away")

    assert task.producer is not None
    monkeypatch.setattr(task.producer, "commit", away)
    task.offer(delivered(tp, [record(0), record(1, value=b"\xff\x00{"), record(2)], acked))
    await until(lambda: acked == [2])
    await task.stop(Deadline(5))
    close(context)
    assert seen == [([], 0)]
    (letter,) = one.read(".dlq")
    assert (letter.value, letter.header("tidegate.dlq.origin.offset")) == (b"\xff\x00{", "1")
    assert one.rows(_LEDGER) == [(3, 2, 1)]
