"""A broker that asks for passwords and certificates: every client that tidegate has gets through, and says why when not."""

from __future__ import annotations

import asyncio
import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import typer.testing
from aiokafka import AIOKafkaProducer

from dlq.reader import read_records
from tests.harness import running, wait_until
from tests.providers.postgres import Database
from tests.providers.secured import PASSWORD, SecuredKafka, secured_kafka
from tests.scene import events, scene
from tidegate.cli.main import app as tidegate
from tidegate.config.kafka import Kafka, aiokafka_options, spark_options
from tidegate.errors import ConfigError
from tidegate.local import jars
from tidegate.local.java import find_java
from tidegate.reach import why_unreachable
from tidegate.store import reading as tidegate_reading

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.xdist_group("secured")]  # one broker for all of them
WRONG = "falsch123"


@pytest.fixture(scope="module")
def secured(server_directory: Path) -> Iterator[SecuredKafka]:
    with (
        tempfile.TemporaryDirectory(dir=server_directory, ignore_cleanup_errors=True) as folder,
        secured_kafka(Path(folder)) as broker,
    ):
        yield broker


def command(*words: str | Path) -> tuple[int, str]:
    """Exit code and all that was printed."""
    done = typer.testing.CliRunner().invoke(tidegate, [str(word) for word in words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    return done.exit_code, done.output


def pipeline_file(folder: Path, kafka: dict[str, Any], **parts: Any) -> Path:
    path = folder / "pipeline.json"
    path.write_text(json.dumps({"pipelineId": "secured", "kafka": kafka, **parts}))
    return path


@pytest.mark.postgres
@pytest.mark.parametrize("door", ["password", "certificate"])
def test_a_worker_and_the_commands_get_through(
    secured: SecuredKafka, postgres: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, door: str
) -> None:
    """SCRAM over TLS, and mutual TLS: consumer, transactional producers, restore, admin and the reading commands; the
    password is in no log and no output."""
    monkeypatch.setenv("BROKER_PASSWORD", PASSWORD)
    kafka = (
        secured.with_password(sasl={"password": "${BROKER_PASSWORD}"})
        if door == "password"
        else secured.with_certificate()
    )
    with scene(secured.plain, postgres.url, tmp_path) as one:
        one.pipeline["kafka"] |= kafka
        one.feed(events(Random(seed), 600))
        worker = one.worker()
        with running(worker):
            wait_until(lambda: one.applied() == 600, 60, f"all applied\n{worker.tail()}")
            one.check(30)
            said = [command("check", "--live", worker.file), command("status", worker.file)]
            assert worker.stop() == 0
        said += [command("ledger", worker.file), command("dlq", "list", worker.file)]
    assert [code for code, _ in said] == [0, 0, 0, 0], said
    live, status, ledger, letters = (text for _, text in said)
    assert "✓ kafka" in live
    assert f"{one.topic}-0" in status
    assert "600" in ledger
    assert "RuleViolation" in letters
    assert PASSWORD not in "".join([worker.log.read_text(errors="replace"), *(text for _, text in said)])


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_every_mechanism_is_taken_by_every_client(secured: SecuredKafka, tmp_path: Path, mechanism: str) -> None:
    """aiokafka, librdkafka and the Java client, which Spark has, log in with what one model says."""
    fields = secured.with_password(mechanism)
    kafka = Kafka.model_validate(fields)

    async def connect() -> None:
        async with AIOKafkaProducer(**aiokafka_options(kafka)):
            pass
        await asyncio.sleep(0.1)  # for the transports to close

    asyncio.run(connect())
    code, said = command("check", "--live", pipeline_file(tmp_path, fields))
    assert (code, "✓ kafka" in said) == (0, True), said
    assert "node.id=1" in asked_by_java(kafka, tmp_path)


def test_the_java_client_takes_the_certificates(secured: SecuredKafka, tmp_path: Path) -> None:
    """The PEM texts that Spark is given are a keystore and a truststore of the Java client."""
    assert "node.id=1" in asked_by_java(Kafka.model_validate(secured.with_certificate()), tmp_path)


def asked_by_java(kafka: Kafka, folder: Path) -> str:
    """Kafka's own command, with the options that Spark's source and sink get."""
    options = {name.removeprefix("kafka."): value for name, value in spark_options(kafka).items()}
    # A properties file has escapes of its own.
    lines = [
        f"{name}={value.replace(chr(92), chr(92) * 2).replace(chr(10), chr(92) + 'n')}\n"
        for name, value in options.items()
    ]
    (folder / "client.properties").write_text("".join(lines))
    words = ["kafka.admin.ConfigCommand", "--bootstrap-server", kafka.bootstrap_servers, "--describe", "--all"]
    words += ["--entity-type", "brokers", "--entity-name", "1", "--command-config", str(folder / "client.properties")]
    java = [str(find_java()), "-XX:TieredStopAtLevel=1", "-cp", f"{jars.ensure('broker')}/*"]
    done = subprocess.run([*java, *words], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


def wrong_settings(broker: SecuredKafka) -> dict[str, tuple[dict[str, Any], str, str]]:
    """What is wrong → the section `kafka`, the field that the error must name, and a word of the reason."""
    certificates, (_, _, port) = broker.certificates, broker.sasl.partition(":")
    authority = {"caFile": str(certificates.authority)}
    return {
        "password": (broker.with_password(sasl={"password": WRONG}), "kafka.sasl", "login"),
        "password of PLAIN": (
            broker.with_password("PLAIN", sasl={"password": WRONG}),
            "kafka.sasl",
            "Invalid username",
        ),
        "user": (broker.with_password(sasl={"username": "bob"}), "kafka.sasl", "login"),
        "authority": (
            broker.with_password(tls={"caFile": str(certificates.other_authority)}),
            "kafka.tls.caFile",
            "not trusted",
        ),
        "no authority": ({**broker.with_password(), "tls": {}}, "kafka.tls.caFile", "this machine trusts"),
        "host name": (
            broker.with_password(bootstrapServers=f"localhost:{port}"),
            "kafka.bootstrapServers",
            "not for that name",
        ),
        "no certificate": ({"bootstrapServers": broker.mutual, "tls": authority}, "kafka.tls.certFile", "asks for"),
        "a stranger's certificate": (
            broker.with_certificate(tls={**authority, **_own(certificates.other_authority)}),
            "kafka.tls.certFile",
            "refuses",
        ),
        "TLS to a plain port": (broker.with_password(bootstrapServers=broker.plain), "kafka.tls", "in TLS"),
        "plain to a TLS port": ({"bootstrapServers": broker.sasl}, "kafka.tls", "speaks TLS"),
        "no login": ({"bootstrapServers": broker.sasl, "tls": authority}, "kafka.sasl", "may ask for"),
    }


def _own(certificate: Path) -> dict[str, str]:
    return {"certFile": str(certificate), "keyFile": str(certificate.with_suffix(".key"))}


@pytest.mark.parametrize(
    "name",
    [
        "password", "password of PLAIN", "user", "authority", "no authority", "host name", "no certificate",
        "a stranger's certificate", "TLS to a plain port", "plain to a TLS port", "no login",
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named(secured: SecuredKafka, tmp_path: Path, name: str) -> None:
    """The error names the field and the reason, and shows no password."""
    kafka, field, reason = wrong_settings(secured)[name]
    code, said = command("check", "--live", "--timeout", "2", pipeline_file(tmp_path, kafka))
    assert code == 1
    assert field in said
    assert reason in said
    assert PASSWORD not in said
    assert WRONG not in said


def test_reading_commands_name_it_too(secured: SecuredKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What reads the source's offsets and what reads dead letters end with code 2 and the field."""
    monkeypatch.setattr(tidegate_reading, "_ANSWER", 1.0)
    kafka = secured.with_password(sasl={"password": WRONG})
    code, said = command("status", pipeline_file(tmp_path, kafka, source={"topics": ["t"]}))
    assert (code, "kafka.sasl: the broker refuses the login" in said, WRONG in said) == (2, True, False), said
    with pytest.raises(ConfigError, match=r"kafka\.sasl: the broker refuses the login"):
        list(read_records(Kafka.model_validate(kafka), "t", field="topic", patience=1.0))


def test_a_worker_with_a_wrong_password_ends(secured: SecuredKafka, tmp_path: Path) -> None:
    """Exit code 2, the field in its last words, and no password in its log."""
    with scene(secured.plain, None, tmp_path, partitions=1) as one:
        one.pipeline["kafka"] |= secured.with_password(sasl={"password": WRONG})
        worker = one.worker()
        with running(worker):
            assert worker.wait(90) == 2, worker.tail()
    log = worker.log.read_text(errors="replace")
    assert f"worker stopped: {worker.file}:" in log
    assert ": kafka.sasl: the broker refuses the login" in log
    assert "Traceback" not in log
    assert WRONG not in log


def test_a_broker_that_is_away_is_no_wrong_setting() -> None:
    """Every address is named with what it said."""
    kafka = Kafka.model_validate({"bootstrapServers": "127.0.0.1:1,no-such-host.invalid:9092"})
    said = str(why_unreachable(kafka, "transport failure"))
    assert "127.0.0.1:1 (connection refused)" in said
    assert "no-such-host.invalid:9092 (" in said
    assert "kafka.bootstrapServers" in said
