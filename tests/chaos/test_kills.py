"""Workers that are killed, come and go, while the stream runs."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import psycopg
import pytest

from tests.harness import WorkerProcess, read_topic, running, wait_until
from tests.providers.postgres import Database
from tests.scene import Scene, events, scene
from tidegate.local.kafka import EmbeddedKafka
from tidegate.store.rows import decode_state
from worker import keys

pytestmark = [pytest.mark.slow, pytest.mark.kafka, pytest.mark.postgres]

_WAITING = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@dataclass
class Killer:
    """Brings a worker to a point of its way and kills it there. The world is held up, never the code: a lock in the
    database, a broker that is asleep. `seen`: how often each thing was found after a kill."""

    scene: Scene
    worker: WorkerProcess
    broker: EmbeddedKafka
    random: Random
    seen: Counter[str] = field(default_factory=Counter)
    _begun: int = 0  # where the log of this start begins, bytes

    def start(self, *, with_state: bool) -> None:
        if not with_state:
            shutil.rmtree(self.worker.directory / "worker-state", ignore_errors=True)
        self._begun = self.worker.log.stat().st_size
        self.worker.start()

    def mid_stream(self) -> None:
        """Anywhere in the work on batches."""
        self._applied(self.random.randrange(100, 2000))
        time.sleep(self.random.random() / 4)
        self.worker.kill()

    def before_the_database(self) -> None:
        """A batch is computed, its write waits in the database."""
        self._applied(self.random.randrange(1, 1000))
        assert self.scene.url is not None
        with psycopg.connect(self.scene.url) as lock:
            lock.execute("SELECT * FROM tidegate_partitions FOR UPDATE")
            before = self.scene.applied()
            wait_until(lambda: bool(self.scene.rows(_WAITING)), 30, f"a write waits\n{self.worker.tail()}")
            self.worker.kill()
        wait_until(lambda: not self.scene.rows(_WAITING), 30, "the dead worker's statement is over")
        self.seen["write undone"] += self.scene.applied() == before

    def between_database_and_kafka(self) -> None:
        """The database has a batch, the changelog has not."""
        self._applied(self.random.randrange(1, 1000))
        self.broker.pause()
        before = -1
        while before != (before := self.scene.applied()):
            time.sleep(1)
        self.worker.kill()
        self.broker.resume()

    def restoring(self) -> None:
        """Without local state, while the changelog is read."""
        self.mid_stream()
        self.start(with_state=False)
        wait_until(lambda: "being restored" in self.worker.get("/ready")[1], 60, "restoring", 0.01)
        time.sleep(self.random.random() / 5)
        self.worker.kill()

    def starting(self) -> None:
        """Within seconds of a start, with or without local state."""
        self.mid_stream()
        self.start(with_state=self.random.random() < 0.5)
        time.sleep(self.random.random() * 4)
        self.worker.kill()

    def look(self) -> None:
        """What the kill has left behind."""
        opened = self.worker.log.read_bytes()[self._begun :].count(b"partition.opened")
        self.seen["killed before its partitions were open"] += opened < self.scene.partitions
        applied = dict(self.scene.rows("SELECT partition, upto FROM tidegate_partitions"))
        changelog: dict[int, int] = {}
        for row in read_topic(self.scene.servers, f"{self.scene.id}-{self.scene.topic}-changelog"):
            if row.key == keys.PARTITION:
                changelog[row.partition] = decode_state(row.value or b"").upto
        assert all(upto <= applied[partition] for partition, upto in changelog.items()), "Kafka before the database"
        self.seen["database ahead of the changelog"] += any(changelog.get(p, -1) < upto for p, upto in applied.items())

    def _applied(self, more: int) -> None:
        goal = self.scene.applied() + more
        wait_until(lambda: self.scene.applied() >= goal, 60, f"{goal} records applied\n{self.worker.tail()}")


@pytest.mark.timeout(1200)
def test_kills_at_every_point_change_nothing(
    own_kafka: EmbeddedKafka, postgres: Database, tmp_path: Path, seed: int, chaos: str
) -> None:
    """SIGKILL in mid-stream, before the database's commit, between it and Kafka's, during a restore, right after a start;
    with the local state deleted in some: the results are the truth."""
    random, rounds = Random(seed), 4 if chaos == "long" else 1
    points = [
        Killer.mid_stream,
        Killer.before_the_database,
        Killer.between_database_and_kafka,
        Killer.restoring,
        Killer.starting,
    ] * rounds
    random.shuffle(points)
    count = 4000 * len(points)
    settings = {"settings": {"worker": {"maxBatchRecords": 150}}}
    with scene(own_kafka.bootstrap_servers, postgres.url, tmp_path, **settings) as one:
        one.feed(events(random, count))
        worker = one.worker()
        killer = Killer(one, worker, own_kafka, random)
        with running(worker):
            for point in points:
                point(killer)
                assert one.applied() < count, "the kill came too late"
                killer.look()
                killer.start(with_state=random.random() < 0.5)
            wait_until(lambda: one.applied() == count, 120, f"all applied\n{worker.tail()}")
            one.check(60)
            assert worker.stop() == 0
        one.check(0)
        sys.stdout.write(f"{len(points)} kills, {count} records: {dict(killer.seen)}\n")
        assert killer.seen["database ahead of the changelog"] >= rounds, killer.seen
        assert killer.seen["killed before its partitions were open"] >= rounds, killer.seen
        assert killer.seen["write undone"] >= rounds, killer.seen
        repeated = [m.header("tidegate.dlq.id") for m in one.read(".dlq", isolation="read_uncommitted")]
        ids = {f"{one.topic}-{p}-{o}" for p, o in one.truth().dead_letters()}
        assert set(repeated) == ids, "what was tried and aborted has the ids of what was written"


@pytest.mark.timeout(300)
def test_scaling_under_load_changes_nothing(make_scene: Callable[..., Scene], seed: int) -> None:
    """From 1 to 3 workers and back to 1 while records come in, one leaving by SIGKILL and one by SIGTERM."""
    scene = make_scene(partitions=4, settings={"worker": {"maxBatchRecords": 200}})
    given, done = list(events(Random(seed), 24_000)), threading.Event()

    def load() -> None:
        for start in range(0, len(given), 300):
            scene.feed(given[start : start + 300])
            time.sleep(0.3)
        done.set()

    first, second, third = (scene.worker(name) for name in ("first", "second", "third"))
    loading = threading.Thread(target=load)
    with running(first):
        first.wait_ready()
        loading.start()
        with running(second, third):
            for worker in (first, second, third):
                wait_until(
                    lambda worker=worker: (
                        worker.metric("tidegate_consumer_assigned_partitions") > 0
                        and worker.metric("tidegate_records_processed_total") > 0
                    ),
                    30,
                    f"{worker.name} works\n{worker.tail()}",
                )
            second.kill()
            time.sleep(1)
            assert third.stop() == 0
        loading.join()
        wait_until(lambda: scene.applied() == len(given), 60, f"all applied\n{first.tail()}")
        scene.check(30)
        assert first.stop() == 0
