"""One log with every fault there is, one answer: whatever the engine, the batch sizes and the number of workers."""

from __future__ import annotations

import math
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.engines import Engine, Outcome, Rows, SparkEngine, StagesEngine, WorkerEngine
from tests.contract.same_numbers_log import MEASURES, PIPELINE, TOPIC, Meant, Truth, make_log
from tests.reference import Record, Reference
from tidegate.config.pipeline import Pipeline

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from tests.providers.kafka import KafkaTopics
    from tests.providers.postgres import Database

pytestmark = pytest.mark.slow


@cache
def log_of(records: int) -> tuple[list[list[Record]], list[Meant], Truth]:
    logs, meant = make_log(records)
    return logs, meant, Truth(meant)


@cache
def letters_of(records: int) -> dict[tuple[int, int], tuple[str, str, str]]:
    """Ids, stages and reasons of its dead letters, from large batches."""
    return StagesEngine(20_000).run(PIPELINE, log_of(records)[0]).letters


class SameNumbers:
    """What an engine must give. A second engine subclasses this with an `engine` of its own."""

    def check(self, engine: Engine, records: int) -> None:
        """Results, late records, dead letters and ledgers are those of plain SQL; a dead letter's id, stage and reasons in full
        those of any other engine."""
        logs, _, truth = log_of(records)
        outcome = engine.run(PIPELINE, logs)
        assert outcome.dead == truth.dead()
        assert outcome.letters == letters_of(records)
        assert outcome.late == truth.late()
        ledgers = {partition: _counted(ledger) for partition, ledger in outcome.ledgers.items()}
        assert ledgers == truth.ledgers()
        assert all(ledger.balanced for ledger in outcome.ledgers.values())
        for found in (outcome.rows, outcome.published):
            if found is not None:
                same_rows(found, {name: truth.rows(name) for name in found})


def _counted(ledger: Any) -> dict[str, int]:
    assert (ledger.filtered, ledger.deferred) == (0, 0)
    names = ("read", "accepted", "dead_lettered", "late", "duplicate", "skipped", "replayed")
    return {name: getattr(ledger, name) for name in names}


def same_rows(found: Rows, expected: Rows) -> None:
    """Integers, decimals, texts and moments exactly, doubles to 1e-9."""
    for name, rows in expected.items():
        assert found[name].keys() == rows.keys(), name
        wrong = [
            (name, key, measure, value, found[name][key][measure])
            for key, values in rows.items()
            for measure, value in values.items()
            if not _same(measure, value, found[name][key][measure])
        ]
        assert not wrong, f"{len(wrong)} differ (expected, found), such as {wrong[:3]}"


def _same(measure: str, expected: Any, found: Any) -> bool:
    kind, of = MEASURES[measure]
    if expected is None or found is None:
        return expected is found
    if kind == "avg" or (of == "price" and kind != "count"):
        return math.isclose(float(expected), float(found), rel_tol=1e-9, abs_tol=1e-6 if of == "price" else 0.0)
    if of == "seen":
        return int(expected) == _milliseconds(found)
    if isinstance(expected, Decimal):
        return not isinstance(found, float) and Decimal(found) == expected
    if isinstance(expected, date):
        return str(expected) == str(found)
    return bool(expected == found) and isinstance(found, bool) == isinstance(expected, bool)


def _milliseconds(moment: Any) -> int:
    if isinstance(moment, int):  # the model has no other
        return moment
    moment = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    milliseconds: int = round((moment.replace(tzinfo=None) - datetime(1970, 1, 1)).total_seconds() * 1000)  # noqa: DTZ001  # compared with a moment that has lost its zone, too
    return milliseconds


class TestStages(SameNumbers):
    @pytest.mark.parametrize("largest", [1, 7, 500, 8192])
    def test_any_cut_of_the_logs_gives_the_truth(self, largest: int) -> None:
        """The stages alone, over batches of random sizes up to a largest one."""
        self.check(StagesEngine(largest), {1: 250, 7: 1000}.get(largest, 2000))


