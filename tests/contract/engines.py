"""The engines that must give the same numbers, each behind one method."""

from __future__ import annotations

import json
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import msgspec
import psycopg
from confluent_kafka.admin import AdminClient

from dlq.encoding import encode_reasons
from tests.contract.same_numbers_log import of_topic
from tests.harness import WorkerProcess, produce, read_topic, running, wait_until
from tests.reference import Record, raw_batch
from tidegate.config.pipeline import Pipeline
from tidegate.ledger import LEDGER_COLUMNS, Ledger
from tidegate.record import TopicPartition
from tidegate.stages.aggregate import finalize, merge_partials
from tidegate.stages.batch import PartitionState
from tidegate.stages.pipeline import StagePipeline
from tidegate.stages.plan import compile_plan
from tidegate.stages.sql import connect, quote

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from tests.providers.kafka import KafkaTopics

Rows = dict[str, dict[tuple[Any, ...], dict[str, Any]]]
"""Aggregation → (window start ms, window end ms, *group) → measure → result."""


@dataclass
class Outcome:
    """What came out. `late`: (partition, offset, whether it counted for other windows); `dead`: (partition, offset) →
    error type. `letters`: the same → id without the topic, stage, and all reasons as JSON. `published`: the newest results on
    Kafka, where an engine writes them, as JSON has them."""

    rows: Rows = field(default_factory=dict)
    late: set[tuple[int, int, bool]] = field(default_factory=set)
    dead: dict[tuple[int, int], str] = field(default_factory=dict)
    letters: dict[tuple[int, int], tuple[str, str, str]] = field(default_factory=dict)
    ledgers: dict[int, Ledger] = field(default_factory=dict)
    published: Rows | None = None


class Engine(ABC):
    """One way of running a pipeline over logs."""

    @abstractmethod
    def run(self, pipeline: dict[str, Any], logs: Sequence[Sequence[Record]]) -> Outcome:
        """Run the pipeline over one log per partition, to the end, until every window is final.

        `pipeline` has neither sinks nor a connection: the engine adds its own, and its own ids and topics.
        """


class StagesEngine(Engine):
    """The stages in this process, each log cut into batches by `cut(rng)`, and the deltas merged at the end."""

    def __init__(self, largest: int, seed: int = 1) -> None:
        self._largest, self._rng = largest, random.Random(seed)

    def run(self, pipeline: dict[str, Any], logs: Sequence[Sequence[Record]]) -> Outcome:
        plan = compile_plan(Pipeline.model_validate(pipeline))
        stages, outcome = StagePipeline(plan), Outcome()
        deltas: dict[str, list[Any]] = {aggregation.name: [] for aggregation in plan.aggregations}
        for number, log in enumerate(logs):
            tp, state, seen, start = (
                TopicPartition(pipeline["source"]["topics"][0], number),
                PartitionState(),
                _Seen(),
                0,
            )
            while start < len(log):
                size = self._rng.randint(1, self._largest)
                result = stages.run(raw_batch(tp, log[start : start + size]), state, seen)
                state, start = result.state, start + size
                seen.update(result.seen)
                outcome.late |= {(number, late.offset, late.partial) for late in result.late}
                for one in result.rejected:
                    place, reasons = (number, one.offset), encode_reasons(one.reasons).decode()
                    outcome.dead[place] = one.reasons[0].error_type
                    outcome.letters[place] = (f"{number}-{one.offset}", one.stage.value, reasons)
                for name, delta in result.deltas.items():
                    deltas[name].append(delta.drop_columns(["lane"]))
            if log:
                outcome.ledgers[number] = state.ledger
        con = connect()
        for aggregation in plan.aggregations:
            table = finalize(aggregation, merge_partials(aggregation, deltas[aggregation.name], con), con)
            keys = ["window_start", "window_end", *(column.name for column in aggregation.group)]
            outcome.rows[aggregation.name] = {
                tuple(row[key] for key in keys): {m.name: row[m.name] for m in aggregation.measures}
                for row in table.to_pylist()
            }
        return outcome


