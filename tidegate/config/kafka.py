"""How to reach Kafka: one model, rendered for aiokafka, confluent-kafka and Spark by `tidegate.config.clients`."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, SecretStr, model_validator

from tidegate.config.base import Millis, Model, Problem, refuse

# host:port, an IPv6 address in brackets. The Java client refuses a host without a port, so all engines do.
_SERVER: Final = re.compile(r"(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")


def _servers(text: str) -> str:
    servers = [server.strip() for server in text.split(",")]
    for server in servers:
        match = _SERVER.fullmatch(server)
        if match is None or not 0 < int(match[2]) < 65_536:
            refuse(Problem("not a list of brokers", (), "host:port, several separated by commas"))
    return ",".join(servers)


# Brokers to ask first: "host:port,host:port".
Servers = Annotated[str, AfterValidator(_servers)]


class Sasl(Model):
    """User and password, or what the mechanism takes."""

    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    username: str
    password: SecretStr


class Tls(Model):
    """Files of the certificates, in PEM. The host name is always checked."""

    ca_file: str | None = None
    """Who signed the brokers' certificates. Default: whom the machine trusts."""
    cert_file: str | None = None
    """The client's own certificate chain, where brokers ask for one."""
    key_file: str | None = None
    """The private key of `certFile`, in PKCS#8."""
    key_password: SecretStr | None = None

    @model_validator(mode="after")
    def _pairs(self) -> Tls:
        if (self.cert_file is None) != (self.key_file is None):
            lacking = "key_file" if self.key_file is None else "cert_file"
            refuse(Problem("a certificate and its key come together", (lacking,), "both `certFile` and `keyFile`"))
        if self.key_password is not None and self.key_file is None:
            refuse(Problem("a key's password without a key", ("key_file",), "`keyFile`"))
        return self


class Kafka(Model):
    """The cluster. SASL without TLS is refused unless `allowPlaintextSasl`."""

    bootstrap_servers: Servers = "localhost:9092"
    """Brokers to ask first, `host:port`, separated by commas."""
    tls: Tls | None = None
    """`{}` for TLS with the certificates that the machine trusts."""
    sasl: Sasl | None = None
    allow_plaintext_sasl: bool = False
    """Send the password without TLS."""
    session_timeout: Millis = Field(default=10_000, gt=0)
    """A worker that was killed holds its partitions for this long."""

    @model_validator(mode="after")
    def _password_is_encrypted(self) -> Kafka:
        if self.sasl is not None and self.tls is None and not self.allow_plaintext_sasl:
            refuse(
                Problem(
                    "the password would cross the network in the clear",
                    ("sasl",),
                    "`tls: {}` besides `sasl`",
                    "`allowPlaintextSasl: true` if the network is trusted",
                )
            )
        return self

    @property
    def protocol(self) -> Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]:
        """Kafka's name for the combination of TLS and SASL."""
        if self.sasl is None:
            return "PLAINTEXT" if self.tls is None else "SSL"
        return "SASL_PLAINTEXT" if self.tls is None else "SASL_SSL"
