"""From the store to the sinks that follow it: nothing is lost whatever stops a run, and Kafka gets what a worker would write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pyarrow as pa
import pytest
from confluent_kafka.admin import AdminClient

from batch.publish.kafka import KafkaTarget, open_kafka
from tests.contract.publishing import SOURCES, Recorded, Run, Workers, published_plan
from tests.harness import read_topic
from tests.reference import Record, raw_batch
from tests.unit.worker.pieces import SIZE, record
from tidegate.config.sinks import KafkaSink
from tidegate.config.topic_settings import STATE
from tidegate.errors import BrokerUnavailable, CircuitOpen, StoreUnavailable
from tidegate.stages.batch import NothingSeen, PartitionState
from tidegate.stages.plan import Plan
from tidegate.store.base import Amendment

if TYPE_CHECKING:
    from tests.providers.kafka import KafkaTopics
    from tests.providers.postgres import Database

pytestmark = [pytest.mark.postgres, pytest.mark.slow]
Start = Callable[..., Run]


@pytest.fixture
def start() -> Iterator[Start]:
    runs: list[Run] = []

    def start_(plan: Plan, owner: str = "run") -> Run:
        runs.append(Run(plan, owner))
        return runs[-1]

    yield start_
    for run in runs:
        run.close()


def test_each_sink_follows_at_its_own_pace(start: Start, postgres: Database) -> None:
    """One that fails holds the run up, and has what it lacks at the next try; the one before it is not given anything twice."""
    run = start(published_plan(postgres.url))
    first, second = Recorded("first"), Recorded("second", fails=1)
    publisher = run.publisher(run.follower(first), run.follower(second))
    publisher.catch_up()
    touched = run.commit(p0=[record(0, 1000, "a", colour="red")])
    with pytest.raises(BrokerUnavailable, match="away"):
        publisher.follow(touched)
    publisher.catch_up()
    publisher.follow(run.commit(p1=[record(0, 1000, "b", colour="red")]))
    for target in (first, second):
        assert [(name, version) for name, version, *_ in target.given] == [
            ("totals", 1), ("colours", 1), ("totals", 2), ("colours", 2),
        ]  # fmt: skip
        assert [table["records"].to_pylist() for *_, table, _ in target.given] == [[1], [1], [1], [2]]
    assert run.told == [
        ("first", {"totals": 1, "colours": 1}),
        ("second", {"totals": 1, "colours": 1}),
        ("first", {"totals": 1, "colours": 1}),
        ("second", {"totals": 1, "colours": 1}),
    ]


def test_retry_and_breaker_are_each_sinks_own(start: Start, postgres: Database) -> None:
    """A short outage is got over within one publication, whichever sink it is of; a long one opens that sink's breaker alone,
    and the sink is not called any more."""
    handling = {"retry": {"maxAttempts": 3, "initialDelayMs": 1}, "circuitBreaker": {"failureThreshold": 3}}
    lakes = [{"type": kind, "path": f"/nowhere/{kind}"} for kind in ("delta", "parquet")]
    run = start(published_plan(postgres.url, handling=handling, others=lakes))
    targets = [Recorded(name) for name in ("kafka", "delta", "parquet")]
    followers = [run.follower(target, sink) for sink, target in enumerate(targets, 1)]
    publisher = run.publisher(*followers)
    publisher.catch_up()
    for number, target in enumerate(targets):
        target.fails = 2
        publisher.follow(run.commit(p0=[record(number, 1000, "a", colour="red")]))
    assert [(len(target.given), target.fails) for target in targets] == [(6, 0)] * 3
    targets[2].fails = 100
    touched = run.commit(p0=[record(3, 1000, "a", colour="red")])
    with pytest.raises(BrokerUnavailable, match="away"):
        publisher.follow(touched)
    with pytest.raises(CircuitOpen):
        publisher.catch_up()
    assert [(len(target.given), target.fails) for target in targets] == [(8, 0), (8, 0), (6, 97)]
    assert [follower.guard.breaker.state for follower in followers] == ["closed", "closed", "open"]


def test_a_micro_batch_is_not_all_that_there_is(start: Start, postgres: Database) -> None:
    """Late records that were brought in meanwhile, and a micro-batch before it that no sink has heard of, are published too."""
    run, target = start(published_plan(postgres.url)), Recorded("kafka")
    publisher, plan = run.publisher(run.follower(target)), run.published.plan
    publisher.catch_up()
    publisher.follow(run.commit(p0=[record(4, 1000, "a")]))
    late = run.stages.run(raw_batch(SOURCES[0], [record(2, 1000, "late")]), PartitionState(), NothingSeen()).deltas
    lanes = {name: table.set_column(2, "lane", pa.array(["late"])) for name, table in late.items()}
    run.store.amend(Amendment(SOURCES[0], "backfill", -1, 4, lanes, {}))
    publisher.follow(run.commit(p1=[record(0, 1000, "b")]))
    assert sorted(target.given[-2][2]["k"].to_pylist()) == ["b", "late"]
    run.published.plan = _away  # type: ignore[method-assign]  # stands for a database that is away
    with pytest.raises(StoreUnavailable):
        publisher.follow(run.commit(p1=[record(1, 1000, "c")]))
    run.published.plan = plan  # type: ignore[method-assign]  # it is back
    publisher.follow(run.commit(p1=[record(2, 1000, "d")]))
    assert sorted(target.given[-2][2]["k"].to_pylist()) == ["c", "d"]


def test_what_is_in_the_store_alone_is_published_first(start: Start, postgres: Database) -> None:
    """A run that was killed after its commit, or a worker that came between, loses no sink anything: also where it was killed
    between the sink and the store's row, when the sink gets the same version again."""
    plan = published_plan(postgres.url)
    killed, target = start(plan), Recorded("kafka")
    killed.commit(p0=[record(0, 1000, "a", colour="red")], p1=[record(0, 1000, "b", colour="red")])
    written = killed.published.plan("kafka", killed.claims.epochs)
    assert written is not None
    killed.commit(p1=[record(1, 2000, "b", colour="red")])
    run = start(plan, "another")
    publisher = run.publisher(run.follower(target))
    publisher.catch_up()
    colours = [(version, table["records"].to_pylist()) for name, version, table, _ in target.given if name == "colours"]
    assert colours == [(written.version, [3]), (written.version + 1, [3])]
    target.given.clear()
    publisher.catch_up()
    publisher.follow({})
    assert target.given == []


