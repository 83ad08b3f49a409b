"""A real Apache Kafka broker (KRaft, one node) on loopback, in a directory of its own."""

from __future__ import annotations

import base64
import subprocess
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from tidegate.errors import StackError
from tidegate.local import jars
from tidegate.local.java import find_java
from tidegate.local.process import GuardedProcess, free_ports, is_listening, tail
from tidegate.local.server import LocalServer

_READY_TIMEOUT = 60.0  # s; 2.1 s measured on two idle cores, twenty times that on two busy ones
_ATTEMPTS = 3  # a free port can be taken by somebody else before the broker binds it

JVM_FLAGS = ("-Xmx512m", "-XX:TieredStopAtLevel=1")
"""C1 only: listens after 2.1 s instead of 2.9 s, for 2.8 s of CPU instead of 4.7 s. SerialGC saves nothing more."""

_SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    # One broker cannot keep three copies.
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # Fewer internal partitions start faster; the first member of a group need not wait 3 s for others.
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.num.partitions": "3",
    "group.initial.rebalance.delay.ms": "0",
    # As in production: a topic that nobody created is an error, not a surprise.
    "auto.create.topics.enable": "false",
    # Real data has old timestamps: the default of 7 days would delete it at once.
    "log.retention.ms": "-1",
    "log.message.timestamp.before.max.ms": "9223372036854775807",
    # A broker that comes back waits until its former self is given up: 12 s with the default of 9 s.
    "broker.session.timeout.ms": "1500",
    "broker.heartbeat.interval.ms": "300",
}

_LOGGING = """\
rootLogger.level = WARN
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{HH:mm:ss.SSS} %-5p %c{1}: %m%n
"""


class EmbeddedKafka(LocalServer):
    """One broker. `settings` go over the defaults."""

    def __init__(
        self,
        directory: Path,
        port: int = 0,
        *,
        settings: Mapping[str, str] | None = None,
        jvm_flags: tuple[str, ...] = JVM_FLAGS,
        remove: Path | None = None,
    ) -> None:
        super().__init__(directory, port, remove)
        self._settings, self._jvm_flags = dict(settings or {}), jvm_flags
        self._controller_port = 0

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.directory / "kafka.log"

    def start(self) -> EmbeddedKafka:
        """1. find Java and the jars  2. choose ports and format, the first time  3. run  4. wait for metadata"""
        if self.running:
            return self
        java, folder = find_java(), jars.ensure("broker")
        formatted = (self.directory / "data" / "meta.properties").exists()
        for attempt in range(1, _ATTEMPTS + 1):
            if not formatted:
                self._choose_ports()
            self._write_settings()
            if not formatted:
                self._format(java, folder)
                formatted = True
            self._process = self._run(java, folder)
            if self._wait_until_ready(self._process):
                return self
            self._process.stop()
            if not (self._any_port and attempt < _ATTEMPTS and "Address already in use" in tail(self.log, 60)):
                break
            self._choose_ports()
        raise StackError(
            f"Kafka ended before it was ready on {self.bootstrap_servers}; "
            f"its log ({self.log}) ends with:\n{tail(self.log)}"
        )

    def _choose_ports(self) -> None:
        first, second = free_ports(2)
        self.port = first if self._any_port else self.port
        self._controller_port = second

    def _write_settings(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        own = {
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self._controller_port}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller_port}",
            "log.dirs": str(self.directory / "data"),
        }
        settings = _SETTINGS | own | self._settings
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        (self.directory / "log4j2.properties").write_text(_LOGGING)

    @property
    def _properties(self) -> Path:
        return self.directory / "server.properties"

    def _java(self, java: Path, folder: Path, *words: str) -> list[str]:
        logging = f"-Dlog4j2.configurationFile={self.directory / 'log4j2.properties'}"
        return [str(java), *self._jvm_flags, logging, "-cp", f"{folder}/*", *words]

    def _format(self, java: Path, folder: Path) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        # An id that starts with "-" would be read as an option.
        command = self._java(
            java, folder, "kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", str(self._properties)
        )
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise StackError(f"cannot format Kafka's directory {self.directory}:\n{done.stdout}{done.stderr}")

    def _run(self, java: Path, folder: Path) -> GuardedProcess:
        command = self._java(java, folder, "kafka.Kafka", str(self._properties))
        return GuardedProcess(command, log=self.log, grace=10.0, remove=[self._remove])

    def _wait_until_ready(self, process: GuardedProcess) -> bool:
        """False: the broker ended. Raises StackError when it neither ends nor answers."""
        deadline = time.monotonic() + _READY_TIMEOUT
        while time.monotonic() < deadline:
            if not process.alive:
                return False
            if is_listening(self.port) and _answers(self.bootstrap_servers):
                return True
            time.sleep(0.05)
        process.kill()
        raise StackError(
            f"Kafka did not answer on {self.bootstrap_servers} within {_READY_TIMEOUT:.0f} s:\n{tail(self.log)}"
        )


def _answers(bootstrap_servers: str) -> bool:
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    try:
        # log_level 0: a broker that is not there yet is no news.
        return bool(
            AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0}).list_topics(timeout=5).brokers
        )
    except KafkaException:
        return False
