"""A worker over logs of every kind: compressed, compacted, transactional, aborted, without keys, growing."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs do not re-export them
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
)

from tests.harness import running, wait_until
from tests.scene import MINUTE, Scene, events, ms, record
from tests.truth import MEASURES, Aggregate

pytestmark = [pytest.mark.slow, pytest.mark.kafka, pytest.mark.postgres]


def work_off(scene: Scene) -> None:
    """A worker takes all that was produced; what comes out is the truth."""
    worker = scene.worker()
    with running(worker):
        wait_until(lambda: scene.applied() == len(scene.produced), 60, f"all applied\n{worker.tail()}")
        scene.check(30)
        assert worker.stop() == 0


def transactional(scene: Scene, name: str) -> Producer:
    producer = Producer({"bootstrap.servers": scene.servers, "transactional.id": f"{scene.id}-{name}"})
    producer.init_transactions(30)
    return producer


def abort_at_the_end(producer: Producer, topic: str, partitions: int) -> None:
    """Records and a control record at the end of each partition that no reader of committed records sees."""
    producer.begin_transaction()
    for partition in range(partitions):
        for number in range(20):
            producer.produce(topic, key=b"\x00P", value=b"aborted %d" % number, partition=partition)
    producer.flush(30)
    producer.abort_transaction(30)


def test_compressed_batches_of_every_codec(make_scene: Callable[..., Scene], seed: int) -> None:
    """gzip, snappy, lz4 and zstd, side by side in one topic."""
    scene, random = make_scene(), Random(seed)
    for number, codec in enumerate(("none", "gzip", "snappy", "lz4", "zstd")):
        scene.feed(events(random, 600, first=number * 600), **{"compression.type": codec})
    work_off(scene)


def test_a_transactional_source_and_changelog_with_aborted_ends(make_scene: Callable[..., Scene], seed: int) -> None:
    """What a transaction aborted does not count, and neither source nor changelog that end in an aborted transaction
    and its control record hold up the start, also without local state."""
    scene, random = make_scene(), Random(seed)
    scene.feed(events(random, 500))
    producer = transactional(scene, "source")
    producer.begin_transaction()
    given = list(events(random, 500, first=500))
    placed: dict[int, tuple[int, int]] = {}
    for number, one in enumerate(given):
        fields = {key: value for key, value in one.items() if key != "meant"}

        def delivered(error: object, message: object, number: int = number) -> None:
            assert error is None, error
            placed[number] = (message.partition(), message.offset())  # type: ignore[attr-defined]  # a delivered message has both

        producer.produce(scene.topic, on_delivery=delivered, **fields)
    producer.flush(30)
    producer.commit_transaction(30)
    scene.remember(given, [placed[number] for number in range(len(given))])
    abort_at_the_end(producer, scene.topic, scene.partitions)
    work_off(scene)

    abort_at_the_end(transactional(scene, "changelog"), f"{scene.id}..changelog.{scene.topic}", scene.partitions)
    shutil.rmtree(scene.directory / "worker-state")
    worker = scene.worker()
    with running(worker):
        worker.wait_ready(30)
        scene.feed(events(random, 500, first=1000))
        wait_until(lambda: scene.applied() == len(scene.produced), 60, f"all applied\n{worker.tail()}")
        scene.check(30)
        assert worker.stop() == 0


def test_a_compacted_source(make_scene: Callable[..., Scene], seed: int) -> None:
    """Offsets that compaction has taken away are gaps, not losses: what is left in the log is what counts."""
    config = {
        "cleanup.policy": "compact", "segment.ms": "200", "min.cleanable.dirty.ratio": "0.001",
        "min.compaction.lag.ms": "0", "max.compaction.lag.ms": "200",
    }  # fmt: skip
    scene, random = make_scene(partitions=1, topic_config=config), Random(seed)
    for part in range(4):
        scene.feed(events(random, 200, first=part * 200, bad=False, keys=30))
        time.sleep(0.3)
    count = len(scene.produced)

    def compacted() -> bool:
        scene.feed(events(random, 1, first=len(scene.produced), bad=False))  # a segment is rolled by what comes next
        time.sleep(0.5)
        return len(left()) < count * 0.8

    def left() -> set[tuple[int, int]]:
        return {(m.partition, m.offset) for m in scene.read(".source")}

    wait_until(compacted, 45, "the broker compacts")
    keep_all(scene)
    before = settled(left)
    scene.produced = [one for one in scene.produced if (one.partition, one.offset) in before]
    assert len(scene.produced) < count
    worker = scene.worker()
    with running(worker):
        wait_until(lambda: scene.applied() == len(before), 60, f"all applied\n{worker.tail()}")
        scene.check(30)
        assert worker.stop() == 0
    assert left() == before, "the broker compacted while the worker read: what it read is not known"


def keep_all(scene: Scene) -> None:
    """From now on the broker compacts the source topic no more."""
    resource = ConfigResource(ConfigResource.Type.TOPIC, scene.topic)
    change = ConfigEntry("cleanup.policy", "delete", incremental_operation=AlterConfigOpType.SET)
    resource.add_incremental_config(change)
    for done in scene.admin.incremental_alter_configs([resource]).values():
        done.result(30)


def settled(read: Callable[[], set[tuple[int, int]]]) -> set[tuple[int, int]]:
    """What is read twice in a row, a second apart: a compaction that had begun is over by then."""
    before: set[tuple[int, int]] = set()
    while (found := read()) != before:
        before = found
        time.sleep(1)
    return found


def test_records_without_keys(make_scene: Callable[..., Scene], seed: int) -> None:
    """Without keys the groups spread over all partitions; the merge agent's totals are exact all the same."""
    aggregates = (
        Aggregate("per_person", MINUTE, MINUTE, ("person",)),
        Aggregate("overall", 2 * MINUTE, MINUTE, ()),
    )
    scene = make_scene(aggregates=aggregates)
    scene.pipeline["source"] = {"topics": [scene.topic]}
    given = [{**one, "key": None, "meant": replace(one["meant"], key=None), "partition": number % 3}
             for number, one in enumerate(events(Random(seed), 4000))]  # fmt: skip
    scene.feed(given)
    work_off(scene)