@pytest.mark.parametrize(("mode", "rows"), [("update", [1, 1, 3]), ("append", [2]), ("complete", [1, 2, 3])])
def test_output_modes(start: Start, postgres: Database, mode: str, rows: list[int]) -> None:
    """What each of three micro-batches gives a sink, the last of which closes the first two windows' own."""
    run, target = start(published_plan(postgres.url, outputMode=mode)), Recorded("kafka")
    publisher = run.publisher(run.follower(target))
    publisher.catch_up()
    end = [record(1, SIZE + 1000, "z")]
    publisher.follow(run.commit(p0=[record(0, 1000, "a")]))
    publisher.follow(run.commit(p1=[record(0, 1000, "b")]))
    publisher.follow(run.commit(p0=[record(1, SIZE + 1000, "z")], p1=end))
    given = [(table, complete) for name, _, table, complete in target.given if name == "totals"]
    assert [table.num_rows for table, _ in given] == rows
    assert {complete for _, complete in given} == {mode == "complete"}
    final = [row["k"] for row in given[-1][0].to_pylist() if row["final"]]
    assert sorted(final) == ["a", "b"]


# Kafka.


@pytest.fixture
def plan(kafka: KafkaTopics, postgres: Database) -> Iterator[Callable[..., Plan]]:
    """Plans of one pipeline, whose topics are deleted afterwards."""
    name = f"publish-{uuid4().hex[:8]}"
    kafka.topic(2, STATE, name=f"{name}..partials")  # as a worker made it, before the source grew
    yield lambda **settings: published_plan(postgres.url, name, kafka.bootstrap_servers, **settings)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})
    made = [topic for topic in admin.list_topics(timeout=10).topics if topic.startswith(f"{name}.")]
    for done in admin.delete_topics(made).values():
        done.exception(30)


def target_of(plan: Plan) -> KafkaTarget:
    sink = plan.pipeline.sinks[1]
    assert isinstance(sink, KafkaSink)
    return open_kafka(plan, sink, {"flights": 3})


def on_kafka(plan: Plan, name: str) -> dict[str, tuple[int, Any]]:
    """Key → partition and document, of the result with the largest revision; of equal ones the last."""
    newest: dict[str, tuple[int, Any]] = {}
    topic = f"{plan.pipeline.pipeline_id}.{name}"
    for message in read_topic(plan.pipeline.kafka.bootstrap_servers, topic):
        key, row = (message.key or b"").decode(), message.json
        if key not in newest or newest[key][1]["revision"] <= row["revision"]:
            newest[key] = message.partition, row
    return newest


def batches(random: Random) -> Iterator[dict[str, list[Record]]]:
    """Micro-batches of records of both partitions in two lanes, over some windows; the last one closes all but the last."""
    offsets = [0, 0]
    for _ in range(6):
        batch: dict[str, list[Record]] = {}
        for number in (0, 1):
            rows = []
            for _ in range(random.randint(1, 12)):
                key, colour = f"{number}{random.choice('abc')}", random.choice(["red", "grün", None])
                seen, replay = random.randrange(3 * SIZE), random.random() < 0.2
                rows.append(
                    record(offsets[number], seen, key, replay=replay, colour=colour, amount=random.randint(-5, 99))
                )
                offsets[number] += 1
            batch[f"p{number}"] = rows
        yield batch
    yield {f"p{number}": [record(offsets[number], 4 * SIZE, f"{number}a", colour="red")] for number in (0, 1)}


