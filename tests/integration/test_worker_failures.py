"""What a worker does with records, handlers, settings and sinks that fail: which of them it dead-letters, and how it ends."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from confluent_kafka import TopicPartition

from tests.harness import running, wait_until
from tests.scene import MINUTE, Scene, events, record
from tests.truth import Aggregate
from tests.unreadable import NotUtf8, produce_rows
from tidegate.headers import UNREADABLE
from tidegate.record import OutRow
from transport.ending import GRACE

pytestmark = [pytest.mark.slow, pytest.mark.kafka, pytest.mark.postgres]

CONFIGURATION, DATA, LOG, STUCK = 2, 65, 66, 70


def ends_with(scene: Scene, code: int, *words: str, within: float = 60.0, name: str = "worker") -> str:
    """The worker ends by itself with this code, and its last words have all of these in them."""
    worker = scene.worker(name)
    with running(worker):
        assert worker.wait(within) == code, worker.tail(80)
    said = worker.tail(30)
    for word in words:
        assert word in said, said
    return said


def written(scene: Scene, suffix: str) -> int:
    """How many records a topic of the pipeline has; 0 when it does not exist."""
    exists = f"{scene.id}{suffix}" in scene.admin.list_topics(timeout=10).topics
    return len(scene.read(suffix)) if exists else 0


def test_a_handler_outage_pauses_and_dead_letters_nothing(
    make_scene: Callable[..., Scene], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """While the service behind a handler is away the partitions wait and keep their place; then all goes on. Records
    that another handler leaves out or refuses are accounted for one by one."""
    switch = tmp_path / "away"
    monkeypatch.setenv("SERVICE", str(switch))
    calls = ("ask_service", "no_blue", "refuse_999")
    scene = make_scene(
        settings={
            "handlers": [{"call": f"tests.handlers:{name}"} for name in calls],
            "errorHandling": {
                "retry": {"maxAttempts": 2, "initialDelayMs": 50},
                "circuitBreaker": {"failureThreshold": 2, "resetTimeoutSeconds": 1},
            },
        }
    )

    def meant(given: dict[str, object]) -> dict[str, object]:
        one = given["meant"]
        if one.kind == "event" and one.colour == "blue":  # type: ignore[attr-defined]  # `given` holds objects: it is a Meant
            return {**given, "meant": replace(one, kind="filtered")}  # type: ignore[type-var]  # `given` holds objects: it is a Meant
        if one.kind == "event" and one.amount == 999:  # type: ignore[attr-defined]  # `given` holds objects: it is a Meant
            return {**given, "meant": replace(one, kind="refused")}  # type: ignore[type-var]  # `given` holds objects: it is a Meant
        return given

    given = [meant(one) for one in events(Random(seed), 1500)]
    one = next(g for g in given if g["meant"].kind == "event")["meant"]  # type: ignore[attr-defined]  # `given` holds objects: it is a Meant
    given.append(record(replace(one, kind="refused", amount=999, id=99_999)))
    scene.feed(given[:700])
    worker = scene.worker()
    with running(worker):
        wait_until(lambda: scene.applied() == 700, 60, f"the first are applied\n{worker.tail()}")
        before = worker.metric("tidegate_consumer_rebalances_total")
        switch.touch()
        scene.feed(given[700:])
        wait_until(lambda: worker.metric("tidegate_consumer_paused_partitions", reason="breaker") == 3, 30, "pause")
        assert worker.get("/ready")[0] == 503
        assert scene.applied() == 700
        switch.unlink()
        wait_until(lambda: scene.applied() == len(given), 30, f"all applied\n{worker.tail()}")
        assert worker.metric("tidegate_consumer_rebalances_total") == before
        assert worker.metric("tidegate_engine_active", engine="stream") == 1
        scene.check(30)
        wait_until(lambda: worker.metric("tidegate_offset_commits_total", outcome="ok") > 0, 10, "the group is told")
        assert worker.stop() == 0


def test_the_flood_guard_stops_the_worker_with_nothing_moved(make_scene: Callable[..., Scene], seed: int) -> None:
    """When too many records fail the worker ends with code 65 and the reasons, and neither offsets nor state have moved;
    with a higher limit the same records are worked off."""
    guard = {"maxRatio": 0.2, "window": 200}
    scene = make_scene(partitions=1, settings={"errorHandling": {"floodGuard": guard}})
    random = Random(seed)
    scene.feed(events(random, 400))
    worker = scene.worker()
    with running(worker):
        wait_until(lambda: scene.applied() == 400, 60, f"the first are applied\n{worker.tail()}")
        scene.check(20)
        assert worker.stop() == 0
    truth, letters = scene.truth(), written(scene, ".dlq")
    flood = [record(replace(one["meant"], amount=-5)) for one in events(random, 300, first=400, bad=False)]
    scene.feed(flood)
    ends_with(scene, DATA, "flood guard", "RuleViolation", "floodGuard.maxRatio")
    assert scene.applied() == 400
    assert written(scene, ".dlq") == letters
    scene.check_database(truth)
    committed = scene.committed()
    assert committed == {0: scene.produced[399].offset + 1}

    scene.pipeline["errorHandling"] = {"floodGuard": {"enabled": False}}
    worker = scene.worker()
    with running(worker):
        wait_until(lambda: scene.applied() == 700, 60, f"all applied\n{worker.tail()}")
        scene.check(30)


def test_a_rule_that_aborts_ends_the_worker(make_scene: Callable[..., Scene], seed: int) -> None:
    """`onFailure: abort` ends the worker with code 65, naming the rule; the batch is not applied."""
    rule = {
        "type": "allowedValues",
        "column": "colour",
        "values": ["red", "green"],
        "onFailure": "abort",
        "name": "no-paint",
    }
    scene = make_scene(partitions=1, settings={"rules": [rule]})
    scene.feed(events(Random(seed), 50, bad=False))
    ends_with(scene, DATA, "no-paint")
    assert scene.applied() == 0
    assert written(scene, ".dlq") == 0


def test_offsets_that_the_log_has_lost(make_scene: Callable[..., Scene], seed: int) -> None:
    """When records were deleted before they were read the worker ends with code 66 and says so; with
    `onOutOfRange: earliest` it goes on with what is left."""
    scene, random = make_scene(partitions=1), Random(seed)
    scene.feed(events(random, 200))
    worker = scene.worker()
    with running(worker):
        wait_until(lambda: scene.applied() == 200, 60, f"all applied\n{worker.tail()}")
        assert worker.stop() == 0
    scene.feed(events(random, 200, first=200))
    for done in scene.admin.delete_records([TopicPartition(scene.topic, 0, 300)]).values():
        done.result(30)
    ends_with(scene, LOG, "200", "300", "onOutOfRange: earliest")
    assert scene.applied() == 200

    scene.pipeline["source"]["onOutOfRange"] = "earliest"
    scene.produced = [one for one in scene.produced if not 200 <= one.offset < 300]
    worker = scene.worker()
    with running(worker):
        wait_until(lambda: scene.applied() == 300, 60, f"what is left is applied\n{worker.tail()}")
        scene.check(30)
        assert worker.stop() == 0


def test_a_value_that_the_database_refuses(make_scene: Callable[..., Scene], seed: int) -> None:
    """A NUL character is text for Kafka, not for PostgreSQL: exactly its records are dead-lettered, at stage sink."""
    aggregates = (Aggregate("per_key", MINUTE, MINUTE, ("key",)), Aggregate("overall", MINUTE, MINUTE, ("colour",)))
    scene = make_scene(aggregates=aggregates)
    given = list(events(Random(seed), 1200))
    for number in (7, 400, 401, 1100):
        one = next(g for g in events(Random(number), 1, first=number, bad=False))
        one["meant"] = replace(one["meant"], kind="refused", colour="nul\x00")
        given[number] = record(one["meant"])
    scene.feed(given)
    worker = scene.worker()
    with running(worker):
        wait_until(lambda: scene.applied() == len(given), 60, f"all applied\n{worker.tail()}")
        scene.check(30)
        assert worker.stop() == 0
    at_sink = [m for m in scene.read(".dlq") if m.header("tidegate.dlq.stage") == "sink"]
    assert len(at_sink) == 4
    assert all(b"\\u0000" in (m.value or b"") for m in at_sink)
    assert {m.header("tidegate.dlq.error.type") for m in at_sink} == {"SinkRefused"}


def test_an_oversized_record_is_kept_truncated(make_scene: Callable[..., Scene], seed: int) -> None:
    """A record near the broker's limit that fails leaves a dead letter with its beginning, size and digest."""
    scene = make_scene(partitions=1, topic_config={"max.message.bytes": "3000000"})
    given = list(events(Random(seed), 50))
    huge = b'{"id": "' + b"x" * 2_500_000
    given.append({"key": b"big", "value": huge, "meant": replace(given[0]["meant"], kind="malformed")})
    scene.feed(given, **{"message.max.bytes": 4_000_000})
    worker = scene.worker()
    with running(worker):
        wait_until(lambda: scene.applied() == 51, 60, f"all applied\n{worker.tail()}")
        scene.check(30)
    letter = scene.read(".dlq")[-1]
    assert letter.value == huge[: len(letter.value or b"")]
    assert letter.header("tidegate.dlq.value.size") == str(len(huge))
    assert letter.header("tidegate.dlq.value.sha256") == hashlib.sha256(huge).hexdigest()
    assert letter.header("tidegate.dlq.truncated") == "value"


