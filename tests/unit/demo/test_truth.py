"""The truth computed in SQL: known figures of the data, and agreement with the stages, which share no code with it."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

import tidegate.demo
from tidegate.config.loading import load_pipeline
from tidegate.demo.flights import Departure, read_departures
from tidegate.demo.poison import with_poison
from tidegate.demo.truth import PRODUCED_SCHEMA, REPLAYED_SCHEMA, compute_truth, dead_letters, to_mend
from tidegate.headers import REPLAY_OF
from tidegate.record import TopicPartition
from tidegate.stages.batch import RAW_SCHEMA, BatchResult, PartitionState, RawBatch
from tidegate.stages.pipeline import StagePipeline
from tidegate.stages.plan import compile_plan

_PARTITIONS = 3
_FLIGHTS = 20_000
_LATER = 1_800_000_000_000  # ms; a replay's Kafka timestamp is that of its sending

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
    return {partition: _staged(partition, map(_sent, departures)) for partition, departures in partitions.items()}


def _sent(record: Departure) -> dict[str, Any]:
    return {"timestamp": record.timestamp, "key": record.key, "value": record.value}


def _staged(partition: int, records: Iterable[dict[str, Any]]) -> BatchResult:
    """A whole log, offsets from 0, through the stages."""
    stages = StagePipeline(compile_plan(load_pipeline(Path(tidegate.demo.__file__).with_name("flights.yaml"))))
    rows = [{"offset": offset, **record} for offset, record in enumerate(records)]
    raw = RawBatch(TopicPartition("departures", partition), pa.RecordBatch.from_pylist(rows, schema=RAW_SCHEMA))
    return stages.run(raw, PartitionState())


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
    assert _ledgers(results) == _ledger_of(truth)


def _ledger_of(truth: duckdb.DuckDBPyConnection) -> list[tuple[int, ...]]:
    return truth.execute(
        """SELECT "partition", read, accepted, dead_lettered, late, skipped, replayed FROM ledger ORDER BY 1"""
    ).fetchall()


def _ledgers(results: Mapping[int, BatchResult]) -> list[tuple[int, ...]]:
    return [
        (
            partition,
            *(getattr(ledger, name) for name in ("read", "accepted", "dead_lettered", "late", "skipped", "replayed")),
        )
        for partition, ledger in sorted((partition, result.ledger) for partition, result in results.items())
    ]


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
    _require_same_counts(truth, results)


def test_the_stages_do_the_same_with_mended_replays(
    produced: pa.Table, partitions: dict[int, list[Departure]], truth: duckdb.DuckDBPyConnection
) -> None:
    """A flight that was cancelled weeks ago counts in its window when it comes back with an aircraft."""
    results, replayed = {}, []
    for partition, departures in partitions.items():
        origins = sorted(offset for place, offset in to_mend(truth) if place == partition)
        replays = [_mended(departures[origin], f"departures-{partition}-{origin}") for origin in origins]
        results[partition] = _staged(partition, [*map(_sent, departures), *replays])
        replayed += [
            (partition, len(departures) + number, _LATER, partition, origin) for number, origin in enumerate(origins)
        ]
    columns = zip(*replayed, strict=True)
    table = pa.Table.from_arrays(
        [pa.array(values, field.type) for values, field in zip(columns, REPLAYED_SCHEMA, strict=True)],
        schema=REPLAYED_SCHEMA,
    )
    mended = compute_truth(produced, table)
    assert _ledgers(results) == _ledger_of(mended) != _ledger_of(truth)
    _require_same_counts(mended, results)


def _mended(record: Departure, origin: str) -> dict[str, Any]:
    """Its replay, as the demo's expression mends it."""
    assert record.value is not None
    value = record.value.replace(b'"tailnum":null', b'"tailnum":"N1TBA"')
    return {"timestamp": _LATER, "key": record.key, "value": value, "headers": [(REPLAY_OF, origin.encode())]}


def test_what_was_missing_is_counted_once_it_is_amended(produced: pa.Table, truth: duckdb.DuckDBPyConnection) -> None:
    """Then every valid flight is in its window, and the late windows keep how many came in so."""
    amended = compute_truth(produced, amended=True)
    missing = truth.execute("SELECT sum(missing) FROM late_windows").fetchone()
    assert amended.execute("SELECT sum(amended) FROM late_windows").fetchone() == missing != (0,)
    assert amended.execute("SELECT sum(missing) FROM late_windows").fetchone() == (0,)
    assert (
        amended.execute("SELECT sum(flights) FROM hourly").fetchone()
        == truth.execute("SELECT count(*) FROM valid").fetchone()
    )


def _require_same_counts(truth: duckdb.DuckDBPyConnection, results: Mapping[int, BatchResult]) -> None:
    for name, group in (("hourly", ("origin", "carrier")), ("destinations", ("dest",))):
        columns = ", ".join(("window_start", *group, "flights"))
        expected = {row[:-1]: row[-1] for row in truth.execute(f"SELECT {columns} FROM {name}").fetchall()}
        found: dict[tuple[object, ...], int] = defaultdict(int)
        for result in results.values():
            for row in result.deltas[name].to_pylist():
                found[row["window_start"], *(row[column] for column in group)] += row["records"]
        assert dict(found) == expected