# A batch of 23 measures in three aggregations, in two transactions, takes 50 to 300 ms however few its records, so the
# small batches get short logs. Most of the records are in one partition: of 1 000 enough to be cut at 500.
@pytest.mark.kafka
@pytest.mark.postgres
class TestWorker(SameNumbers):
    @pytest.mark.parametrize(
        ("batch", "workers", "records"),
        [
            (1, 1, 40),
            (7, 1, 150),
            (500, 1, 1000),
            (8192, 1, 1000),
            (1, 3, 40),
            (7, 3, 150),
            (500, 3, 1000),
            (8192, 3, 1000),
        ],
    )
    def test_workers_give_the_truth(
        self, kafka: KafkaTopics, postgres: Database, tmp_path: Path, batch: int, workers: int, records: int
    ) -> None:
        """Real workers, their results in PostgreSQL and on Kafka, whatever the batches and however many share them."""
        self.check(WorkerEngine(kafka, postgres.url, tmp_path, batch=batch, workers=workers), records)


@pytest.mark.kafka
@pytest.mark.postgres
@pytest.mark.spark
@pytest.mark.xdist_group("spark")
@pytest.mark.timeout(600)  # the session's start is in the first one's time
class TestSpark(SameNumbers):
    @pytest.mark.parametrize(
        ("trigger", "most", "records"),
        [("availableNow", 1000, 3000), ("availableNow", 7000, 14_500), ("once", 1, 4000)],
    )
    def test_spark_gives_the_truth(
        self,
        kafka: KafkaTopics,
        postgres: Database,
        spark: SparkSession,
        trigger: str,
        most: int,
        records: int,
        chaos: str,
    ) -> None:
        """Micro-batches of 1 000, of 7 000, and one of everything: of 4 000 records, in the long form of 100 000."""
        if chaos == "long" and trigger == "once":
            records = 100_000
        self.check(SparkEngine(kafka, postgres.url, spark, trigger=trigger, most=most), records)


def test_the_log_has_every_fault() -> None:
    """Late, partly late, duplicate, dead-lettered for ten reasons, skipped, replayed: nothing is compared in vain."""
    logs, meant, truth = log_of(1000)
    assert len(set(truth.dead().values())) == 10
    assert {partial for _, _, partial in truth.late()} == {True, False}
    assert all(
        sum(row[name] for row in truth.ledgers().values()) > 4 for name in ("accepted", "late", "duplicate", "skipped")
    )
    assert sum(one.replay for one in meant) > 20
    assert sum(one.repeat for one in meant) > 5
    assert logs[3] == []
    assert len(logs[1]) > 5 * len(logs[2])


def test_the_model_gives_the_same() -> None:
    """The record-by-record model in Python agrees with the SQL, so that neither is wrong alone."""
    logs, _, truth = log_of(1500)
    reference = Reference(Pipeline.model_validate(PIPELINE))
    outcome, rows = Outcome(), {aggregation.name: dict[Any, Any]() for aggregation in reference.pipeline.aggregations}
    for partition, log in enumerate(logs):
        read = reference.read(log, at=f"{TOPIC}/{partition}")
        outcome.late |= {(partition, late.offset, late.partial) for late in read.late}
        outcome.dead |= {(partition, offset): stage for offset, stage in read.rejected.items()}
        for name, cells in read.rows.items():
            for (start, end, _, group), values in cells.items():
                rows[name].setdefault((start, end, "live", group), []).extend(values)
    assert outcome.dead.keys() == truth.dead().keys()
    assert outcome.late == truth.late()
    merged = type(read)()
    merged.rows = rows
    for aggregation in reference.pipeline.aggregations:
        results = reference.results(merged, aggregation)
        found = {(start, end, *group): row for (start, end, _, group), row in results.items()}
        same_rows({aggregation.name: found}, {aggregation.name: truth.rows(aggregation.name)})
