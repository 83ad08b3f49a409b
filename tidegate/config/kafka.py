"""How to reach Kafka: one model, rendered for aiokafka, confluent-kafka and Spark."""

from __future__ import annotations

from typing import Literal

from pydantic import SecretStr

from tidegate.config.base import Millis, Model


class Sasl(Model):
    """User and password, or what the mechanism takes."""

    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    username: str
    password: SecretStr


class Tls(Model):
    """Files of the certificates. The host name is always checked."""

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    key_password: SecretStr | None = None


class Kafka(Model):
    """The cluster. SASL without TLS is refused unless `allowPlaintextSasl`."""

    bootstrap_servers: str = "localhost:9092"
    tls: Tls | None = None
    sasl: Sasl | None = None
    allow_plaintext_sasl: bool = False
    session_timeout: Millis = 10_000
    """A worker that was killed holds its partitions for this long."""
