"""Where a record's time goes in a batch run: its own parts, one after the other in one thread, each with a stopwatch."""

from __future__ import annotations

import pickle
import uuid
from typing import Any

import pyarrow as pa

from batch import stage, wire
from batch.claims import Claims
from batch.fetch import Stretch, StretchReader
from batch.stage import StageTask
from benchmarks.batch_jobs import Servers, pipeline_of
from benchmarks.events import PARTITIONS
from benchmarks.profile import Stopwatches
from benchmarks.results import Section, thousands
from benchmarks.stack import Bench
from tidegate.config.pipeline import Pipeline
from tidegate.record import TopicPartition
from tidegate.resilience.guard import Guard
from tidegate.stages.aggregate import Aggregator
from tidegate.stages.decode import Decoder
from tidegate.stages.eventtime import EventTimes
from tidegate.stages.plan import compile_plan
from tidegate.stages.rules import RuleSet
from tidegate.store import open_store
from tidegate.store import sql as store_sql
from tidegate.store.postgres import PostgresStore
from tidegate.store.reading import TopicReader

_MICRO_BATCH = 500_000  # records
_RECORDS = 1_000_000  # at most: the figures do not change with more

_PARTS: tuple[tuple[Any, str, str], ...] = (
    (StretchReader, "_consume", "read: librdkafka's records as objects, and the wait for them"),
    (StretchReader, "_batch", "read: objects to Arrow"),
    (StretchReader, "_records", "read: end and errors"),
    (Decoder, "decode", "decode: JSON to columns"),
    (RuleSet, "check", "rules"),
    (EventTimes, "stamp", "event time"),
    (EventTimes, "judge", "event time"),
    (Aggregator, "apply", "aggregate: partials per window and user, chunk by chunk"),
    (stage, "merge_partials", "aggregate: the chunks' partials to one"),
    (wire, "send_deltas", "to the driver: Arrow"),
    (wire, "receive", "driver: receive"),
    (PostgresStore, "_put_new", "database: COPY of new rows into their place"),
    (PostgresStore, "_stage", "database: COPY of the others"),
    (store_sql, "execute", "database: add to the partials"),
    (Claims, "write", "database: around it"),
)


def run(bench: Bench) -> Section:
    number = min(bench.records, _RECORDS)
    section = Section("batch_profile", "Where the time of a batch run goes")
    section.text(
        f"{thousands(number)} records, the job above, in micro-batches of {thousands(_MICRO_BATCH)}: what executors and driver "
        "do, without Spark, in one thread; µs per record. Wall clock has in it what waits for the broker and the database."
    )
    found = {}
    with Servers(bench) as servers:
        for name, keys in servers.keys(number).items():
            found[name] = _measure(bench, servers, keys, number)
    labels = [*dict.fromkeys(label for *_, label in _PARTS), "the rest"]
    rows = [
        [label, *(f"{side[label] / number * 1e6:.2f}" for w in found.values() for side in (w.wall, w.cpu))]
        for label in labels
    ]
    rows.append(["all", *(f"{sum(s.values()) / number * 1e6:.2f}" for w in found.values() for s in (w.wall, w.cpu))])
    section.table(["part", *(f"{name}, {what}" for name in found for what in ("wall", "CPU"))], rows)
    return section


def _measure(bench: Bench, servers: Servers, keys: int, number: int) -> Stopwatches:
    pipeline = Pipeline.model_validate(pipeline_of(bench, servers, servers.topic(keys, number)))
    plan, watches = compile_plan(pipeline), Stopwatches()
    assert pipeline.source is not None
    tps = [TopicPartition(pipeline.source.topics[0], partition) for partition in range(PARTITIONS)]
    store = open_store(plan, pipeline.sinks[0])  # type: ignore[arg-type]  # the pipeline of this part has one database
    store.prepare()
    claims = Claims(plan, store, Guard("store", pipeline.error_handling), uuid.uuid4().hex, {})
    claims.claim(tps)
    with TopicReader(pipeline.kafka, "profile") as reader:
        ends = {tp: reader.bounds(tp)[1] for tp in tps}
    step = _MICRO_BATCH // PARTITIONS
    stage._tools(pickle.dumps(plan))
    try:
        with watches.around(_PARTS):
            for start in range(0, max(ends.values()), step):
                stretches = [Stretch(tp, start, min(start + step, ends[tp])) for tp in tps if start < ends[tp]]
                with watches.running("the rest"):
                    _micro_batch(plan, claims, stretches)
    finally:
        store.close()
    assert sum(state.ledger.read for state in claims.states.values()) == number
    return watches


def _micro_batch(plan: Any, claims: Claims, stretches: list[Stretch]) -> None:
    task = StageTask(plan, [stretches], dict(claims.states), {})
    numbers = pa.RecordBatch.from_pydict({"id": [0]})
    outcomes = wire.receive(pa.Table.from_batches(list(task(iter([numbers])))))
    claims.write(
        [
            claims.batch(o.tp, o.applied.state, deltas={n: pa.concat_tables(t) for n, t in o.deltas.items()})
            for o in outcomes
        ]
    )
