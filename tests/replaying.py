"""A pipeline whose records fail, its worker, the agent of its dead letters, and the commands on them."""

from __future__ import annotations

import contextlib
import json
import logging
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import structlog
import typer.testing

from dlq.service import open_index
from tests.harness import Message, WorkerProcess, produce, read_topic, wait_until
from tests.providers.kafka import KafkaTopics
from tidegate.cli.main import app as tidegate
from tidegate.config.loading import load_pipeline
from tidegate.errors import TidegateError
from tidegate.ledger import LEDGER_COLUMNS, Ledger

Record = dict[str, Any]


def orders(numbers: Iterable[int], amount: Callable[[int], Any] = lambda n: n) -> list[Record]:
    """Records {"id": n, "amount": amount(n)} with key k{n % 7}."""
    return [
        {"key": b"k%d" % (n % 7), "value": json.dumps({"id": n, "amount": amount(n)}).encode(), "partition": n % 3}
        for n in numbers
    ]


class Replaying:
    """Topic `source`, dead letters in `dlq`; the rule `small`: amount ≤ 100, until it is mended.

    `settings` are laid over the pipeline file's top level, `dead_letters` over its block `deadLetters`.
    """

    def __init__(
        self, kafka: KafkaTopics, index: str, folder: Path, *, dead_letters: Record | None = None, **settings: Any
    ) -> None:
        self.kafka, self.folder = kafka, folder
        self.id = f"r-{uuid.uuid4().hex[:8]}"
        self.source = kafka.topic(partitions=3, name=f"{self.id}.source")
        self.dlq = kafka.topic(partitions=3, name=f"{self.id}.dlq")
        self.document: Record = {
            "pipelineId": self.id,
            "kafka": {"bootstrapServers": kafka.bootstrap_servers, "sessionTimeout": "6 seconds"},
            "source": {"topics": [self.source], "key": {"column": "key"}},
            "schema": [{"name": "id", "type": "bigint", "nullable": False}, {"name": "amount", "type": "bigint"}],
            "rules": [{"name": "small", "type": "range", "column": "amount", "max": 100}],
            "errorHandling": {
                "floodGuard": {"enabled": False},
                "retry": {"initialDelayMs": 50, "maxDelayMs": 200},
            },
            "deadLetters": {"index": index, **(dead_letters or {})},
            **settings,
        }
        self.agents = 0
        self.worker = self._process("worker")
        self.agent = self.another_agent()

    def another_agent(self) -> WorkerProcess:
        self.agents += 1
        return self._process(f"agent{self.agents}", app="dlq.app")

    def mend(self, **settings: Any) -> None:
        """Change the pipeline file; processes that run go on as they were."""
        self.document |= settings
        for process in (self.worker, self.agent):
            port = process.port
            process.pipeline = self._with_port(process.port)
            process.__post_init__()
            process.port = port

    def feed(self, records: list[Record]) -> None:
        produce(self.kafka.bootstrap_servers, self.source, records)

    def read(self, topic: str) -> list[Message]:
        return read_topic(self.kafka.bootstrap_servers, topic)

    def wait_indexed(self, letters: int, timeout: float = 60.0) -> None:
        wait_until(lambda: self.stats("letters") == letters, timeout, f"{letters} letters indexed\n{self.agent.tail()}")

    def stats(self, name: str) -> int:
        try:
            with open_index(load_pipeline(self.agent.file)) as index:
                return int(index.reader.stats()[name])
        except TidegateError:  # the tables are being made
            return -1

    def run(self, *command: str, code: int | None = 0, input: str | None = None) -> typer.testing.Result:
        """`tidegate dlq …` with the pipeline file behind the command's name (or names)."""
        names = 2 if command[0] == "jobs" else 1
        arguments = ["dlq", *command[:names], str(self.agent.file), *command[names:]]
        with _same_logging():
            result = typer.testing.CliRunner().invoke(tidegate, arguments, input=input)
        assert code is None or result.exit_code == code, f"{result.output}\n{result.exception!r}\n{self.agent.tail()}"
        return result

    def ledger(self) -> Ledger:
        """Of all partitions; each balances, and the dead-letter topic has what it says."""
        with _same_logging():
            result = typer.testing.CliRunner().invoke(tidegate, ["ledger", str(self.worker.file), "--json"])
        assert result.exit_code == 0, result.output
        rows = json.loads(result.stdout)["partitions"]
        return sum((Ledger(*(row[name] for name in LEDGER_COLUMNS)) for row in rows), Ledger())

    def json(self, *command: str, code: int | None = 0) -> Any:
        return json.loads(self.run(*command, "--json", code=code).stdout)

    def _process(self, name: str, app: str = "worker.app") -> WorkerProcess:
        process = WorkerProcess(self.document, self.folder, name, app=app)
        process.pipeline = self._with_port(process.port)
        port = process.port
        process.__post_init__()
        process.port = port
        return process

    def _with_port(self, port: int) -> Record:
        return {
            **self.document,
            "telemetry": {"port": port},
            "deadLetters": {**self.document["deadLetters"], "port": port},
        }


@contextlib.contextmanager
def _same_logging() -> Iterator[None]:
    """A command that works in this process sets up logging for its own stderr, which ends with it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()
