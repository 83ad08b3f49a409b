"""The broker and the database go away while a replay is under way: it waits, and goes on where it was."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from confluent_kafka import KafkaException

from dlq.index.database import IndexDatabase
from dlq.replay.agent import ReplayAgent
from tests.contract.replay_scene import ReplayScene, replay_scene
from tests.harness import wait_until
from tests.providers.kafka import KafkaTopics
from tidegate.errors import TidegateError
from tidegate.local.kafka import EmbeddedKafka
from tidegate.local.postgres import EmbeddedPostgres

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.slow, pytest.mark.chaos]


@pytest.fixture
def scene(own_kafka: EmbeddedKafka, own_postgres: EmbeddedPostgres) -> Iterator[ReplayScene]:
    """On servers of its own."""
    with replay_scene(KafkaTopics(own_kafka.bootstrap_servers), own_postgres.url) as made:
        yield made


def test_both_go_away(scene: ReplayScene, own_kafka: EmbeddedKafka, own_postgres: EmbeddedPostgres, chaos: str) -> None:
    """Whatever is away in the middle of a job, and for how long: each letter is sent once, and each gets its outcome."""
    away, number = (15.0, 4000) if chaos == "long" else (1.5, 400)
    scene.letters(range(number))
    job = scene.job(owner="", canary=False, rate=100)
    database = IndexDatabase(own_postgres.url, scene.pipeline.dead_letters)
    agent = ReplayAgent(scene.pipeline, database)

    def known(of: Callable[[], bool]) -> bool:
        with suppress(TidegateError, KafkaException, AssertionError):  # it is still coming back
            return of()
        return False

    def sent(least: int) -> None:
        wait_until(lambda: known(lambda: scene.index.jobs.get(job.id).sent >= least), 60, f"{least} are sent")

    def done() -> bool:
        scene.work()
        return scene.index.jobs.get(job.id).state == "done"

    agent.start()
    try:
        sent(20)
        for server in (own_postgres, own_kafka):
            server.kill()
            time.sleep(away)
            server.start()
            sent(min(number, scene.index.jobs.get(job.id).sent + 20))
        wait_until(lambda: known(done), 90, "the job is done", every=0.5)
    finally:
        agent.stop()
        database.close()
    assert scene.outcomes(job) == {"ok": number}
    assert scene.sent() == Counter({scene.id_of(n): 1 for n in range(number)})
