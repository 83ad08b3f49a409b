"""The records of the benchmarks: JSON of six fields, keyed by user, four partitions. The same arguments give the same
records, so that every engine's answer can be checked."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from confluent_kafka import KafkaError, Producer

PARTITIONS = 4
WINDOW = 60_000  # ms
START = 1_700_000_040_000  # ms since the epoch; a whole minute
DISORDER = 5_000  # ms by which an event time may lie behind the newest
PER_MS = 10  # records per millisecond of event time: a minute has 600 000

Answer = dict[tuple[str, int], tuple[int, float, float, float]]
"""(user, window start in ms) → count, sum, min, max of `amount`."""


@dataclass(frozen=True, slots=True)
class Event:
    user: str
    amount: float
    event_time: int
    value: bytes

    @property
    def partition(self) -> int:
        return zlib.crc32(self.user.encode()) % PARTITIONS


def events(
    records: int, keys: int, *, bad: float = 0.0, stretch: int = 0, per_ms: int = PER_MS, in_turn: bool = False
) -> Iterator[Event]:
    """`bad`: the share of records whose amount breaks a rule of the job; with `stretch` only in the stretches of so many
    records of which `is_bad` says so. `in_turn`: one user after the other, not at random: as many records as keys give each
    user one."""
    rng = random.Random(20_240_117)
    uniform, amounts = rng.random, [round(rng.random() * 100, 2) for _ in range(4096)]
    every = round(1 / bad) if bad else 0
    for i in range(records):
        user = f"u{i % keys if in_turn else int(uniform() * keys)}"
        amount = amounts[i * 31 & 4095]
        if every and i % every == 0 and (not stretch or is_bad(i // stretch)):
            amount = -1 - amount
        at = START + DISORDER + i // per_ms - int(uniform() * DISORDER)
        value = f'{{"id":{i},"user_id":"{user}","amount":{amount},"currency":"EUR","event_time":{at},"status":"paid"}}'
        yield Event(user, amount, at, value.encode())


def is_bad(stretch: int) -> bool:
    """Of every four behind the first: good, bad, bad, good."""
    return stretch % 4 in (2, 3)


SHARES, LAGS = (0.55, 0.25, 0.15, 0.05), (0, 0, 10 * WINDOW, 60 * WINDOW)
"""Of `skewed`, per partition: how many of the records, and by how much event time is behind (ms)."""


def skewed(records: int) -> Iterator[Event]:
    """Partitions of unequal size, of which two are behind in event time, as after an outage of one producer; within a
    partition no record is further behind the newest than DISORDER."""
    rng = random.Random(20_240_118)
    users: list[list[str]] = [[] for _ in range(PARTITIONS)]
    for number in range(400):
        users[zlib.crc32(f"u{number}".encode()) % PARTITIONS].append(f"u{number}")
    for i in range(records):
        (partition,) = rng.choices(range(PARTITIONS), SHARES)
        at = START + 70 * WINDOW + DISORDER + i * 10 - int(rng.random() * DISORDER) - LAGS[partition]
        user, amount = rng.choice(users[partition]), round(rng.random() * 100, 2)
        value = f'{{"id":{i},"user_id":"{user}","amount":{amount},"currency":"EUR","event_time":{at},"status":"paid"}}'
        yield Event(user, amount, at, value.encode())


def fill(servers: str, topic: str, records: Iterator[Event], progress: Callable[[int], None] | None = None) -> int:
    """Write the records; returns how many there were."""
    producer = Producer(
        {
            "bootstrap.servers": servers,
            "linger.ms": 50,
            "queue.buffering.max.messages": 1_000_000,
            "batch.size": 500_000,
        }
    )
    failures: list[str] = []

    def delivered(error: KafkaError | None, _: object) -> None:
        if error is not None:
            failures.append(str(error))

    count = 0
    for event in records:
        if count % 10_000 == 0:
            producer.poll(0)
            if progress is not None:
                progress(count)
        while True:
            try:
                timestamp = event.event_time + DISORDER
                producer.produce(
                    topic, event.value, event.user, event.partition, on_delivery=delivered, timestamp=timestamp
                )
                break
            except BufferError:
                producer.poll(0.1)
        count += 1
    left = producer.flush(60)
    if left or failures:
        raise RuntimeError(f"{left + len(failures)} records were not written to {topic}: {failures[:1]}")
    return count


def answer(records: Iterator[Event]) -> Answer:
    """The truth, in plain Python."""
    found: Answer = {}
    for event in records:
        key, amount = (event.user, event.event_time // WINDOW * WINDOW), event.amount
        n, total, low, high = found.get(key, (0, 0.0, amount, amount))
        found[key] = (n + 1, total + amount, min(low, amount), max(high, amount))
    return found


def differences(found: Answer, truth: Answer) -> int:
    """Windows that are missing, too many, or have other numbers; sums of doubles may differ by 1e-9 of themselves."""
    wrong = len(found.keys() ^ truth.keys())
    for key in found.keys() & truth.keys():
        n, total, low, high = found[key]
        m, wanted, least, most = truth[key]
        wrong += not (n == m and low == least and high == most and abs(total - wanted) <= 1e-9 * abs(wanted))
    return wrong
