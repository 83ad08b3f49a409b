"""The life of a worker: it starts, says how it is, shares partitions, closes windows when nothing comes, and drains."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from tests.harness import running, wait_until
from tests.scene import MINUTE, START, Scene, events, record
from tests.truth import Produced

pytestmark = [pytest.mark.slow, pytest.mark.kafka, pytest.mark.postgres]

# Metric families that dashboards and alerts rely on.
FAMILIES = (
    "tidegate_build_info", "tidegate_records_consumed_total", "tidegate_records_processed_total",
    "tidegate_records_produced_total", "tidegate_worker_time_seconds_total", "tidegate_consumer_lag_records",
    "tidegate_consumer_last_record_timestamp_seconds", "tidegate_consumer_last_progress_timestamp_seconds",
    "tidegate_consumer_rebalances_total", "tidegate_consumer_assigned_partitions", "tidegate_batch_duration_seconds",
    "tidegate_breaker_state", "tidegate_dlq_records_total", "tidegate_quality_rule_evaluations_total",
)  # fmt: skip


def test_it_says_how_it_is(make_scene: Callable[..., Scene], seed: int) -> None:
    """/live and /ready answer 200, and /metrics has the families that dashboards use, with the right numbers."""
    scene = make_scene(partitions=2)
    scene.feed(events(Random(seed), 1500))
    worker = scene.worker()
    with running(worker):
        worker.wait_ready()
        wait_until(lambda: scene.applied() == 1500, 60, f"all applied\n{worker.tail()}")
        scene.check(30)
        assert worker.get("/live")[0] == 200
        exported = worker.get("/metrics")[1]
        assert [family for family in FAMILIES if f"\n# TYPE {family} " not in exported] == []
        ledger = scene.truth().ledger().values()
        processed = "tidegate_records_processed_total"
        for outcome in ("accepted", "dead_lettered", "late", "skipped"):
            assert worker.metric(processed, outcome=outcome) == sum(row[outcome] for row in ledger), outcome
        wait_until(lambda: worker.metric("tidegate_consumer_lag_records") == 0, 10, "no lag")
        assert worker.metric("tidegate_windows_open") == 0
        assert worker.stop() == 0


def test_a_drained_worker_repeats_nothing(make_scene: Callable[..., Scene], seed: int) -> None:
    """SIGTERM in mid-stream: what is in hand is finished, the exit code is 0, and the next start reads on from there; also when
    `tidegate worker FILE` is told to stop, and Faust's own command goes on."""
    scene = make_scene(settings={"worker": {"maxBatchRecords": 100}})
    scene.feed(events(Random(seed), 6000))
    first = scene.worker()
    first.started_by = [sys.executable, "-c", "from tidegate.cli.main import run; run()", "worker"]
    with running(first):
        wait_until(lambda: scene.applied() > 300, 60, f"work has begun\n{first.tail()}")
        assert first.stop() == 0, first.tail()
    applied = scene.applied()
    assert applied < 6000
    committed = scene.committed()
    uptos = dict(scene.rows("SELECT partition, upto FROM tidegate_partitions WHERE upto >= 0"))
    assert {p: offset - 1 for p, offset in committed.items() if offset > 0} == uptos, "the group's offsets say the same"
    first.started_by = None
    with running(first):
        wait_until(lambda: scene.applied() == 6000, 60, f"all applied\n{first.tail()}")
        assert first.metric("tidegate_records_consumed_total") == 6000 - applied
        scene.check(30)
        assert first.stop() == 0
    written = len(scene.read(".dlq", isolation="read_uncommitted"))
    assert written == len(scene.truth().dead_letters()), "nothing was tried twice"