@pytest.mark.kafka
def test_kafka_gets_what_a_worker_writes(
    start: Start, plan: Callable[..., Plan], tmp_path: Path, request: pytest.FixtureRequest, seed: int
) -> None:
    """The newest result of every window and group has the same key, partition, values, records, `upto`, revision and `final`,
    whichever engine was given the same batches, in two lanes, with groups that spread and groups that do not."""
    made = plan()
    run, target = start(made), target_of(made)
    workers = Workers(made, tmp_path)
    request.addfinalizer(workers.close)
    publisher = run.publisher(run.follower(target))
    publisher.catch_up()
    for batch in batches(Random(seed)):
        publisher.follow(run.commit(**batch))
        for number, source in enumerate(workers.sources):
            source.take(*batch[f"p{number}"])
    workers.merge()
    for name in ("totals", "colours"):
        found = on_kafka(made, name)
        assert found == workers.newest(name)
        assert len(found) > 5
        assert {row["final"] for _, row in found.values()} == {True, False}


@pytest.mark.kafka
def test_kafka_has_the_view_after_whatever_stopped_a_run(
    start: Start, plan: Callable[..., Plan], postgres: Database, seed: int
) -> None:
    """A run that dies after each commit, before its sink was told or before the store knew of it: the next one makes up for
    it, and the newest results on Kafka are the view's."""
    made, random = plan(), Random(seed)
    target = target_of(made)
    for number, batch in enumerate(batches(random)):
        run = start(made, f"run {number}")
        publisher = run.publisher(run.follower(target))
        if number % 3:
            publisher.catch_up()
        touched = run.commit(**batch)
        if number % 3 == 2:
            run.published.done = _die  # type: ignore[method-assign]  # stands for a kill
            with pytest.raises(KeyboardInterrupt):
                publisher.follow(touched)
    last = start(made, "the last")
    last.publisher(last.follower(target)).catch_up()
    for name, group in (("totals", "k"), ("colours", "colour")):
        with psycopg.connect(postgres.url) as connection:
            rows = connection.execute(
                f"SELECT {group}, n, total, records, revision, final FROM {name}".encode()
            ).fetchall()
        found = [
            (
                row["group"][group],
                row["values"]["n"],
                row["values"]["total"],
                row["records"],
                row["revision"],
                row["final"],
            )
            for _, row in on_kafka(made, name).values()
        ]
        assert sorted(found, key=repr) == sorted(rows, key=repr)


@pytest.mark.kafka
def test_what_a_promotion_has_taken_away(start: Start, plan: Callable[..., Plan]) -> None:
    """Its key comes once more without a value, in the partition where its results are, so that compaction forgets it; of groups
    that spread, too."""
    made = plan()
    run, target, given = start(made), target_of(made), Recorded("other")
    run.commit(p1=[record(0, 1000, "a", colour="red")])
    run.publisher(run.follower(given), run.follower(target)).catch_up()
    for name, version, table, _ in given.given:
        aggregation = next(one for one in made.aggregations if one.name == name)
        index = table.schema.get_field_index("records")
        gone = table.set_column(index, "records", pa.array([0], pa.int64()))
        target.write(aggregation, version + 1, gone, complete=False)
        topic = f"{made.pipeline.pipeline_id}.{name}"
        first, last = read_topic(made.pipeline.kafka.bootstrap_servers, topic)
        assert (first.key, first.partition) == (last.key, last.partition)
        assert (first.value is None, last.value) == (False, None)


@pytest.mark.kafka
def test_append_sends_final_results_only(start: Start, plan: Callable[..., Plan], seed: int) -> None:
    """None of a window that is open; each once, and each correction, which replays bring. (The topic is made.)"""
    made = plan(outputMode="append")
    run, target = start(made), target_of(made)
    publisher = run.publisher(run.follower(target))
    publisher.catch_up()
    for batch in batches(Random(seed)):
        publisher.follow(run.commit(**batch))
    messages = read_topic(made.pipeline.kafka.bootstrap_servers, f"{made.pipeline.pipeline_id}.totals")
    assert all(message.json["final"] for message in messages)
    assert len({(message.key, message.json["revision"]) for message in messages}) == len(messages) > 5


def _away(*_: object, **__: object) -> None:
    raise StoreUnavailable("away")


def _die(*_: object) -> None:
    raise KeyboardInterrupt