class _Seen(dict[bytes, int]):
    """Dedupe's memory."""

    def get(self, keys: Any, default: Any = None) -> Any:
        return [dict.get(self, key) for key in keys]


_SAID = ("id", "stage", "error.type", "reasons", "origin.partition", "origin.offset")


class BrokerEngine(Engine):
    """An engine over a real broker, with results in PostgreSQL."""

    def __init__(self, kafka: KafkaTopics, postgres: str) -> None:
        self._kafka, self._postgres = kafka, postgres

    def _document(self, pipeline: dict[str, Any], logs: Sequence[Sequence[Record]]) -> dict[str, Any]:
        """The pipeline on topics of its own that hold the logs."""
        topic = self._kafka.topic(partitions=len(logs), config={"retention.ms": "-1"})
        self._produce(topic, logs)
        document = deepcopy(pipeline) | {
            "pipelineId": f"same-{uuid4().hex[:8]}",
            "kafka": {"bootstrapServers": self._kafka.bootstrap_servers, "sessionTimeout": "6 s"},
            "sinks": [{"type": "postgres", "url": self._postgres}],
        }
        document["source"] |= {"topics": [topic]}
        return document

    def _produce(self, topic: str, logs: Sequence[Sequence[Record]]) -> None:
        for partition, log in enumerate(of_topic(logs, topic)):
            records = (
                {
                    "key": r.key,
                    "value": r.value,
                    "timestamp": r.timestamp,
                    "headers": list(r.headers),
                    "partition": partition,
                }
                for r in log
            )
            placed = produce(self._kafka.bootstrap_servers, topic, records)
            assert placed == [(partition, r.offset) for r in log]

    def _outcome(self, document: dict[str, Any]) -> Outcome:
        outcome = Outcome()
        for aggregation in document["aggregations"]:
            name, group, measures = aggregation["name"], aggregation["groupBy"], list(aggregation["measures"])
            columns = ["window_start", "window_end", *group, *measures]
            found = self._query(f"SELECT {', '.join(map(quote, columns))} FROM {name}")
            outcome.rows[name] = {
                (_ms(row[0]), _ms(row[1]), *row[2 : 2 + len(group)]): dict(
                    zip(measures, row[2 + len(group) :], strict=True)
                )
                for row in found
            }
        for row in self._query(
            f"SELECT partition, {', '.join(LEDGER_COLUMNS)} FROM tidegate_partitions WHERE read > 0"
        ):
            outcome.ledgers[row[0]] = Ledger(*row[1:])
        topic, servers = document["source"]["topics"][0], self._kafka.bootstrap_servers
        late = [
            message.header("tidegate.late.id") or ""
            for message in read_topic(servers, f"{document['pipelineId']}.late")
        ]
        assert len(set(late)) == len(late), "a late record was written twice"
        for found_id in late:
            partition, offset, *stage = found_id.removeprefix(f"{topic}-").split("-")
            outcome.late.add((int(partition), int(offset), bool(stage)))
        letters = read_topic(servers, f"{document['pipelineId']}.dlq")
        for letter in letters:
            said = {name: letter.header(f"tidegate.dlq.{name}") or "" for name in _SAID}
            place = int(said["origin.partition"] or -1), int(said["origin.offset"] or -1)
            outcome.dead[place] = said["error.type"]
            outcome.letters[place] = (said["id"].removeprefix(f"{topic}-"), said["stage"], said["reasons"])
        assert len(outcome.dead) == len(letters), "a dead letter was written twice"
        return outcome

    def _query(self, sql: str) -> list[Any]:
        with psycopg.connect(self._postgres) as connection:
            return connection.execute(sql).fetchall()

    def _delete(self, prefix: str) -> None:
        admin = AdminClient({"bootstrap.servers": self._kafka.bootstrap_servers})
        mine = [topic for topic in admin.list_topics(timeout=10).topics if topic.startswith(prefix)]
        for done in admin.delete_topics(mine).values() if mine else ():
            done.exception(30)


