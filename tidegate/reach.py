"""Why a Kafka cluster does not answer. The clients say "transport failure" for most of it, so this asks again, step by step.

1. connect    is the name known, does anybody listen
2. TLS        is the certificate trusted, is it for this name, is it TLS at all
3. log in     does the broker take user and password

Asked only after a client has given up; what it finds has the field of the pipeline file that is at fault.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from tidegate.clock import Deadline
from tidegate.config.kafka import Kafka, aiokafka_options, confluent_options
from tidegate.errors import BrokerUnavailable, ConfigError

_SERVERS, _TLS, _SASL = "kafka.bootstrapServers", "kafka.tls", "kafka.sasl"
_OF_THE_NAME = (62, 64)  # OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
_EXPIRED = (9, 10)  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
_A_WHILE = 0.5  # seconds: with TLS 1.3 a broker refuses a client's certificate after the handshake


class _Socket(ssl.SSLSocket):
    """Closes itself. One whose other side goes away while it is made is given to nobody who could close it."""

    def __del__(self) -> None:
        self.close()


def why_unreachable(kafka: Kafka, otherwise: str, timeout: float = 5.0) -> ConfigError | BrokerUnavailable:
    """The reason why this cluster does not answer: a ConfigError when a setting is wrong, BrokerUnavailable when the
    cluster is away. `otherwise`: what the client said. `timeout` in seconds, for each step."""
    silent = []
    for host, port in _addresses(kafka.bootstrap_servers):
        try:
            with socket.create_connection((host, port), timeout) as connection:
                wrong = _wrong_tls(kafka, host, f"{host}:{port}", connection)
            break
        except OSError as error:
            silent.append(f"{host}:{port} ({_said(error)})")
    else:
        return BrokerUnavailable(
            f"Kafka cannot be reached: {', '.join(silent)}\n"
            f"  hint:     check `{_SERVERS}`, and that a broker listens there"
        )
    return (
        wrong
        or _login(kafka, timeout)
        or BrokerUnavailable(
            f"Kafka at {kafka.bootstrap_servers} does not answer: {otherwise}\n  hint:     {_guess(kafka)}"
        )
    )


def quiet(name: str) -> logging.Logger:
    """A logger for librdkafka's clients, which would write each failed connection to stderr; an error says it once."""
    logger = logging.getLogger(name)
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return logger


def _addresses(servers: str) -> Iterator[tuple[str, int]]:
    for server in servers.split(","):
        host, _, port = server.strip().rpartition(":")
        yield host.strip("[]"), int(port)


def _said(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return (error.strerror or str(error)).lower()


def _guess(kafka: Kafka) -> str:
    absent = [f"`{name}`" for name, value in ((_TLS, kafka.tls), (_SASL, kafka.sasl)) if value is None]
    if not absent:
        return f"somebody listens there; check that it is a broker, and `{_SERVERS}`"
    return f"somebody listens there; if it is a broker, it may ask for {' or '.join(absent)}"


def _wrong_tls(kafka: Kafka, host: str, server: str, connection: socket.socket) -> ConfigError | None:
    if kafka.tls is None:
        return _is_tls(server, connection)
    context: ssl.SSLContext = aiokafka_options(kafka)["ssl_context"]
    context.sslsocket_class = _Socket
    try:
        with context.wrap_socket(connection, server_hostname=host) as secured:
            return _refusal(kafka, server, secured)
    except ssl.SSLCertVerificationError as error:
        return _untrusted(kafka, host, server, error)
    except TimeoutError:
        return None  # a broker that hangs does not answer in any way
    except (ssl.SSLError, OSError) as error:
        return ConfigError(
            f"{server} does not answer in TLS: {_said(error)}",
            field=_TLS,
            hint="another port of the broker may speak it; without `tls` the connection is not encrypted",
        )


def _is_tls(server: str, connection: socket.socket) -> ConfigError | None:
    """Whether the other side speaks TLS although the file does not say so. Nothing is sent over this connection."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.sslsocket_class = _Socket
    try:
        with closing(context.wrap_socket(connection)):
            pass
    except (ssl.SSLError, OSError) as error:
        if getattr(error, "reason", None) not in ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "SSLV3_ALERT_BAD_CERTIFICATE"):
            return None
    return ConfigError(
        f"{server} speaks TLS",
        field=_TLS,
        expected="`tls: {}`, or `tls: {caFile: …}` for a certificate of your own authority",
    )


def _untrusted(kafka: Kafka, host: str, server: str, error: ssl.SSLCertVerificationError) -> ConfigError:
    if error.verify_code in _OF_THE_NAME:
        return ConfigError(
            f"the certificate of {server} is not for that name: {error.verify_message}",
            field=_SERVERS,
            value=host,
            expected="a name or address that the certificate has among its subjectAltNames",
        )
    if error.verify_code in _EXPIRED:
        return ConfigError(f"the certificate of {server} is out of date: {error.verify_message}", field=_SERVERS)
    return ConfigError(
        f"the certificate of {server} is not trusted: {error.verify_message}",
        field=f"{_TLS}.caFile",
        value=kafka.tls.ca_file if kafka.tls else None,
        expected="the certificate of the authority that signed the brokers'",
        hint=None if kafka.tls and kafka.tls.ca_file else "without `caFile` those count that this machine trusts",
    )


def _refusal(kafka: Kafka, server: str, secured: ssl.SSLSocket) -> ConfigError | None:
    """What a broker says to the client's certificate; silence is consent."""
    secured.settimeout(_A_WHILE)
    try:
        secured.recv(1)
    except TimeoutError:
        return None
    except (ssl.SSLError, OSError) as error:
        own = kafka.tls.cert_file if kafka.tls else None
        return ConfigError(
            f"{server} refuses the client's certificate: {_said(error)}" if own else f"{server} asks for a certificate",
            field=f"{_TLS}.certFile",
            value=own,
            expected="a certificate signed by an authority that the broker trusts, and its key in `keyFile`",
        )
    return None


def _login(kafka: Kafka, timeout: float) -> ConfigError | None:
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.admin import AdminClient

    if kafka.sasl is None:
        return None
    refusals: list[KafkaError] = []

    def hear(error: KafkaError) -> None:
        if error.code() == KafkaError._AUTHENTICATION:
            refusals.append(error)

    options: dict[str, Any] = {"error_cb": hear, "logger": quiet("tidegate.reach")}
    admin, deadline = AdminClient({**confluent_options(kafka), **options}), Deadline(timeout)
    while not (refusals or deadline.expired):
        try:
            admin.list_topics(timeout=_A_WHILE)
        except KafkaException:
            admin.poll(0)  # serves the callback, which has the reason
        else:
            break
    if not refusals:
        return None
    said = refusals[0].str()
    reason = said.partition("SASL authentication error: ")[2] or said
    return ConfigError(
        f"the broker refuses the login: {reason.partition(' (after ')[0]}",
        field=_SASL,
        expected=f"a user and a password that the brokers know for {kafka.sasl.mechanism}",
        hint="check `username`, `password` and `mechanism`",
    )
