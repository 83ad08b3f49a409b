"""Broker and database going away in mid-stream, and a worker that sleeps while its partitions move."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import psycopg
import pytest

from tests.harness import WorkerProcess, running, wait_until
from tests.providers.kafka import KafkaTopics
from tests.providers.postgres import Database
from tests.scene import Scene, events, scene
from tidegate.local.kafka import EmbeddedKafka
from tidegate.local.postgres import EmbeddedPostgres

pytestmark = [pytest.mark.slow, pytest.mark.kafka, pytest.mark.postgres, pytest.mark.timeout(300)]

# A breaker that opens and probes within a short outage.
IMPATIENT = {
    "retry": {"maxAttempts": 2, "initialDelayMs": 100, "maxDelayMs": 200},
    "circuitBreaker": {"failureThreshold": 2, "resetTimeoutSeconds": 1},
}


@contextmanager
def loaded(scene: Scene, seed: int, count: int) -> Iterator[threading.Event]:
    """Records come in from another thread, 1000 a second, while the block runs; all are there when it ends."""
    given, stop = list(events(Random(seed), count)), threading.Event()

    def load() -> None:
        for start in range(0, count, 200):
            scene.feed(given[start : start + 200], **{"message.timeout.ms": 120_000})
            if not stop.is_set():
                time.sleep(0.2)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join()


def rebalances(worker: WorkerProcess) -> float:
    return worker.metric("tidegate_consumer_rebalances_total")


def test_broker_away_and_back(
    own_kafka: EmbeddedKafka, postgres: Database, tmp_path: Path, seed: int, chaos: str
) -> None:
    """The broker is stopped in mid-stream and comes back: partitions pause and stay ours, the worker says that it waits
    and for what, nothing is dead-lettered for it, the results are exact; and it ends in good time while the broker is
    away again."""
    away = 30 if chaos == "long" else 3
    slowly = {"worker": {"maxBatchRecords": 100}}  # seconds of work, so that some is in hand when the broker goes
    with scene(own_kafka.bootstrap_servers, postgres.url, tmp_path, settings=slowly) as one:
        one.feed(events(Random(seed), 24_000))
        worker = one.worker()
        with running(worker):
            worker.wait_ready()
            wait_until(lambda: one.applied() > 500, 60, "work has begun")
            before, ours = rebalances(worker), worker.metric("tidegate_consumer_assigned_partitions")
            own_kafka.stop()
            stopped = time.monotonic()
            paused = "tidegate_consumer_paused_partitions"
            # A partition with nothing in hand, since the broker went before it answered, has nothing to wait with.
            wait_until(lambda: worker.metric(paused, reason="outage") > 0, 60, f"partitions pause\n{worker.tail()}")
            sys.stdout.write(f"partitions pause after {time.monotonic() - stopped:.1f} s\n")
            letters, until = worker.metric("tidegate_dlq_records_total"), time.monotonic() + away
            status, body = worker.get("/ready")
            assert status == 503, body
            assert "waits: outage" in body, body
            while time.monotonic() < until:
                assert worker.get("/live")[0] == 200
                assert worker.metric("tidegate_consumer_assigned_partitions") == ours
                time.sleep(1)
            assert worker.metric("tidegate_dlq_records_total") == letters
            own_kafka.start()
            one.feed(events(Random(seed + 1), 2000, first=24_000))
            wait_until(lambda: worker.metric(paused) == 0, 60, f"partitions resume\n{worker.tail()}")
            wait_until(lambda: one.applied() == 26_000, 90, f"all applied\n{worker.tail()}")
            sys.stdout.write(f"rebalances: {rebalances(worker) - before}\n")
            one.check(60)
            own_kafka.stop()
            assert worker.stop(20) == 0, f"a broker that is away does not hold up the end\n{worker.tail()}"
            own_kafka.start()


def test_database_away_and_back(
    kafka: KafkaTopics, own_postgres: EmbeddedPostgres, tmp_path: Path, seed: int, chaos: str
) -> None:
    """PostgreSQL is stopped in mid-stream and comes back: the breaker opens, partitions pause and stay ours, nothing is
    dead-lettered for it, the breaker closes, and the results are exact."""
    away = 30 if chaos == "long" else 8
    options = {"settings": {"errorHandling": IMPATIENT}}
    with scene(kafka.bootstrap_servers, own_postgres.url, tmp_path, **options) as one:
        worker = one.worker()
        with running(worker), loaded(one, seed, 12_000) as no_hurry:
            worker.wait_ready()
            wait_until(lambda: one.applied() > 500, 60, "work has begun")
            before, dead = rebalances(worker), worker.metric("tidegate_dlq_records_total", stage="sink")
            own_postgres.stop()
            wait_until(
                lambda: worker.metric("tidegate_breaker_state", breaker="store", state="open") == 1, 30, "breaker opens"
            )
            wait_until(lambda: worker.metric("tidegate_consumer_paused_partitions") >= 3, 10, "partitions pause")
            status, body = worker.get("/ready")
            assert status == 503
            assert "breaker" in body
            assert worker.get("/live")[0] == 200
            time.sleep(away)
            own_postgres.start()
            no_hurry.set()
            wait_until(
                lambda: worker.metric("tidegate_breaker_state", breaker="store", state="closed") == 1,
                30,
                "breaker closes",
            )
            wait_until(lambda: worker.metric("tidegate_consumer_paused_partitions") == 0, 30, "partitions resume")
            wait_until(lambda: one.applied() == 12_000, 60, f"all applied\n{worker.tail()}")
            assert rebalances(worker) == before, "membership is kept"
            assert worker.metric("tidegate_dlq_records_total", stage="sink") == dead
            one.check(60)
            assert worker.stop() == 0, worker.tail()


def test_a_zombie_corrupts_nothing(make_scene: Callable[..., Scene], seed: int) -> None:
    """A worker that sleeps (SIGSTOP) until its partitions have moved is fenced in Kafka and PostgreSQL when it wakes."""
    one = make_scene(settings={"worker": {"maxBatchRecords": 100}})
    given = list(events(Random(seed), 24_000))
    one.feed(given[:12_000])
    zombie, heir = one.worker("zombie"), one.worker("heir")
    with running(zombie):
        zombie.wait_ready()
        wait_until(lambda: one.applied() > 500, 60, "work has begun")
        zombie.signal(signal.SIGSTOP)  # in the middle of a batch, as a rule
        assert one.applied() < 12_000
        with running(heir):
            heir.wait_ready()
            wait_until(lambda: heir.metric("tidegate_consumer_assigned_partitions") >= 3, 60, "partitions move")
            wait_until(lambda: one.applied() > 8000, 60, f"the heir works\n{heir.tail()}")
            zombie.signal(signal.SIGCONT)
            one.feed(given[12_000:])
            wait_until(lambda: one.applied() == 24_000, 90, f"all applied\n{heir.tail()}\n{zombie.tail()}")
            one.check(30)
            assert zombie.running, zombie.tail()
            assert zombie.stop() == 0
            assert heir.stop() == 0
    one.check(0)


def test_the_database_refuses_a_zombie_that_wakes_in_its_write(make_scene: Callable[..., Scene], seed: int) -> None:
    """A worker that was stopped while its write waited for a lock is refused when it goes on: the epoch has moved."""
    one = make_scene(partitions=1)
    given = list(events(Random(seed), 4000))
    one.feed(given[:1000])
    zombie, heir = one.worker("zombie"), one.worker("heir")
    with running(zombie):
        zombie.wait_ready()
        wait_until(lambda: one.applied() == 1000, 60, "the first records are applied")
        assert one.url is not None
        with psycopg.connect(one.url) as lock:
            lock.execute("SELECT * FROM tidegate_partitions FOR UPDATE")
            one.feed(given[1000:])
            wait_until(lambda: bool(one.rows(_WAITING)), 30, "the zombie's write waits for the row")
            zombie.signal(signal.SIGSTOP)
            (epoch,) = one.rows("SELECT epoch FROM tidegate_partitions")[0]
            lock.execute("UPDATE tidegate_partitions SET epoch = epoch + 1")
        wait_until(lambda: not one.rows(_WAITING), 30, "the zombie's statement has run")
        assert one.applied() == 1000
        with running(heir):
            wait_until(lambda: one.applied() == 4000, 60, f"the heir works\n{heir.tail()}")
            zombie.signal(signal.SIGCONT)
            one.check(60)
            assert one.rows("SELECT epoch FROM tidegate_partitions")[0][0] > epoch + 1
            assert heir.stop() == 0
            wait_until(lambda: zombie.running, 5, zombie.tail())
    one.check(30, final=False)


_WAITING = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
