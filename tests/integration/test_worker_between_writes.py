"""What happens when the world changes between two writes: one partition in process, on a real broker and PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests import fickle
from tests.aio import in_a_loop
from tests.property.half_written import windows_of_state, windows_of_store
from tests.providers.partition import close, context_of, record
from tests.scene import Scene, assert_once
from tidegate.clock import Deadline
from tidegate.errors import BrokerUnavailable, ConfigError
from tidegate.record import TopicPartition
from transport import EARLIEST
from worker.context import Context
from worker.owner import Owner
from worker.source_partition import SourcePartition

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.slow]


async def half_write(task: SourcePartition, records: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The database takes a batch, then Kafka is away and the worker is gone."""

    async def failing(_rows: Any) -> Any:
        raise BrokerUnavailable("away after the database has written")

    assert task.producer is not None
    monkeypatch.setattr(task.producer, "commit", failing)
    with pytest.raises(BrokerUnavailable):
        await task._work(records)
    await task.stop(Deadline(5))


async def opened(scene: Scene, context: Context, state: Path) -> SourcePartition:
    """The partition at a worker whose state is restored from the changelog."""
    task = SourcePartition(TopicPartition(scene.topic, 0), replace(context, state_dir=state))
    await task._until_done(task._ensure_open)
    return task


@in_a_loop
async def test_what_the_database_refused_stays_refused_when_kafka_fails(
    make_scene: Callable[..., Scene], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kafka is away after the database has taken a batch without a record that it refuses: at the next worker the record is
    dead-lettered all the same, and both ledgers say so."""
    scene = make_scene(partitions=1)
    context = await context_of(scene, tmp_path)
    records = [record(0), record(1, "bad\x00value"), record(2)]
    await half_write(await opened(scene, context, tmp_path / "one"), records, monkeypatch)
    task = await opened(scene, context, tmp_path / "two")
    assert task.upto == -1
    for one in records:
        await task._work([one])
    assert (task._state.ledger.accepted, task._state.ledger.dead_lettered) == (2, 1)
    assert scene.rows("SELECT read, accepted, dead_lettered FROM tidegate_partitions") == [(3, 2, 1)]
    assert [m.header("tidegate.dlq.stage") for m in scene.read(".dlq")] == ["sink"]
    await task.stop(Deadline(5))
    close(context)


@pytest.mark.parametrize("handler", [{"call": "per_record", "concurrency": 2}, {"call": "per_batch", "mode": "batch"}])
@in_a_loop
async def test_a_handler_that_changes_its_mind_is_not_asked_for_what_the_database_has(
    make_scene: Callable[..., Scene], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handler: dict[str, Any]
) -> None:
    """Accepted, changed, left out or refused otherwise at each call: after a crash between the writes, a restart from the
    changelog and with smaller batches, ledgers and windows are the same on both sides, and each dead letter is there once."""
    fickle.start(7)
    scene = make_scene(
        partitions=1, settings={"handlers": [{**handler, "call": f"{fickle.__name__}:{handler['call']}"}]}
    )
    context = await context_of(scene, tmp_path)
    records = [record(offset, "bad\x00value" if offset % 10 == 3 else "red") for offset in range(40)]
    task = await opened(scene, context, tmp_path / "one")
    await task._work(records[:5])
    await half_write(task, records[5:30], monkeypatch)
    asked = len(fickle.ASKED)
    task = await opened(scene, context, tmp_path / "two")
    assert task.upto == 4
    for start in range(0, 35, 7):
        await task._work(records[start : start + 7])
    assert len(fickle.ASKED) > asked
    assert not {f"{scene.topic}-0-{offset}" for offset in range(30)}.intersection(fickle.ASKED[asked:])
    await half_write(task, records[35:], monkeypatch)
    task = await opened(scene, context, tmp_path / "three")
    await task._work(records[35:])
    assert context.store is not None
    [row] = context.store.partitions()
    assert row.state.ledger == task._state.ledger
    assert min(row.state.ledger.accepted, row.state.ledger.filtered, row.state.ledger.dead_lettered) > 0
    for name in ("per_key", "overall"):
        assert windows_of_state(task, name) == windows_of_store(context.store, task.tp, name)
    letters = scene.read(".dlq")
    assert_once(letters, "tidegate.dlq.id")
    assert len(letters) == row.state.ledger.dead_lettered
    assert {m.header("tidegate.dlq.stage") for m in letters} == {"handle", "sink"}
    await task.stop(Deadline(5))
    close(context)


@in_a_loop
async def test_a_database_that_was_emptied_is_not_filled_as_if_nothing_had_been(
    make_scene: Callable[..., Scene], tmp_path: Path
) -> None:
    """When the database knows less than the state the worker says so, instead of going on with part of the results."""
    scene = make_scene(partitions=1)
    context = await context_of(scene, tmp_path)
    task = SourcePartition(TopicPartition(scene.topic, 0), context)
    await task._until_done(task._ensure_open)
    await task._until_done(lambda: task._work([record(0), record(1)]))
    await task.stop(Deadline(5))
    assert scene.url is not None
    with psycopg.connect(scene.url, autocommit=True) as connection:
        connection.execute("TRUNCATE tidegate_partitions, per_key_partials, overall_partials")
    again = SourcePartition(TopicPartition(scene.topic, 0), context)
    with pytest.raises(ConfigError, match="the database has 0 records"):
        await again._until_done(again._ensure_open)
    await again.stop(Deadline(5))
    close(context)


@in_a_loop
async def test_starting_at_the_end_of_an_empty_log_misses_nothing(
    make_scene: Callable[..., Scene], tmp_path: Path
) -> None:
    """`startAt: latest` on an empty topic, then records, then a restart before anything was committed: none is skipped."""
    scene = make_scene(partitions=1)
    scene.pipeline["source"]["startAt"] = "latest"
    context, tp = await context_of(scene, tmp_path), TopicPartition(scene.topic, 0)
    context.beginning = {tp: 0}.get
    for expected in (0, EARLIEST):
        owner = Owner(context)
        assert await owner.assigned({tp}) == {tp: expected}
        await owner.revoked({tp}, Deadline(5))
    close(context)
