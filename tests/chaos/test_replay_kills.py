"""SIGKILL of the agent while it replays: each letter is sent once, and none is forgotten."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.harness import running, wait_until
from tests.providers.kafka import KafkaTopics
from tests.providers.postgres import Database
from tests.replaying import Replaying, orders
from tidegate.ledger import Ledger

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(900)]


def test_killed_at_random(kafka: KafkaTopics, postgres: Database, tmp_path: Path, seed: int, chaos: str) -> None:
    """Two agents, one of them killed again and again: the source has each replay once, all are accepted, the group closes,
    and the worker's ledger has read each once, too."""
    rng, number = random.Random(seed), 3000 if chaos == "short" else 30_000
    scene = Replaying(kafka, postgres.url, tmp_path)
    other = scene.another_agent()
    scene.feed(orders(range(number), amount=lambda n: 500))
    with running(scene.worker, scene.agent, other):
        scene.wait_indexed(number, 120)
        assert scene.worker.stop() == 0
        scene.mend(rules=[])
        scene.worker.start()
        job = scene.json("replay", "--no-canary", "--rate", "300", "--no-wait", "--yes")["job"]
        for _ in range(2 if chaos == "short" else 20):
            time.sleep(rng.uniform(0.5, 8.0))
            victim = rng.choice((scene.agent, other))
            victim.kill()
            victim.start()
        wait_until(lambda: scene.json("jobs", "show", job)["state"] == "done", 240, f"job {job}\n{scene.agent.tail()}")
        assert scene.json("jobs", "show", job)["outcomes"] == {"ok": number}
        assert scene.stats("open") == 0
        assert scene.ledger() == Ledger(read=2 * number, accepted=number, dead_lettered=number, replayed=number)
    sent = Counter(m.header("tidegate.replay.of") for m in scene.read(scene.source))
    del sent[None]
    assert sent == Counter({m.header("tidegate.dlq.id"): 1 for m in scene.read(scene.dlq)})
    assert len(sent) == number