class SparkEngine(BrokerEngine):
    """`tidegate batch run` in this process, on the test run's Spark session."""

    def __init__(self, kafka: KafkaTopics, postgres: str, spark: SparkSession, *, trigger: str, most: int) -> None:
        super().__init__(kafka, postgres)
        self._spark, self._trigger, self._most = spark, trigger, most

    def run(self, pipeline: dict[str, Any], logs: Sequence[Sequence[Record]]) -> Outcome:
        from tests.providers.spark import run_batch

        # Executors take a micro-batch in chunks of this many records.
        document = self._document(pipeline, logs) | {"worker": {"maxBatchRecords": 700}}
        try:
            report = run_batch(self._spark, document, trigger=self._trigger, max_records=self._most)
            assert report.total.read == sum(map(len, logs))
            return self._outcome(document)
        finally:
            self._delete(document["pipelineId"])


class WorkerEngine(BrokerEngine):
    """Real worker processes, results on Kafka too."""

    def __init__(self, kafka: KafkaTopics, postgres: str, directory: Path, *, batch: int, workers: int) -> None:
        super().__init__(kafka, postgres)
        self._directory, self._batch, self._workers = directory, batch, workers

    def run(self, pipeline: dict[str, Any], logs: Sequence[Sequence[Record]]) -> Outcome:
        document = self._document(pipeline, logs) | {"worker": {"maxBatchRecords": self._batch}}
        document["sinks"] = [{"type": "kafka"}, *document["sinks"]]
        workers = [WorkerProcess(document, self._directory, f"worker{n}") for n in range(self._workers)]
        names = [aggregation["name"] for aggregation in document["aggregations"]]
        try:
            with running(*workers):
                self._wait(document, names, sum(map(len, logs)), workers)
                outcome = self._outcome(document)
                outcome.published = self._published(document)
                codes = [worker.stop() for worker in workers]
                assert not any(codes), f"exit codes {codes}\n" + "\n\n".join(worker.tail() for worker in workers)
        finally:
            self._delete(document["pipelineId"])
        return outcome

    def _wait(self, document: dict[str, Any], names: list[str], total: int, workers: list[WorkerProcess]) -> None:
        """Until every record is accounted for, and every result is final in the database and on Kafka."""

        def answers(sql: str) -> Any:
            return connection.execute(sql).fetchall()[0][0]  # type: ignore[call-overload]  # the SQL is built here: no literal string

        def done() -> bool:
            assert all(worker.running for worker in workers), workers[0].tail()
            try:
                if answers("SELECT coalesce(sum(read), 0) FROM tidegate_partitions") < total:
                    return False
                return all(answers(f"SELECT bool_and(final) FROM {name}") for name in names)
            except psycopg.errors.UndefinedTable:
                return False

        def published() -> bool:
            return all(row["final"] for name in names for row in self._newest(document, name).values())

        with psycopg.connect(self._postgres, autocommit=True, prepare_threshold=None) as connection:
            wait_until(done, 120, "all applied and final")
        wait_until(published, 30, "all final on Kafka")

    def _published(self, document: dict[str, Any]) -> Rows:
        published: Rows = {}
        for aggregation in document["aggregations"]:
            name, group = aggregation["name"], aggregation["groupBy"]
            published[name] = {
                (_ms(row["window"]["start"]), _ms(row["window"]["end"]), *(row["group"][g] for g in group)): row[
                    "values"
                ]
                for row in self._newest(document, name).values()
            }
        return published

    def _newest(self, document: dict[str, Any], name: str) -> dict[bytes | None, Any]:
        """Per key the result with the largest revision, with numbers that have a point as Decimal."""
        newest: dict[bytes | None, Any] = {}
        for message in read_topic(self._kafka.bootstrap_servers, f"{document['pipelineId']}.{name}"):
            row = _exact_json(message.value or b"")
            if message.key not in newest or newest[message.key]["revision"] <= row["revision"]:
                newest[message.key] = row
        return newest


def _exact_json(value: bytes) -> Any:
    msgspec.json.decode(value)  # strict: what this takes, every reader takes
    return json.loads(value, parse_float=Decimal)


def _ms(moment: Any) -> int:
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    milliseconds: int = round(moment.timestamp() * 1000)
    return milliseconds