def test_a_topic_that_grows_while_the_worker_runs(make_scene: Callable[..., Scene], seed: int) -> None:
    """From 3 to 6 partitions: changelog and dead letters grow with it, and the groups that now come from two partitions
    are added up: all of them in the database; on Kafka those that always come from several partitions, while those by the
    record's key come in two parts for the windows that were open."""
    aggregates = (
        Aggregate("per_colour", MINUTE, MINUTE, ("colour",)),
        Aggregate("overall", 2 * MINUTE, MINUTE, ("person",)),
        Aggregate("per_key", MINUTE, MINUTE, ("key",)),
    )
    scene, random = make_scene(aggregates=aggregates), Random(seed)
    scene.pipeline["kafka"]["metadataMaxAge"] = "1 second"
    scene.feed(events(random, 3000))
    worker = scene.worker()
    with running(worker):
        wait_until(lambda: scene.applied() == 3000, 60, f"all applied\n{worker.tail()}")
        for done in scene.admin.create_partitions([NewPartitions(scene.topic, 6)]).values():
            done.result(30)
        wait_until(lambda: len(scene.admin.list_topics(scene.topic).topics[scene.topic].partitions) == 6, 10, "growth")
        scene.feed(events(random, 3000, first=3000))
        assert {one.partition for one in scene.produced} == set(range(6))
        wait_until(lambda: scene.applied() == 6000, 90, f"the new partitions are read\n{worker.tail()}")
        wait_until(lambda: windows_are_final(scene), 30, f"all windows are final\n{worker.tail()}")
        assert worker.stop() == 0
    assert "results on Kafka of windows that are open now come in two parts" in worker.log.read_text()
    truth = scene.truth()
    scene.check_database(truth)
    scene.check_dead_letters(truth)
    scene.check_late(truth)
    for name in ("per_colour", "overall"):
        scene.check_results(truth, name, final=True)
    parts = newest_per_partition(scene, "per_key")
    assert len({key for key, _ in parts}) < len(parts)
    whole: Counter[Any] = Counter()
    for (key, _), document in parts.items():
        whole[key] += document["values"]["n"]
    expected = {(*key[:1], *key[2:]): row[MEASURES.index("n")] for key, row in truth.results("per_key").items()}
    assert whole == expected


def newest_per_partition(scene: Scene, name: str) -> dict[tuple[Any, int], Any]:
    """((window start in ms, key), partition) → the newest result there."""
    return {
        ((ms(m.json["window"]["start"]), m.json["group"]["key"]), m.partition): m.json for m in scene.read(f".{name}")
    }


def windows_are_final(scene: Scene) -> bool:
    """Every newest result of each aggregation is final."""
    newest = {(m.topic, m.key, m.partition): m.json["final"] for name in ("per_colour", "overall", "per_key")
              for m in scene.read(f".{name}")}  # fmt: skip
    return all(newest.values())


def test_a_record_that_says_nothing_but_its_key(make_scene: Callable[..., Scene]) -> None:
    """Tombstones and empty values at the very end of a log are accounted for, and hold nothing up."""
    scene = make_scene(partitions=1)
    given = list(events(Random(1), 300, bad=False))
    last = given[-1]["meant"]
    given.append(record(replace(last, kind="tombstone"), value=None))
    given.append({"key": b"k", "value": b"", "meant": replace(last, kind="malformed")})
    scene.feed(given)
    work_off(scene)
