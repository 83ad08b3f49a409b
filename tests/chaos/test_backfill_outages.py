"""Brokers and database that go away in the middle of backfills."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

import pytest

from batch.backfill.recompute import RecomputeBackfill
from tests.contract.late_scene import LateScene, Told
from tests.contract.same_numbers_log import PIPELINE, Truth, make_log
from tests.contract.test_same_numbers import same_rows
from tests.providers.kafka import KafkaTopics
from tests.providers.postgres import fresh_database
from tidegate.store.shadow import Range

if TYPE_CHECKING:
    from tidegate.local.kafka import EmbeddedKafka
    from tidegate.local.postgres import EmbeddedPostgres

    Server = EmbeddedKafka | EmbeddedPostgres

pytestmark = [pytest.mark.slow, pytest.mark.kafka, pytest.mark.postgres, pytest.mark.timeout(900)]
ALWAYS = Range(0, 4_102_444_800_000)


@contextmanager
def away(server: Server, phase: str, told: Told, seconds: float) -> Iterator[None]:
    """Killed when that phase begins, and started again after so many seconds."""
    back = threading.Timer(seconds, server.start)

    def go(what: str) -> None:
        if what == phase and back.ident is None:
            server.kill()
            back.start()

    told.on_phase = go
    try:
        yield
    finally:
        told.on_phase = lambda what: None
        assert back.ident is not None, f"there was no phase {phase!r}"
        back.join()


def test_outages_in_the_middle_of_backfills(
    own_kafka: EmbeddedKafka, own_postgres: EmbeddedPostgres, seed: int, chaos: str
) -> None:
    """They wait until broker and database are back, add each late record once, and promote what the log says."""
    random, seconds = Random(seed), 30 if chaos == "long" else 3
    pairs: list[tuple[tuple[Server, str], tuple[Server, str]]] = [
        ((own_kafka, "reading the late records"), (own_postgres, "recomputing")),
        ((own_postgres, "amending"), (own_kafka, "recomputing")),
        ((own_kafka, "reading the late records"), (own_postgres, "comparing")),
        ((own_postgres, "amending"), (own_postgres, "promoting")),
    ]
    logs, meant = make_log(2000)
    handling = {"retry": {"maxAttempts": 2, "initialDelayMs": 50}, "circuitBreaker": {"resetTimeoutSeconds": 1}}
    settings = {"dedupe": None, "aggregations": PIPELINE["aggregations"][2:], "errorHandling": handling}
    truth = {"overall": Truth([replace(one, id=None) for one in meant]).rows("overall", late=True)}
    for late, anew in pairs if chaos == "long" else [random.choice(pairs)]:
        with (
            fresh_database(own_postgres.url) as database,
            closing(LateScene(KafkaTopics(own_kafka.bootstrap_servers), database.url, logs, **settings)) as scene,
        ):
            scene.read()
            with away(*late, scene.told, seconds):
                scene.backfill()
            assert scene.counts()[:2] == (0, 0)
            same_rows(scene.results(), truth)
            damaged = scene.query("UPDATE overall_partials SET n__n = n__n + 1 WHERE partition = 1 RETURNING 1")
            running = RecomputeBackfill(scene.pipeline, scene.told)
            with away(*anew, scene.told, seconds):
                running.compute(ALWAYS)
                _, _, [found] = running.promote()
            assert 0 < found.windows["promoted"] <= len(damaged)
            same_rows(scene.results(), truth)
