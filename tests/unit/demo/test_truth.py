"""The truth computed in SQL: known figures of the data, and agreement with the stages, which share no code with it."""

from __future__ import annotations

import zlib
from collections import defaultdict
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

import tidegate.demo
from tidegate.config.loading import load_pipeline
from tidegate.demo.flights import Departure, read_departures
from tidegate.demo.poison import with_poison
from tidegate.demo.truth import PRODUCED_SCHEMA, compute_truth, dead_letters
from tidegate.record import TopicPartition
from tidegate.stages.batch import RAW_SCHEMA, BatchResult, PartitionState, RawBatch
from tidegate.stages.pipeline import StagePipeline
from tidegate.stages.plan import compile_plan

_PARTITIONS = 3
_FLIGHTS = 20_000

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("three weeks of flights")]


@pytest.fixture(scope="module")
def partitions() -> dict[int, list[Departure]]:
    """The first three weeks, with poison, as a producer would spread them."""
    spread: dict[int, list[Departure]] = defaultdict(list)
    for departure in with_poison(read_departures(_FLIGHTS), 40):
        spread[zlib.crc32(departure.key) % _PARTITIONS].append(departure)
    return spread


@pytest.fixture(scope="module")
def produced(partitions: dict[int, list[Departure]]) -> pa.Table:
    rows = [
        (departure.row, departure.poison, partition, offset, departure.timestamp)
        for partition, departures in partitions.items()
        for offset, departure in enumerate(departures)
    ]
    columns = zip(*rows, strict=True)
    return pa.Table.from_arrays(
        [pa.array(values, field.type) for values, field in zip(columns, PRODUCED_SCHEMA, strict=True)],
        schema=PRODUCED_SCHEMA,
    )


@pytest.fixture(scope="module")
def truth(produced: pa.Table) -> duckdb.DuckDBPyConnection:
    return compute_truth(produced)


@pytest.fixture(scope="module")
def results(partitions: dict[int, list[Departure]]) -> dict[int, BatchResult]:
    """What the stages make of each partition in one batch."""
    pipeline = load_pipeline(Path(tidegate.demo.__file__).with_name("flights.yaml"))
    stages = StagePipeline(compile_plan(pipeline))
    results = {}
    for partition, departures in partitions.items():
        records = pa.RecordBatch.from_pylist(
            [
                {"offset": offset, "timestamp": record.timestamp, "key": record.key, "value": record.value}
                for offset, record in enumerate(departures)
            ],
            schema=RAW_SCHEMA,
        )
        raw = RawBatch(TopicPartition("departures", partition), records)
        results[partition] = stages.run(raw, PartitionState())
    return results


def test_every_record_is_in_one_place(truth: duckdb.DuckDBPyConnection) -> None:
    """The ledger of the truth balances, and knows the poison and the tombstones."""
    total = truth.execute(
        "SELECT sum(read), sum(accepted + dead_lettered + late + skipped), sum(skipped) FROM ledger"
    ).fetchone()
    assert total == (_FLIGHTS + 40, _FLIGHTS + 40, 5)
    assert truth.execute("SELECT count(*) FROM judged WHERE verdict = 'malformed'").fetchone() == (35,)
    assert truth.execute("SELECT count(*) FROM late").fetchone() != (0,)


def test_the_stages_dead_letter_the_same_records(
    truth: duckdb.DuckDBPyConnection, results: dict[int, BatchResult]
) -> None:
    """Record for record, by partition and offset."""
    rejected = {(partition, each.offset) for partition, result in results.items() for each in result.rejected}
    assert rejected == dead_letters(truth)


def test_the_stages_have_the_same_ledger(truth: duckdb.DuckDBPyConnection, results: dict[int, BatchResult]) -> None:
    """Read, accepted, dead-lettered, late and skipped of each partition."""
    expected = truth.execute(
        """SELECT "partition", read, accepted, dead_lettered, late, skipped FROM ledger ORDER BY 1"""
    ).fetchall()
    found = [
        (partition, ledger.read, ledger.accepted, ledger.dead_lettered, ledger.late, ledger.skipped)
        for partition, ledger in sorted((partition, result.ledger) for partition, result in results.items())
    ]
    assert found == expected


def test_the_stages_miss_the_same_windows(truth: duckdb.DuckDBPyConnection, results: dict[int, BatchResult]) -> None:
    """How many late records each window misses, over all partitions."""
    expected = {
        (aggregation, start): missing
        for aggregation, start, missing in truth.execute(
            "SELECT aggregation, window_start, missing FROM late_windows"
        ).fetchall()
    }
    found: dict[tuple[str, int], int] = defaultdict(int)
    for result in results.values():
        if result.late_windows is not None:
            for row in result.late_windows.to_pylist():
                found[row["aggregation"], row["window_start"]] += row["missing"]
    assert dict(found) == expected


def test_the_stages_count_the_same_flights_in_every_window(
    truth: duckdb.DuckDBPyConnection, results: dict[int, BatchResult]
) -> None:
    """Per hour, origin and carrier; and per three hours and destination over all partitions."""
    for name, group in (("hourly", ("origin", "carrier")), ("destinations", ("dest",))):
        columns = ", ".join(("window_start", *group, "flights"))
        expected = {row[:-1]: row[-1] for row in truth.execute(f"SELECT {columns} FROM {name}").fetchall()}
        found: dict[tuple[object, ...], int] = defaultdict(int)
        for result in results.values():
            for row in result.deltas[name].to_pylist():
                found[row["window_start"], *(row[column] for column in group)] += row["records"]
        assert dict(found) == expected
