"""The pipeline file is changed while a replay job is at work, over a real broker."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dlq.replay import run
from dlq.replay.agent import ReplayAgent
from tests.contract.replay_scene import ReplayScene
from tests.harness import wait_until
from tests.providers.kafka import KafkaTopics
from tidegate.errors import ConfigError

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

_LOOKS = 2.5  # seconds: an agent looks for jobs every second


@contextmanager
def agent(replays: ReplayScene) -> Iterator[None]:
    """An agent with the file as it is now, until the end of the block and of two more looks."""
    one = ReplayAgent(replays.pipeline, replays.index.jobs.database)
    one.start()
    try:
        yield
        time.sleep(_LOOKS)
    finally:
        one.stop()


def times_stopped(replays: ReplayScene) -> int:
    """How often the history says so."""
    return [entry["action"] for entry in replays.index.reader.history()].count("replay stopped")


def test_a_target_that_leaves_the_file(replays: ReplayScene, kafka: KafkaTopics) -> None:
    """A job that sends there sends no more and says why, once; what it has sent is as on a topic that nobody is known to read. It
    can be cancelled, and the rest goes elsewhere."""
    topic = kafka.topic()
    replays.configure(replayTargets=[{"topic": topic, "group": f"{topic}-readers"}])
    replays.letters(range(3))
    job = replays.job(to=topic)  # a canary: the second letter waits for the first
    replays.send_a_chunk(job)
    replays.index.jobs.release(job)
    replays.configure()
    with agent(replays):
        wait_until(lambda: replays.index.jobs.get(job.id).state == "stopped", 20, "the job stops")
    assert "may not be replayed to this topic" in replays.index.jobs.get(job.id).reason
    assert replays.outcomes(job) == {"sent": 1}
    assert times_stopped(replays) == 1
    replays.index.jobs.cancel(job.id, actor="ada")
    claimed = replays.index.jobs.claim("me")
    assert claimed is not None
    assert replays.carry_out(claimed).state == "cancelled"
    assert replays.outcomes(job) == {"sent": 1, "cancelled": 2}
    assert replays.open() == 2


def test_a_job_that_can_no_longer_be_carried_out(replays: ReplayScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has sent is yet to be followed, and an agent tries that now and then: it says once why the job has stopped."""
    replays.letters(range(1))
    job = replays.job()
    replays.send_a_chunk(job)
    replays.index.jobs.release(job)
    tried: list[object] = []

    def refused(*args: object) -> None:
        tried.append(args)
        raise ConfigError("no such thing")

    monkeypatch.setattr(run, "Targets", refused)
    with agent(replays):
        wait_until(lambda: len(tried) == 2, 20, "the agent tries again")
    assert len(tried) == 2
    assert replays.index.jobs.get(job.id).reason == "no such thing"
    assert times_stopped(replays) == 1