def test_windows_close_when_nothing_comes(make_scene: Callable[..., Scene], seed: int) -> None:
    """A window closes on a quiet partition when the rest of the stream passes it, and the last one when all is quiet;
    a partition that never had a record holds nothing up."""
    scene = make_scene(partitions=3)

    def at(number: int, partition: int, time: int) -> dict[str, object]:
        meant = Produced("event", -1, -1, f"k{partition}", number, "p", "red", 1, START + time)
        return record(meant, partition=partition)

    worker = scene.worker(eventTime={**scene.pipeline["eventTime"], "idleTimeout": "2 seconds"})
    with running(worker):
        worker.wait_ready()
        scene.feed([at(1, 0, 1000), at(2, 1, 1000)])  # partition 2 never has one
        wait_until(lambda: scene.applied() == 2, 30, f"both applied\n{worker.tail()}")
        scene.check(20)  # the whole stream is quiet: all is final

        scene.feed([at(3, 1, 3 * MINUTE)])
        wait_until(lambda: scene.applied() == 3, 30, "applied")
        scene.feed([at(4, 0, 2 * MINUTE)])  # not late in its own partition
        scene.check(20)
        assert worker.stop() == 0


def test_two_workers_share_the_partitions(make_scene: Callable[..., Scene], seed: int) -> None:
    """Two workers that are started at once have every partition once between them, and one answer comes out."""
    scene = make_scene(partitions=4)
    one, two = scene.worker("one"), scene.worker("two")
    with running(one, two):

        def shares() -> list[float]:
            return [worker.metric("tidegate_consumer_assigned_partitions") for worker in (one, two)]

        wait_until(lambda: min(shares()) > 0, 60, f"both have some\n{one.tail()}\n{two.tail()}")
        scene.feed(events(Random(seed), 4000))
        wait_until(lambda: scene.applied() == 4000, 60, f"all applied\n{one.tail()}\n{two.tail()}")
        assert sum(shares()) == 8, "4 source partitions, and the 4 that totals are merged in"
        assert all(worker.metric("tidegate_records_processed_total") > 0 for worker in (one, two))
        scene.check(30)
        assert [worker.stop() for worker in (one, two)] == [0, 0]


def test_final_results_come_once(make_scene: Callable[..., Scene], seed: int) -> None:
    """With `emit: final` each window and group has exactly one result, when nothing comes late."""
    scene = make_scene(partitions=3, delay=60_000)
    for aggregation in scene.pipeline["aggregations"]:
        aggregation["emit"] = "final"
    scene.pipeline["eventTime"]["idleTimeout"] = "3 seconds"
    scene.feed(events(Random(seed), 6000, bad=False))
    worker = scene.worker()
    with running(worker):
        wait_until(lambda: scene.applied() == 6000, 60, f"all applied\n{worker.tail()}")
        scene.check(40)
        assert worker.stop() == 0
    for name in scene.truth().aggregates:
        results = scene.read(f".{name}")
        assert len({message.key for message in results}) == len(results)
        assert all(message.json["final"] for message in results)


def test_kafka_alone_is_enough(make_scene: Callable[..., Scene], seed: int) -> None:
    """Without a database the results on Kafka are exact too, over a kill with the local state deleted."""
    import shutil

    scene = make_scene(url=None, settings={"worker": {"maxBatchRecords": 100}})
    scene.feed(events(Random(seed), 5000))
    worker = scene.worker()
    with running(worker):
        wait_until(lambda: worker.metric("tidegate_records_processed_total") > 500, 60, f"work\n{worker.tail()}")
        worker.kill()
        shutil.rmtree(worker.directory / "worker-state")
        worker.start()
        scene.check(60)
        assert worker.stop() == 0


def test_a_record_meant_twice(make_scene: Callable[..., Scene], seed: int) -> None:
    """Dedupe remembers over restarts, with the local state deleted or not: the first record with an id counts."""
    import shutil

    scene = make_scene(dedupe=True, settings={"dedupe": {"key": "id", "horizon": "30 days"}})
    given = list(events(Random(seed), 1200))
    repeated = [one for one in given if one["meant"].kind == "event"][::3]
    worker = scene.worker()
    for part, (records, wipe) in enumerate(((given[:800], False), (given[400:], True), (repeated, False))):
        scene.feed([{**one, "meant": replace(one["meant"])} for one in records])
        with running(worker):
            wait_until(lambda: scene.applied() == len(scene.produced), 60, f"part {part}\n{worker.tail()}")
            scene.check(30)
            assert worker.stop() == 0
        if wipe:
            shutil.rmtree(worker.directory / "worker-state")
    assert sum(row["duplicate"] for row in scene.truth().ledger().values()) > 500
