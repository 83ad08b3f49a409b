"""Workers that are killed, come and go, while the stream runs."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from random import Random

import pytest

from tests.harness import running, wait_until
from tests.scene import Scene, events

pytestmark = [pytest.mark.slow, pytest.mark.kafka, pytest.mark.postgres]


@pytest.mark.timeout(900)
def test_kills_at_random_points_change_nothing(make_scene: Callable[..., Scene], seed: int, chaos: str) -> None:
    """SIGKILL in mid-stream, again and again, with the local state deleted in some: the results are the truth."""
    random, kills, share = Random(seed), 20 if chaos == "long" else 5, 4000
    scene = make_scene(settings={"worker": {"maxBatchRecords": 150}})
    count = share * (kills + 1)
    scene.feed(events(random, count))
    worker = scene.worker()
    with running(worker):
        for kill in range(kills):
            goal = scene.applied() + random.randrange(200, share)
            wait_until(lambda goal=goal: scene.applied() >= goal, 60, f"{goal} records applied\n{worker.tail()}")
            time.sleep(random.random() / 4)
            worker.kill()
            assert scene.applied() < count, "the kill came too late"
            if kill % 2:
                shutil.rmtree(worker.directory / "worker-state")
            worker.start()
        wait_until(lambda: scene.applied() == count, 120, f"all applied\n{worker.tail()}")
        scene.check(60)
        assert worker.stop() == 0
    scene.check(0)
    repeated = [m.header("tidegate.dlq.id") for m in scene.read(".dlq", isolation="read_uncommitted")]
    ids = {f"{scene.topic}-{p}-{o}" for p, o in scene.truth().dead_letters()}
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