def test_settings_that_do_not_fit_the_world(make_scene: Callable[..., Scene], seed: int) -> None:
    """A source topic that does not exist ends the worker with code 2, naming it. So does an aggregation that was
    changed under its old name, with the way out."""
    scene = make_scene(partitions=1)
    scene.feed(events(Random(seed), 100))
    scene.pipeline["source"]["topics"] = ["no-such-topic"]
    ends_with(scene, CONFIGURATION, "/lost.yaml:", "no-such-topic", "does not exist", name="lost")
    scene.pipeline["source"]["topics"] = [scene.topic]
    worker = scene.worker()
    with running(worker):
        wait_until(lambda: scene.applied() == 100, 60, f"all applied\n{worker.tail()}")
        assert worker.stop() == 0
    scene.pipeline["aggregations"][0]["window"] = {"size": "5 minutes"}
    said = ends_with(scene, CONFIGURATION, "per_key", "new name")
    assert "Traceback" not in said


def test_a_stuck_worker_ends(make_scene: Callable[..., Scene], seed: int) -> None:
    """A handler that never comes back: the worker ends with code 70 when the stuck timeout is over, and says why."""
    settings = {"handlers": [{"call": "tests.handlers:block_for_ever"}], "worker": {"stuckTimeout": "4 seconds"}}
    scene = make_scene(partitions=1, settings=settings)
    scene.feed(events(Random(seed), 50, bad=False))
    ends_with(scene, STUCK, "worker.stuck")
    assert scene.applied() == 0


