"""Late records by every strategy, and records on their second way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from tests.harness import running, wait_until
from tests.scene import MINUTE, START, Scene, assert_once, assert_same, events, record
from tests.truth import Produced, Truth

pytestmark = [pytest.mark.slow, pytest.mark.kafka, pytest.mark.postgres]


def work_off(scene: Scene) -> str:
    """A worker takes all that was produced. Returns what it said."""
    worker = scene.worker()
    with running(worker):
        wait_until(lambda: scene.applied() == len(scene.produced), 60, f"all applied\n{worker.tail()}")
        scene.check(30)
        assert worker.stop() == 0
    return worker.tail(10_000)


@pytest.mark.parametrize("strategy", ["drop", "logAndDrop", "sendToDLQ"])
def test_strategies_for_late_records(make_scene: Callable[..., Scene], seed: int, strategy: str) -> None:
    """Whatever becomes of late records, the ledger and the late table count them, and the results are the same.
    (`separateStream` is what all other tests use.)"""
    scene = make_scene(partitions=2, lateness=2000, settings={"lateData": {"strategy": strategy}})
    scene.feed(events(Random(seed), 2500))

    def check_late(truth: Truth) -> None:
        assert f"{scene.id}.late" not in scene.admin.list_topics(timeout=10).topics

    def check_dead_letters(truth: Truth) -> None:
        letters = scene.read(".dlq")
        assert_once(letters, "tidegate.dlq.id")
        expected = {f"{scene.topic}-{p}-{o}" for p, o in truth.dead_letters() | truth.late()}
        expected |= {f"{scene.topic}-{p}-{o}-event_time" for p, o in truth.partly_late()}
        assert_same("dead letters", expected, {m.header("tidegate.dlq.id") for m in letters})

    scene.check_late = check_late  # type: ignore[method-assign]  # this scene's own check
    if strategy == "sendToDLQ":
        scene.check_dead_letters = check_dead_letters  # type: ignore[method-assign]  # this scene's own check
    said = work_off(scene)
    assert len(scene.truth().late()) > 10
    assert ("late.dropped" in said) == (strategy == "logAndDrop")


def test_a_replay_is_never_late(make_scene: Callable[..., Scene]) -> None:
    """A record with the header tidegate.replay.of counts in its window however late it is, in the lane `replay`, and
    moves no watermark: not back, and not forward either."""
    scene = make_scene(partitions=1)

    def at(number: int, time: int, *, replay: bool = False) -> dict[str, object]:
        meant = Produced("event", -1, -1, "k", number, "p", "red", 1, START + time, replay)
        return record(meant, headers=[("tidegate.replay.of", b"x-0-1")] if replay else [])

    scene.feed([at(1, 0), at(2, 30 * MINUTE), at(3, 1000, replay=True), at(4, 2000)])
    scene.feed([at(5, 300 * MINUTE, replay=True), at(6, 30 * MINUTE + 1000)])
    work_off(scene)
    truth = scene.truth()
    assert truth.late() == {(0, 3)}
    lanes = dict(scene.rows("SELECT lane, sum(n__n) FROM per_key_partials GROUP BY 1"))
    assert lanes == {"live": 3, "replay": 2}


def test_replays_in_the_middle_of_a_stream(make_scene: Callable[..., Scene], seed: int) -> None:
    """Old dead letters that come back among live records change neither who is late nor any window but their own."""
    scene, given = make_scene(), []
    for number, one in enumerate(events(Random(seed), 3000)):
        given.append(one)
        if number % 50 == 49:
            old = next(events(Random(number), 1, first=100_000 + number, bad=False))["meant"]
            old = replace(old, event_time=START + number * 10, replay=True)
            given.append(record(old, headers=[("tidegate.replay.of", b"dead-0-%d" % number)]))
    scene.feed(given)
    work_off(scene)
