"""Records read in this process as a worker reads them, into a real database and a real late topic; and what comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import deepcopy
from decimal import Decimal
from typing import Any
from uuid import uuid4

import psycopg
from confluent_kafka.admin import AdminClient

from batch.backfill.late import LateBackfill
from batch.backfill.late_report import LateReport
from batch.producer import ConfirmedProducer
from dlq.late import late_records
from dlq.publishers import open_publisher
from tests.contract.engines import Rows, _ms, _Seen
from tests.contract.same_numbers_log import MEASURES, PIPELINE, of_topic
from tests.harness import produce
from tests.providers.kafka import KafkaTopics
from tests.reference import Record, raw_batch
from tidegate.clock import SystemClock
from tidegate.config.kafka import confluent_options
from tidegate.config.pipeline import Pipeline
from tidegate.config.sinks import PostgresSink, SqliteSink
from tidegate.config.topics import dead_letter_topic, late_topic
from tidegate.record import TopicPartition
from tidegate.stages.pipeline import StagePipeline
from tidegate.stages.plan import compile_plan
from tidegate.stages.sql import quote
from tidegate.store import open_store
from tidegate.store.base import StoreBatch
from tidegate.topics import FOREVER_KEPT, TopicSpec, ensure_topics


class Told:
    """A watch that remembers the phases, and may do something in between: `on_phase(what)`, `on_advance(count)`."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.on_phase: Callable[[str], None] = lambda what: None
        self.on_advance: Callable[[int], None] = lambda count: None

    def phase(self, what: str, total: int | None = None) -> None:
        self.phases.append(what)
        self.on_phase(what)

    def advance(self, count: int) -> None:
        self.on_advance(count)


