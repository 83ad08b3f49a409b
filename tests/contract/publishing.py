"""A batch run without Spark: records through the stages into a real store, and from there to its sinks. And a worker without
Kafka, to compare it with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from batch.claims import Claims
from batch.publish.publisher import Follower, Publisher
from tests.reference import Record, raw_batch
from tests.unit.worker.pieces import COUNTS, SIZE, Partition, plan_of
from tidegate.config.sinks import PostgresSink
from tidegate.errors import BrokerUnavailable
from tidegate.record import TopicPartition
from tidegate.resilience.guard import Guard
from tidegate.stages.batch import NothingSeen
from tidegate.stages.pipeline import StagePipeline
from tidegate.stages.plan import AggregationPlan, Plan
from tidegate.store import open_store
from tidegate.store.published import Published
from worker.merge import MergeStages
from worker.statedb import PartitionDB

SOURCES = [TopicPartition("flights", 0), TopicPartition("flights", 1)]


def published_plan(
    url: str,
    pipeline: str = "p",
    kafka: str = "localhost:1",
    *,
    handling: Mapping[str, Any] | None = None,
    others: Sequence[Mapping[str, Any]] = (),
    **settings: Any,
) -> Plan:
    """Aggregation `totals` by the record's key, so that no group spreads, and `colours`, whose groups do. `settings`: of the
    Kafka sink; `others`: sinks behind it."""
    measures = {"n": "count", "total": {"type": "sum", "of": "amount"}}
    totals = {"name": "totals", "window": {"size": f"{SIZE} ms"}, "groupBy": ["k"], "measures": measures}
    return plan_of(
        pipelineId=pipeline,
        kafka={"bootstrapServers": kafka},
        aggregations=[totals, totals | {"name": "colours", "groupBy": ["colour"]}],
        sinks=[{"type": "postgres", "url": url}, {"type": "kafka", **settings}, *others],
        errorHandling=handling or {"retry": {"maxAttempts": 1}},
    )


@dataclass
class Recorded:
    """A target that remembers: (aggregation, version, results, complete). `fails`: how many writes fail first."""

    name: str
    fails: int = 0
    given: list[tuple[str, int, pa.Table, bool]] = field(default_factory=list)

    def write(self, aggregation: AggregationPlan, version: int, results: pa.Table, *, complete: bool) -> None:
        if self.fails:
            self.fails -= 1
            raise BrokerUnavailable("away")
        self.given.append((aggregation.name, version, results, complete))

    def close(self) -> None: ...


class Run:
    """A run of one owner over the store of a plan."""

    def __init__(self, plan: Plan, owner: str = "run") -> None:
        self.plan, self.stages = plan, StagePipeline(plan)
        sink = plan.pipeline.sinks[0]
        assert isinstance(sink, PostgresSink)
        self.store, self.published = open_store(plan, sink), Published(plan, sink)
        self.store.prepare()
        self.published.prepare()
        self.guard = Guard("store", plan.pipeline.error_handling)
        self.claims = Claims(plan, self.store, self.guard, owner, {})
        self.claims.claim(SOURCES)
        self.told: list[tuple[str, Mapping[str, int]]] = []

    def publisher(self, *followers: Follower) -> Publisher:
        told = self.told
        return Publisher(self.plan, self.published, self.guard, self.claims, followers, lambda *what: told.append(what))

    def follower(self, target: Any, sink: int = 1) -> Follower:
        return Follower.of(target, self.plan.pipeline.sinks[sink], self.plan.pipeline)  # type: ignore[arg-type]  # the sinks of these plans after the first follow it

    def commit(self, **records: Sequence[Record]) -> dict[str, pa.Table]:
        """One micro-batch: `p0` and `p1`, records of either partition. What it has touched."""
        batches, touched = [], dict[str, list[pa.Table]]()
        for name, given in records.items():
            tp = SOURCES[int(name[1])]
            result = self.stages.run(raw_batch(tp, given), self.claims.states[tp], NothingSeen())
            batches.append(self.claims.batch(tp, result.state, deltas=result.deltas))
            for aggregation in self.plan.aggregations:
                keys = ["window_start", "window_end", *(column.name for column in aggregation.group)]
                touched.setdefault(aggregation.name, []).append(result.deltas[aggregation.name].select(keys))
        self.claims.write(batches)
        return {name: pa.concat_tables(tables) for name, tables in touched.items()}

    def close(self) -> None:
        self.store.close()
        self.published.close()


class Workers:
    """Two source partitions and the merge agents of a worker, over real local states."""

    def __init__(self, plan: Plan, path: Path) -> None:
        self.plan = plan
        name = plan.pipeline.pipeline_id
        counts = {**COUNTS, f"{name}..partials": 2}
        self.sources = [Partition(plan, path / str(tp), tp, counts=counts) for tp in SOURCES]
        self.sent: list[tuple[str, int, Any, Any]] = []
        self.dbs = [PartitionDB(path / f"merge-{number}") for number in range(2)]

    def newest(self, name: str) -> dict[str, tuple[int, Any]]:
        """Key → partition and document, of the result with the largest revision; of equal ones the last."""
        topic, found = f"{self.plan.pipeline.pipeline_id}.{name}", dict[str, tuple[int, Any]]()
        for to, partition, key, value in self.sent:
            if to == topic:
                row = json.loads(value)
                if found.get(key.decode(), (0, row))[1]["revision"] <= row["revision"]:
                    found[key.decode()] = partition, row
        return found

    def merge(self) -> None:
        """Let the merge agents read what the sources have sent."""
        self.sent = [one for source in self.sources for one in source.sent_to]
        topic = f"{self.plan.pipeline.pipeline_id}..partials"
        for number, db in enumerate(self.dbs):
            log = [_Wire(o, *row[2:]) for o, row in enumerate(one for one in self.sent if one[:2] == (topic, number))]
            stages = MergeStages(self.plan, TopicPartition(topic, number), db, lambda: SOURCES)
            state, closed = stages.load()
            for wire in log:
                step = stages.batch([wire], state, closed)
                state, closed = step.state, step.closed_upto
                step.effects.apply(db, wire.offset + 1)
                for rows in step.effects.topics:
                    self.sent += [(rows.topic, rows.partition, key, value) for key, value, _, _ in rows]

    def close(self) -> None:
        for db in (*self.dbs, *(source.db for source in self.sources)):
            db.close()


class _Wire:
    def __init__(self, offset: int, key: bytes, value: bytes | None) -> None:
        self.offset, self.key, self.value = offset, key, value
