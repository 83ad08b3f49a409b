"""The Kafka connection, rendered from one model for three clients, each taken by the client itself where it can be."""

from __future__ import annotations

import logging
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from tests.providers.availability import unavailable
from tidegate.config.kafka import Kafka, aiokafka_options, confluent_options, spark_options
from tidegate.errors import ConfigError

PASSWORD = 'p"w\\d'
SASL = {"mechanism": "SCRAM-SHA-256", "username": "ann", "password": PASSWORD}
QUIET: dict[str, Any] = {"logger": logging.getLogger("test.quiet")}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A certificate and its encrypted key, as the fields of `tls`."""
    if shutil.which("openssl") is None:
        unavailable("openssl", "install the package openssl")
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    request = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-days",
        "1",
        "-subj",
        "/CN=localhost",
        "-passout",
        "pass:geheim",
    ]
    subprocess.run([*request, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return {"caFile": str(certificate), "certFile": str(certificate), "keyFile": str(key), "keyPassword": "geheim"}


def connection(**fields: Any) -> Kafka:
    return Kafka.model_validate({"bootstrapServers": "127.0.0.1:1", **fields})


def test_plaintext() -> None:
    """Without TLS and SASL only the brokers and the protocol are said."""
    assert aiokafka_options(connection()) == {"bootstrap_servers": "127.0.0.1:1", "security_protocol": "PLAINTEXT"}
    assert confluent_options(connection()) == {"bootstrap.servers": "127.0.0.1:1", "security.protocol": "PLAINTEXT"}
    assert spark_options(connection()) == {
        "kafka.bootstrap.servers": "127.0.0.1:1",
        "kafka.security.protocol": "PLAINTEXT",
    }


@pytest.mark.parametrize(
    ("fields", "protocol"),
    [
        ({}, "PLAINTEXT"),
        ({"tls": {}}, "SSL"),
        ({"tls": {}, "sasl": SASL}, "SASL_SSL"),
        ({"sasl": SASL, "allowPlaintextSasl": True}, "SASL_PLAINTEXT"),
    ],
)
def test_every_client_is_told_the_same_protocol(fields: dict[str, Any], protocol: str) -> None:
    """TLS and SASL together name the protocol, the same for all three."""
    kafka = connection(**fields)
    told = (
        aiokafka_options(kafka)["security_protocol"],
        confluent_options(kafka)["security.protocol"],
        spark_options(kafka)["kafka.security.protocol"],
    )
    assert told == (protocol,) * 3


@pytest.mark.slow
def test_aiokafka_takes_them(certificates: dict[str, str]) -> None:
    """A consumer can be made of the options, and its TLS checks the host name."""
    import asyncio

    options = aiokafka_options(connection(tls=certificates, sasl=SASL))

    async def make() -> None:
        AIOKafkaConsumer(**options)._closed = True  # never started: there is nothing to stop

    asyncio.run(make())
    context = options["ssl_context"]
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert (options["sasl_plain_username"], options["sasl_plain_password"]) == ("ann", PASSWORD)


@pytest.mark.slow
def test_confluent_takes_them(certificates: dict[str, str]) -> None:
    """librdkafka accepts every setting and can read the certificates, with the key's password."""
    options = confluent_options(connection(tls=certificates, sasl=SASL))
    AdminClient({**options, **QUIET})
    Producer({**options, **QUIET})
    assert options["ssl.endpoint.identification.algorithm"] == "https"


@pytest.mark.slow
def test_spark_gets_the_certificates_themselves(certificates: dict[str, str]) -> None:
    """Executors lack the driver's files, so the PEM text goes in; every option is one of the Java client's."""
    options = spark_options(connection(tls=certificates, sasl=SASL))
    assert all(name.startswith("kafka.") for name in options)
    assert options["kafka.ssl.truststore.type"] == options["kafka.ssl.keystore.type"] == "PEM"
    assert options["kafka.ssl.truststore.certificates"].startswith("-----BEGIN CERTIFICATE-----")
    assert options["kafka.ssl.keystore.key"].startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert options["kafka.ssl.key.password"] == "geheim"


def test_spark_login_is_quoted() -> None:
    """Quotes and backslashes in a password cannot end the JAAS value; PLAIN has a login module of its own."""
    scram = spark_options(connection(tls={}, sasl=SASL))["kafka.sasl.jaas.config"]
    assert scram == (
        'org.apache.kafka.common.security.scram.ScramLoginModule required username="ann" password="p\\"w\\\\d";'
    )
    plain = spark_options(connection(tls={}, sasl={**SASL, "mechanism": "PLAIN"}))["kafka.sasl.jaas.config"]
    assert plain.startswith("org.apache.kafka.common.security.plain.PlainLoginModule required ")


def test_missing_certificate_is_named(tmp_path: Path) -> None:
    """A file that cannot be read is named with its field, for every client that reads it here."""
    kafka = connection(tls={"caFile": str(tmp_path / "ca.pem")})
    for render in (aiokafka_options, spark_options):
        with pytest.raises(ConfigError, match=r"kafka\.tls\.caFile: this file cannot be used: No such file") as caught:
            render(kafka)
        assert "ca.pem" in str(caught.value)


@pytest.mark.slow
def test_wrong_key_password_is_an_error(certificates: dict[str, str]) -> None:
    """A key that cannot be opened is an error at once, not a question on the terminal; the password is not shown."""
    for password in ({"keyPassword": "falsch"}, {}):
        tls = {name: value for name, value in certificates.items() if name != "keyPassword"} | password
        with pytest.raises(ConfigError, match=r"kafka\.tls\.certFile") as caught:
            aiokafka_options(connection(tls=tls))
        assert "falsch" not in str(caught.value)
