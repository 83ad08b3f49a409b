"""Fixtures that every test may use: Kafka, PostgreSQL, a clean environment; and the options of the run."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from tests.providers.kafka import Broker, KafkaTopics
    from tests.providers.postgres import Database
    from tests.providers.s3 import S3Server
    from tests.scene import Scene
    from tidegate.local.kafka import EmbeddedKafka
    from tidegate.local.postgres import EmbeddedPostgres

# Settings of the test run itself; every other TIDEGATE_ variable is taken away from the tests.
_OF_THE_RUN = ("TIDEGATE_TEST_", "TIDEGATE_REQUIRE", "TIDEGATE_CACHE")


# A first call may build models or import DuckDB, which takes a second on a busy machine: that is no failure of the property.
settings.register_profile("tidegate", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tidegate")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--chaos",
        choices=["short", "long"],
        default="short",
        help="how long the chaos tests go on (short: seconds each)",
    )


def pytest_configure(config: pytest.Config) -> None:
    # Test files of different folders may share a name, and import nothing from each other.
    config.option.importmode = "importlib"
    # A shell starts what it puts in the background with Ctrl-C ignored, and every process of a test would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Some hundred processes are started here: without bytecode each would compile all that it imports, 2 s of its 3.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """How many processes `-n auto` means: one more than cores, since tests also wait; none for named files or tests.

    Each process starts its own broker and PostgreSQL when a test asks for them, hence the most.
    """
    named = any("::" in argument or argument.endswith(".py") for argument in config.args)
    return 0 if named else min((os.cpu_count() or 1) + 1, 4)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Shared out over processes, the long tests go first: what is left for the end is short, and no process waits."""
    if hasattr(config, "workerinput"):
        items.sort(key=_rank)


def _rank(item: pytest.Item) -> int:
    """0: slow and with a broker, so with workers as a rule; 1: slow in itself; 2: takes milliseconds."""
    return 2 - sum(item.get_closest_marker(name) is not None for name in ("slow", "kafka"))


@pytest.fixture(scope="session")
def chaos(request: pytest.FixtureRequest) -> str:
    """ "short" or "long"."""
    return str(request.config.getoption("--chaos"))


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the TIDEGATE_ settings of whoever runs it."""
    for name in [name for name in os.environ if name.startswith("TIDEGATE_") and not name.startswith(_OF_THE_RUN)]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def server_directory() -> Iterator[Path]:
    """Where embedded servers keep their data; not pytest's own folder, which PostgreSQL's user cannot enter."""
    with tempfile.TemporaryDirectory(prefix="tidegate-tests-", ignore_cleanup_errors=True) as name:
        yield Path(name)


@pytest.fixture(scope="session")
def embedded_stack() -> None:
    """For tests that start the local stack themselves: skipped (or failed, if required) when this machine cannot."""
    from tests.providers.availability import or_unavailable
    from tidegate.local import jars
    from tidegate.local.postgres import find_binaries

    with or_unavailable("kafka"):
        jars.ensure("broker")
    with or_unavailable("postgres"):
        find_binaries()


@pytest.fixture(scope="session")
def kafka_broker(server_directory: Path) -> Iterator[Broker]:
    """The run's broker."""
    from tests.providers.kafka import run_broker

    with run_broker(server_directory / "kafka") as broker:
        yield broker


@pytest.fixture
def kafka(kafka_broker: Broker) -> Iterator[KafkaTopics]:
    """`.bootstrap_servers`, and `.topic(partitions=1, config=None)` for a fresh topic, deleted afterwards."""
    from tests.providers.kafka import KafkaTopics

    kafka_broker.require_alive()
    topics = KafkaTopics(kafka_broker.bootstrap_servers)
    yield topics
    topics.delete()


@pytest.fixture(scope="session")
def postgres_server(server_directory: Path) -> Iterator[str]:
    """The URL of the run's PostgreSQL."""
    from tests.providers.postgres import postgres_address

    with postgres_address(server_directory / "postgres") as address:
        yield address


@pytest.fixture
def postgres(postgres_server: str) -> Iterator[Database]:
    """`.url` of a fresh database, dropped afterwards."""
    from tests.providers.postgres import fresh_database

    with fresh_database(postgres_server) as database:
        yield database


@pytest.fixture
def s3() -> Iterator[S3Server]:
    """An S3 server that the test may stop and start again."""
    from tests.providers.s3 import s3_server

    with s3_server() as server:
        yield server


@pytest.fixture(scope="session")
def spark_jars() -> None:
    """For tests that start Spark in another process: skipped (or failed, if required) when this machine cannot."""
    from tests.providers.availability import or_unavailable
    from tidegate.local import jars
    from tidegate.local.java import find_java

    with or_unavailable("spark"):
        find_java()
        jars.ensure("spark")
    # A test's JVM lives for seconds, in which the second compiler does not pay.
    os.environ["JDK_JAVA_OPTIONS"] = "-XX:TieredStopAtLevel=1"


@pytest.fixture(scope="session")
def spark(server_directory: Path, spark_jars: None) -> Iterator[SparkSession]:
    """The run's Spark session: it takes ten seconds to start."""
    from tests.providers.spark import session

    with session(server_directory / "spark") as started:
        yield started


@pytest.fixture
def own_directory(server_directory: Path) -> Iterator[Path]:
    """For a server of this test's own."""
    with tempfile.TemporaryDirectory(dir=server_directory, ignore_cleanup_errors=True) as name:
        yield Path(name)


@pytest.fixture
def own_kafka(own_directory: Path) -> Iterator[EmbeddedKafka]:
    """A running broker that the test may stop, kill, pause and start again (same port, same data)."""
    from tests.providers.kafka import embedded_kafka

    with embedded_kafka(own_directory / "kafka") as server:
        yield server


@pytest.fixture
def own_postgres(own_directory: Path) -> Iterator[EmbeddedPostgres]:
    """A running PostgreSQL that the test may stop, kill, pause and start again (same port, same data)."""
    from tests.providers.postgres import embedded_postgres

    with embedded_postgres(own_directory / "postgres") as server:
        yield server


@pytest.fixture
def make_scene(kafka: KafkaTopics, postgres: Database, tmp_path: Path) -> Iterator[Callable[..., Scene]]:
    """`make_scene(**options)`: a pipeline with topics and tables of its own (tests.scene.Scene), deleted afterwards."""
    from tests.scene import scene

    with ExitStack() as scenes:
        yield lambda **options: scenes.enter_context(
            scene(kafka.bootstrap_servers, options.pop("url", postgres.url), tmp_path, **options)
        )


@pytest.fixture
def seed() -> int:
    """The seed of a test's randomness: a new one each time, or TIDEGATE_TEST_SEED. It is shown when the test fails."""
    given: Any = os.environ.get("TIDEGATE_TEST_SEED") or int.from_bytes(os.urandom(4), "big")
    sys.stdout.write(f"TIDEGATE_TEST_SEED={given}\n")
    return int(given)