class LateScene:
    """One pipeline over logs. `url`: a PostgreSQL's, or the path of a SQLite file. `settings` go over the pipeline file's."""

    def __init__(self, kafka: KafkaTopics, url: str, logs: Sequence[Sequence[Record]], **settings: Any) -> None:
        self.servers, self.url = kafka.bootstrap_servers, url
        topic = kafka.topic(partitions=len(logs), config={"retention.ms": "-1"})
        self.logs = of_topic(logs, topic)
        for number, log in enumerate(self.logs):
            records = (r._asdict() | {"headers": list(r.headers), "partition": number} for r in log)
            produce(self.servers, topic, ({k: v for k, v in r.items() if k != "offset"} for r in records))
        self.tps = [TopicPartition(topic, number) for number in range(len(logs))]
        sink = {"type": "postgres", "url": url} if "://" in url else {"type": "sqlite", "path": url}
        self.document: dict[str, Any] = deepcopy(PIPELINE) | {
            "pipelineId": f"late-{uuid4().hex[:8]}",
            "kafka": {"bootstrapServers": self.servers},
            "sinks": [sink],
            **settings,
        }
        self.document["source"] = {**self.document["source"], "topics": [topic]}
        self.pipeline = Pipeline.model_validate(self.document)
        self.plan = compile_plan(self.pipeline)
        (self.sink,) = self.pipeline.sinks
        assert isinstance(self.sink, PostgresSink | SqliteSink)
        self.store = open_store(self.plan, self.sink)
        self.store.prepare()
        self.rows_of = self.store.claim(self.tps, "reader")
        names = [name for name in (late_topic(self.pipeline), dead_letter_topic(self.pipeline)) if name is not None]
        specs = [TopicSpec(name, 1, FOREVER_KEPT) for name in names]
        asyncio.run(ensure_topics(confluent_options(self.pipeline.kafka), specs))
        self.producer = ConfirmedProducer(confluent_options(self.pipeline.kafka))
        self.publisher = open_publisher(self.plan)
        self.stages = StagePipeline(self.plan)
        self.states = {tp: row.state for tp, row in self.rows_of.items()}
        self.seen = {tp: _Seen() for tp in self.tps}
        self.told = Told()

    def read(self, share: float = 1.0, *, batch: int = 300, again: bool = False) -> None:
        """Each partition up to this share of its log. `again`: late records are written twice."""
        for tp, log in zip(self.tps, self.logs, strict=True):
            rest = [r for r in log[: int(len(log) * share)] if r.offset > self.states[tp].upto]
            for start in range(0, len(rest), batch):
                self._take(tp, rest[start : start + batch], times=1 + again)

    def _take(self, tp: TopicPartition, records: Sequence[Record], times: int) -> None:
        before = self.states[tp]
        result = self.stages.run(raw_batch(tp, records), before, self.seen[tp])
        late = late_records(result, self.plan, SystemClock(), partitions=1)
        for _ in range(times):
            self.producer.write([*late.rows, *self.publisher.rows(late.letters, tp, 1)])
        self.store.write(
            StoreBatch(tp, self.rows_of[tp].epoch, before.upto, result.state, result.deltas, result.late_windows)
        )
        self.states[tp] = result.state
        self.seen[tp].update(result.seen)

    def backfill(self, **options: Any) -> LateReport:
        """Another process's `tidegate batch backfill --late`."""
        self.told.phases.clear()
        running = LateBackfill(self.pipeline, self.told, **options)
        return running.run()

    def query(self, sql: str) -> list[Any]:
        if "://" in self.url:
            with psycopg.connect(self.url) as connection:
                return connection.execute(sql.encode()).fetchall()
        from pathlib import Path

        from tidegate.store.sqlite import connect_file

        engine = connect_file(Path(self.url), timeout=5_000)
        try:
            with engine.connect() as connection:
                return [tuple(row) for row in connection.exec_driver_sql(sql)]
        finally:
            engine.dispose()

    def results(self) -> Rows:
        """From the views that people read."""
        rows: Rows = {}
        for aggregation in self.document["aggregations"]:
            name, group, measures = aggregation["name"], aggregation["groupBy"], list(aggregation["measures"])
            columns = ", ".join(map(quote, ["window_start", "window_end", *group, *measures]))
            rows[name] = {
                (_ms(row[0]), _ms(row[1]), *row[2 : 2 + len(group)]): {
                    measure: self._value(measure, value)
                    for measure, value in zip(measures, row[2 + len(group) :], strict=True)
                }
                for row in self.query(f"SELECT {columns} FROM {name}")
            }
        return rows

    def _value(self, measure: str, value: Any) -> Any:
        """SQLite has neither decimals nor moments nor booleans."""
        kind, of = MEASURES[measure]
        if value is None or "://" in self.url or kind in ("count", "approxDistinct", "avg"):
            return value
        if of == "seen":
            return value // 1000
        if of == "ok":
            return bool(value)
        return Decimal(value) if of in ("fare", "amount", "total") else value

    def counts(self) -> tuple[int, int, int]:
        """missing, refused and amended of all windows."""
        sums = ", ".join(f"coalesce(sum({name}), 0)" for name in ("missing", "refused", "amended"))
        return tuple(map(int, self.query(f"SELECT {sums} FROM tidegate_late_windows")[0]))  # type: ignore[return-value]  # as many as the query has columns

    def everything(self) -> list[Any]:
        """All that is in the tables."""
        names = ["tidegate_partitions", "tidegate_late_windows", "tidegate_amended"]
        names += [
            f"{aggregation.name}_{kind}" for aggregation in self.plan.aggregations for kind in ("partials", "estimates")
        ]
        return [sorted(map(repr, self.query(f"SELECT * FROM {name}"))) for name in names]

    def close(self) -> None:
        self.stages.close()
        self.store.close()
        admin = AdminClient({"bootstrap.servers": self.servers})
        mine = [name for name in admin.list_topics(timeout=10).topics if name.startswith(self.pipeline.pipeline_id)]
        with suppress(Exception):
            for done in admin.delete_topics(mine).values() if mine else ():
                done.exception(30)
