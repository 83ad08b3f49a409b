"""A real worker process over a real broker: starting it, killing it, feeding it, reading what it wrote."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from tidegate.headers import headers_of

ROOT = Path(__file__).parent.parent
PATIENCE = 2.0
"""Tests run side by side, and each takes longer than alone. Waiting longer costs nothing when all is well."""

_NOISE = ("nanobind:", "- leaked", "- ... skipped", "See https://nanobind")


@dataclass(frozen=True, slots=True)
class Message:
    """One record as it stands in a topic."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]

    def header(self, name: str) -> str | None:
        """The last header of that name."""
        return next((v.decode() for k, v in reversed(self.headers) if k == name), None)

    @property
    def json(self) -> Any:
        return json.loads(self.value or b"null")


def produce(servers: str, topic: str, records: Iterable[dict[str, Any]], **options: Any) -> list[tuple[int, int]]:
    """Write records (value, key, partition, timestamp, headers); returns each one's (partition, offset), in order."""
    producer = Producer(
        {"bootstrap.servers": servers, "linger.ms": 20, "queue.buffering.max.messages": 2_000_000, **options}
    )
    placed: dict[int, tuple[int, int]] = {}

    def delivered(number: int) -> Callable[[Any, Any], None]:
        def callback(error: Any, message: Any) -> None:
            assert error is None, error
            placed[number] = (message.partition(), message.offset())

        return callback

    count = 0
    for record in records:
        producer.produce(topic, on_delivery=delivered(count), **record)
        count += 1
        producer.poll(0)
    producer.flush(60)
    assert len(placed) == count
    return [placed[number] for number in range(count)]


def read_topic(servers: str, topic: str, *, isolation: str = "read_committed", timeout: float = 30.0) -> list[Message]:
    """Everything in a topic, partition by partition in offset order."""
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "harness",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 50,  # an end is told after an empty fetch, which waits for half a second else
            "isolation.level": isolation,
            "auto.offset.reset": "earliest",
        }
    )
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, p, 0) for p in partitions])
        messages, waiting, deadline = [], set(partitions), time.monotonic() + timeout
        while waiting and time.monotonic() < deadline:
            for message in consumer.consume(10_000, timeout=0.1):
                if message.error() is None:
                    messages.append(_message(message))
                elif message.error().code() == KafkaError._PARTITION_EOF:
                    waiting.discard(message.partition())
        assert not waiting, f"{topic}: no end of partitions {waiting} within {timeout} s"
    finally:
        consumer.close()
    return sorted(messages, key=lambda m: (m.partition, m.offset))


def wait_until(condition: Callable[[], bool], timeout: float, what: str, every: float = 0.1) -> None:
    """Poll until the condition holds; AssertionError naming `what` when it does not in time.

    `timeout`: s, for a test that has the machine for itself. `every`: s between two looks.
    """
    deadline = time.monotonic() + timeout * PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout * PATIENCE} s: {what}"
        time.sleep(every)


def eventually(check: Callable[[], object], within: float) -> None:
    """Check until it holds, for so many seconds of a test that has the machine for itself. The last difference is the error."""
    deadline = time.monotonic() + within * PATIENCE
    while True:
        try:
            check()
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)
        else:
            return


@dataclass
class WorkerProcess:
    """`faust -A worker.app worker` on a pipeline, as a process of its own.

    `app`: another Faust app. `started_by`: a command that takes the pipeline file, such as `tidegate worker`, in Faust's place.
    """

    pipeline: dict[str, Any]
    directory: Path
    name: str = "worker"
    app: str = "worker.app"
    started_by: Sequence[str] | None = None
    log: Path = field(init=False)
    port: int = field(init=False)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.port = free_port()
        self.log = self.directory / f"{self.name}.log"
        document = {
            **self.pipeline,
            "telemetry": {"port": self.port, **self.pipeline.get("telemetry", {})},
            "worker": {"stateDir": str(self.directory / f"{self.name}-state"), **self.pipeline.get("worker", {})},
        }
        self.file = self.directory / f"{self.name}.yaml"
        self.file.write_text(yaml.safe_dump(document))

    def start(self) -> WorkerProcess:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "faust", "-A", self.app, "worker", "-l", "info"]
        if self.started_by is None:
            environment["TIDEGATE_PIPELINE"] = str(self.file)
        else:
            command = [*self.started_by, str(self.file)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                env=environment,
                cwd=self.directory,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    def signal(self, number: int) -> None:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait(10)

    def stop(self, timeout: float = 30.0) -> int:
        """SIGTERM; the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def wait(self, timeout: float) -> int:
        assert self.process is not None
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} did not end within {timeout} s\n{self.tail()}") from None

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of a page of its HTTP server; (0, "") while nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=2) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def wait_ready(self, timeout: float = 60.0) -> None:
        def ready() -> bool:
            assert self.running, f"{self.name} ended\n{self.tail()}"
            return self.get("/ready")[0] == 200

        wait_until(ready, timeout, f"{self.name} ready\n{self.tail()}")

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's series with these labels; 0 when there are none."""
        total = 0.0
        for line in self.get("/metrics")[1].splitlines():
            series, _, value = line.rpartition(" ")
            if series.split("{")[0] == name and all(f'{k}="{v}"' in series for k, v in labels.items()):
                total += float(value)
        return total

    def tail(self, lines: int = 40) -> str:
        """The end of its log, without what DuckDB's binding adds when an interpreter ends on an error."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join([line for line in text.splitlines() if not line.lstrip().startswith(_NOISE)][-lines:])


@contextlib.contextmanager
def running(*workers: WorkerProcess) -> Iterator[None]:
    """Start the workers; whatever happens, none is left. When the test fails, what each said last is shown."""
    try:
        for worker in workers:
            worker.start()
        yield
    except BaseException:
        sys.stdout.writelines(f"\n{worker.name} at the end:\n{worker.tail(80)}\n" for worker in workers)
        raise
    finally:
        for worker in workers:
            if worker.running:
                worker.kill()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _message(message: Any) -> Message:
    headers = tuple((key, value or b"") for key, value in headers_of(message))
    return Message(
        message.topic(),
        message.partition(),
        message.offset(),
        message.timestamp()[1],
        message.key(),
        message.value(),
        headers,
    )