def test_a_handler_that_never_comes_back_does_not_hold_up_a_stop(make_scene: Callable[..., Scene], seed: int) -> None:
    """SIGTERM: /ready says so while the time runs, the process is gone when `drainTimeout` is over, with code 70 and what it
    was at; the next worker reads everything."""
    limits = {"drainTimeout": "2 seconds"}
    scene = make_scene(
        partitions=1, settings={"handlers": [{"call": "tests.handlers:block_for_ever"}], "worker": limits}
    )
    scene.feed(events(Random(seed), 50, bad=False))
    worker = scene.worker()
    with running(worker):
        worker.wait_ready()
        wait_until(lambda: worker.metric("tidegate_records_in_progress") == 50, 30, "the handler has them")
        worker.signal(signal.SIGTERM)
        wait_until(lambda: "stopping" in worker.get("/ready")[1], 2, "it says that it stops")
        assert worker.get("/live")[0] == 200
        assert worker.wait(2 + GRACE) == STUCK
    said = worker.log.read_text()
    assert "worker ended before it had finished, worker.drainTimeout (2 s) is over" in said
    assert f"{scene.topic}-0: the stages of offsets 0 to 49 for " in said
    del scene.pipeline["handlers"]
    worker = scene.worker()
    with running(worker):
        wait_until(lambda: scene.applied() == 50, 60, f"nothing is lost\n{worker.tail()}")
        scene.check(30)
        assert worker.stop() == 0


def test_one_partition_that_is_stuck_beside_others_that_move(make_scene: Callable[..., Scene], seed: int) -> None:
    """The worker ends with code 70 and names the partition, though the other one goes on."""
    settings = {
        "handlers": [{"call": "tests.handlers:block_blue", "concurrency": 4}],
        "worker": {"stuckTimeout": "4 seconds", "maxBatchRecords": 20},
    }
    scene = make_scene(partitions=2, settings=settings)
    given = list(events(Random(seed), 4000, bad=False))
    blue = next(one for one in given if one["meant"].colour == "blue")
    others = [one for one in given if one["meant"].colour != "blue"]
    scene.feed([{**blue, "partition": 0}, *({**one, "partition": 1} for one in others)])
    worker = scene.worker()
    with running(worker):
        code = worker.wait(60)
        said = worker.log.read_text()
    assert code == STUCK
    assert f"worker.stuck: {scene.topic}-0 has not moved for" in said
    assert f"{scene.topic}-1 has not moved" not in said


def test_a_dead_letter_says_all_that_is_needed(make_scene: Callable[..., Scene]) -> None:
    """Original bytes and headers, the reason, and where it came from; of headers that cannot be read, that there were some."""
    scene = make_scene(partitions=1)
    meant = next(events(Random(1), 1, bad=False))["meant"]
    one = record(replace(meant, amount=2000), headers=[("source", b"till 3"), ("trace", b"\xff\x00")])
    scene.feed([one])
    produce_rows(scene.servers, [OutRow(scene.topic, 0, one["key"], one["value"], [(NotUtf8("é"), b"1")])])
    scene.remember([one], [(0, 1)])
    worker = scene.worker()
    with running(worker):
        wait_until(lambda: scene.applied() == 2, 60, f"applied\n{worker.tail()}")
        scene.check(20)
    letter, unreadable = scene.read(".dlq")
    assert [header for header in unreadable.headers if "." not in header[0]] == [(UNREADABLE, b"")]
    assert unreadable.value == letter.value
    assert json.loads(letter.value or b"")["amount"] == 2000
    assert ("source", b"till 3") in letter.headers
    assert ("trace", b"\xff\x00") in letter.headers
    assert letter.key == meant.key.encode()
    assert letter.header("tidegate.dlq.stage") == "validate"
    assert letter.header("tidegate.dlq.id") == f"{scene.topic}-0-0"
    assert letter.header("__connect.errors.topic") == scene.topic
