"""A catch-up takes over from workers that are alive, dead or asleep, and hands back: nothing is lost, nothing counts twice."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from tests.harness import running, wait_until
from tests.providers.catchup import Steps, catchup
from tests.scene import Scene, events
from tidegate.config.pipeline import Pipeline
from tidegate.errors import StoreHeld
from tidegate.store.group import read_group

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [
    pytest.mark.slow, pytest.mark.kafka, pytest.mark.postgres, pytest.mark.spark, pytest.mark.timeout(600),
    pytest.mark.xdist_group("spark"),  # one process, one session
]  # fmt: skip
Make = Callable[..., Scene]
SETTINGS: dict[str, Any] = {"fallback": {"hold": "3 seconds"}}


def test_a_worker_that_is_alive_waits_and_goes_on(make_scene: Make, spark: SparkSession, seed: int) -> None:
    """It keeps its partitions, says by whom and since when they are held, takes the state over from the database, sends what
    the catch-up has changed to Kafka, and tells the group; both ledgers balance."""
    scene, random = make_scene(settings=SETTINGS), Random(seed)
    worker, go_on = scene.worker(), threading.Event()
    with running(worker):
        scene.feed(events(random, 1500))
        wait_until(lambda: scene.applied() == 1500, 60, "the first are applied")
        made = catchup(spark, scene, Steps(lambda: go_on.wait(60) or None))
        catching = threading.Thread(target=made.run)
        worker.signal(signal.SIGSTOP)  # it is behind
        scene.feed(events(random, 3000, first=1500))
        catching.start()
        wait_until(lambda: scene.applied() > 1500, 120, "the first micro-batch is in the database")
        worker.signal(signal.SIGCONT)
        wait_until(lambda: worker.metric("tidegate_consumer_paused_partitions", reason="held") == 3, 60, "all are held")
        assert f"waits: held by {made._holder} since 20" in worker.get("/ready")[1]
        go_on.set()
        catching.join(120)
        assert made.report.error is None
        assert made.report.total.total.read == 3000
        scene.feed(events(random, 500, first=4500))
        scene.check(60)
        wait_until(lambda: sum(scene.committed().values()) == 5000, 20, "the group is told")
        assert worker.stop() == 0
    assert "state.reloaded" in worker.log.read_text()


def test_a_worker_that_was_dead_starts_behind_the_catchup(make_scene: Make, spark: SparkSession, seed: int) -> None:
    """Killed between two batches, and its local state deleted: started after the catch-up it reads nothing of that again,
    asks no handler again, knows the keys that were seen, and its results on Kafka are the newest."""
    settings = {
        **SETTINGS,
        "dedupe": {"key": "id", "horizon": "1 hour"},
        "handlers": [{"call": "tests.handlers:unchanged"}],
    }
    scene, random = make_scene(settings=settings, dedupe=True), Random(seed)
    first = list(events(random, 1500))
    worker = scene.worker()
    with running(worker):
        scene.feed(first)
        # On Kafka, too: else it would owe a batch, and read that again with what was fetched behind it.
        wait_until(lambda: sum(scene.committed().values()) == 1500, 60, "the first are committed everywhere")
        worker.kill()
    # The group keeps a member that was killed for a session's length, and takes no offsets meanwhile.
    pipeline = Pipeline.model_validate(worker.pipeline)
    wait_until(lambda: not read_group(pipeline, 10).members, 60, "the group has forgotten the worker")
    backlog = list(events(random, 2000, first=1500))
    scene.feed([*backlog, *first[1000:1100]])
    made = catchup(spark, scene, Steps())
    report = made.run()
    assert (report.total.total.read, report.lag, report.group_offsets_written) == (2100, 0, True)
    assert sum(scene.committed().values()) == 3600
    again = scene.worker("again")
    with running(again):
        again.wait_ready()
        scene.feed([*events(random, 300, first=3500), *backlog[500:600]])
        scene.check(60)
        assert again.metric("tidegate_records_consumed_total") == 400
        assert again.stop() == 0
    assert report.total.total.duplicate >= 90, "the catch-up knew what the worker had seen"


def test_a_second_catchup_waits_for_one_that_was_killed_and_not_for_one_at_work(
    make_scene: Make, spark: SparkSession, seed: int
) -> None:
    """What nobody renews expires; what is renewed is refused with its holder's name, and nothing of the first is disturbed. It
    goes round by round until what came meanwhile is under the bound, and leaves that to the workers."""
    scene, random = make_scene(settings=SETTINGS), Random(seed)
    scene.feed(events(random, 1500))
    go_on = threading.Event()
    first = catchup(spark, scene, Steps(lambda: go_on.wait(60) or None))
    catching = threading.Thread(target=first.run)
    catching.start()
    wait_until(lambda: scene.applied() > 0, 60, "the first is at work")
    with pytest.raises(StoreHeld, match=f"held by {first._holder}"):
        catchup(spark, scene, Steps()).run()
    go_on.set()
    catching.join(60)
    assert (first.report.error, first.report.total.total.read) == (None, 1500)
    meanwhile = [list(events(random, number, first=begin)) for begin, number in ((1600, 200), (1800, 120))]
    watch = Steps(lambda: scene.feed(meanwhile.pop(0)) if meanwhile else None)
    scene.rows(f"INSERT INTO tidegate_holds SELECT '{scene.id}', 'catchup:gone', 0, "
               "CAST(extract(epoch FROM now()) * 1000 AS BIGINT) + 2000 RETURNING 1")  # fmt: skip
    scene.feed(events(random, 100, first=1500))
    report = catchup(spark, scene, watch, max_lag=150).run()
    assert (report.total.total.read, len(report.rounds), report.lag) == (300, 2, 120)
    assert watch.waited_for == ["catchup:gone"]
