"""How to reach Kafka: one model, rendered for aiokafka, confluent-kafka and Spark."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, SecretStr, model_validator

from tidegate.config.base import Flag, Millis, Model, Problem, refuse
from tidegate.errors import ConfigError

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
    allow_plaintext_sasl: Flag = False
    """Send the password without TLS."""
    session_timeout: Millis = Field(default=10_000, gt=0)
    """A worker that was killed holds its partitions for this long."""
    metadata_max_age: Millis = Field(default=30_000, gt=0)
    """How soon new partitions of a source topic are noticed."""

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


def aiokafka_options(kafka: Kafka) -> dict[str, Any]:
    """Keyword arguments for aiokafka's clients. Raises ConfigError when a certificate file cannot be used."""
    options: dict[str, Any] = {"bootstrap_servers": kafka.bootstrap_servers, "security_protocol": kafka.protocol}
    if kafka.tls is not None:
        options["ssl_context"] = _ssl_context(kafka.tls)
    if kafka.sasl is not None:
        options |= {
            "sasl_mechanism": kafka.sasl.mechanism,
            "sasl_plain_username": kafka.sasl.username,
            "sasl_plain_password": kafka.sasl.password.get_secret_value(),
        }
    return options


def _ssl_context(tls: Tls) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise _unusable("caFile", tls.ca_file, error) from None
    if tls.cert_file is not None:
        password = tls.key_password.get_secret_value() if tls.key_password else ""
        try:
            # A password is always given: without one OpenSSL would ask on the terminal for that of an encrypted key.
            context.load_cert_chain(tls.cert_file, tls.key_file, password)
        except (OSError, ssl.SSLError) as error:
            raise _unusable("certFile", tls.cert_file, error) from None
    return context


def _unusable(field: str, path: str | None, error: Exception) -> ConfigError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return ConfigError(
        f"this file cannot be used: {reason}", field=f"kafka.tls.{field}", value=path, expected="a PEM file"
    )


def confluent_options(kafka: Kafka) -> dict[str, Any]:
    """Settings for confluent-kafka's (librdkafka's) clients. Raises ConfigError when a certificate file cannot be used, of
    which they would say nothing that names it."""
    options: dict[str, Any] = {"bootstrap.servers": kafka.bootstrap_servers, "security.protocol": kafka.protocol}
    if kafka.tls is not None:
        _ssl_context(kafka.tls)
        options["ssl.endpoint.identification.algorithm"] = "https"
        files = {
            "ssl.ca.location": kafka.tls.ca_file,
            "ssl.certificate.location": kafka.tls.cert_file,
            "ssl.key.location": kafka.tls.key_file,
        }
        options |= {name: path for name, path in files.items() if path is not None}
        if kafka.tls.key_password is not None:
            options["ssl.key.password"] = kafka.tls.key_password.get_secret_value()
    if kafka.sasl is not None:
        options |= {
            "sasl.mechanisms": kafka.sasl.mechanism,
            "sasl.username": kafka.sasl.username,
            "sasl.password": kafka.sasl.password.get_secret_value(),
        }
    return options


def spark_options(kafka: Kafka) -> dict[str, str]:
    """Options of Spark's Kafka source and sink: the Java client's settings under `kafka.`.

    Certificates go in as PEM text: executors lack the driver's files. Raises ConfigError if one cannot be read.
    """
    options = {"bootstrap.servers": kafka.bootstrap_servers, "security.protocol": kafka.protocol}
    if kafka.tls is not None:
        options |= _java_tls(kafka.tls)
    if kafka.sasl is not None:
        module = "plain.PlainLoginModule" if kafka.sasl.mechanism == "PLAIN" else "scram.ScramLoginModule"
        options["sasl.mechanism"] = kafka.sasl.mechanism
        options["sasl.jaas.config"] = (
            f"org.apache.kafka.common.security.{module} required "
            f"username={_jaas(kafka.sasl.username)} password={_jaas(kafka.sasl.password.get_secret_value())};"
        )
    return {f"kafka.{name}": value for name, value in options.items()}


def _java_tls(tls: Tls) -> dict[str, str]:
    options = {"ssl.endpoint.identification.algorithm": "https"}
    if tls.ca_file is not None:
        options |= {"ssl.truststore.type": "PEM", "ssl.truststore.certificates": _pem("caFile", tls.ca_file)}
    if tls.cert_file is not None and tls.key_file is not None:
        options |= {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.certificate.chain": _pem("certFile", tls.cert_file),
            "ssl.keystore.key": _pem("keyFile", tls.key_file),
        }
    if tls.key_password is not None:
        options["ssl.key.password"] = tls.key_password.get_secret_value()
    return options


def _pem(field: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(field, path, error) from None


def _jaas(text: str) -> str:
    """A quoted JAAS value: only `"` and `\\` need escaping."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
