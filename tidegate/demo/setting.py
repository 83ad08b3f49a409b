"""What all acts of the demo work on: the topic, the pipeline file, the worker, the agent of dead letters, the shell."""

from __future__ import annotations

import os
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from rich.console import Console

from tidegate.clock import Clock
from tidegate.demo.service import Service
from tidegate.demo.shell import PROGRAM, Shell
from tidegate.local.process import free_ports
from tidegate.local.stack import LocalStack

TOPIC = "departures"
PARTITIONS = 6


@dataclass(frozen=True, slots=True)
class PipelineFile:
    """The demo's pipeline file in the stack's directory, and what it says: addresses, and the console's `token`."""

    path: Path
    id: str
    worker: str
    agent: str
    console: str
    token: str


@dataclass(frozen=True, slots=True)
class Setting:
    """Nothing of it is started yet, but the stack."""

    stack: LocalStack
    pipeline: PipelineFile
    console: Console
    clock: Clock

    @property
    def environment(self) -> dict[str, str]:
        """Of every process: without settings of whoever runs the demo, and with temporary files where nothing stays."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}
        return own | {"TMPDIR": str(self.stack.directory)}

    @property
    def shell(self) -> Shell:
        return Shell(self.console, self.pipeline.path, self.environment)

    def worker(self) -> Service:
        """A `faust` process of its own."""
        command = [sys.executable, "-m", "faust", "-A", "worker.app", "worker", "-l", "info"]
        environment = self.environment | {"TIDEGATE_PIPELINE": str(self.pipeline.path)}
        return Service(self.stack, "worker", command, f"{self.pipeline.worker}/ready", environment)

    def agent(self) -> Service:
        command = [*PROGRAM, "dlq", "agent", str(self.pipeline.path)]
        return Service(self.stack, "agent", command, f"{self.pipeline.agent}/ready", self.environment)

    def dead_letter_console(self) -> Service:
        command = [*PROGRAM, "dlq", "console", str(self.pipeline.path)]
        return Service(self.stack, "console", command, f"{self.pipeline.console}/", self.environment)


def create_topic(bootstrap_servers: str) -> None:
    """The source topic. The records' timestamps are of 2013: with any retention they would be deleted at once."""
    topic = NewTopic(TOPIC, num_partitions=PARTITIONS, replication_factor=1, config={"retention.ms": "-1"})
    # Kept in a variable: gone before its answer, it would cancel the request. log_level 0: no notes about that either.
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
    for created in admin.create_topics([topic]).values():
        created.result(30)


def write_pipeline(stack: LocalStack) -> PipelineFile:
    """flights.yaml with this stack's addresses, in the stack's directory."""
    document = yaml.safe_load(Path(__file__).with_name("flights.yaml").read_text())
    worker, agent, console = free_ports(3)
    token = secrets.token_urlsafe(24)
    document["kafka"]["bootstrapServers"] = stack.kafka.bootstrap_servers
    for sink in document["sinks"]:
        if sink["type"] == "postgres":
            sink["url"] = stack.postgres.url
    document["telemetry"]["port"] = worker
    document["worker"] = {"stateDir": str(stack.directory / "state")}
    tokens = [{"name": "demo", "role": "admin", "token": token}]
    document["deadLetters"] = {"port": agent, "console": {"port": console, "tokens": tokens}}
    path = stack.directory / "flights.yaml"
    path.touch(mode=0o600)  # it holds the database's password
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return PipelineFile(path, document["pipelineId"], _local(worker), _local(agent), _local(console), token)


def _local(port: int) -> str:
    return f"http://127.0.0.1:{port}"
