"""A broker that asks for passwords and certificates, and the certificates."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from tests.providers.availability import or_unavailable, unavailable
from tidegate.local.kafka import EmbeddedKafka
from tidegate.local.process import free_ports

USER, PASSWORD = "ann", 'geh"eim\\42'
_PEM_EXTENSIONS = "subjectAltName=IP:127.0.0.1"


class Certificates:
    """Two authorities, a certificate for the broker (for 127.0.0.1 only) and one for a client, each as PEM files."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("openssl") is None:
            unavailable("openssl", "install the package openssl")
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.authority, self.other_authority = self._authority("authority"), self._authority("other")
        self.broker = self._signed("broker", _PEM_EXTENSIONS)
        self.client = self._signed("client", "extendedKeyUsage=clientAuth")

    def client_fields(self) -> dict[str, str]:
        """The pipeline file's fields of the client's own certificate."""
        return {"certFile": str(self.client), "keyFile": str(self.client.with_suffix(".key"))}

    def _authority(self, name: str) -> Path:
        path = self._folder / f"{name}.pem"
        words = ["req", "-x509", "-subj", f"/CN={name}", "-days", "2", *_NEW_KEY]
        _openssl(*words, "-keyout", str(path.with_suffix(".key")), "-out", str(path))
        return path

    def _signed(self, name: str, extension: str) -> Path:
        """Signed by `authority`."""
        path, request, extensions = (self._folder / f"{name}.{end}" for end in ("pem", "csr", "ext"))
        extensions.write_text(extension)
        key = path.with_suffix(".key")
        _openssl("req", "-subj", f"/CN={name}", *_NEW_KEY, "-keyout", str(key), "-out", str(request))
        signer = ["-CA", str(self.authority), "-CAkey", str(self.authority.with_suffix(".key")), "-CAcreateserial"]
        _openssl(
            "x509", "-req", "-days", "2", "-in", str(request), *signer, "-extfile", str(extensions), "-out", str(path)
        )
        return path


_NEW_KEY = ("-newkey", "rsa:2048", "-nodes")


def _openssl(*words: str) -> None:
    done = subprocess.run(["openssl", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class SecuredKafka:
    """A broker with three doors: `plain` for the test itself, `sasl` (TLS and a password) and `mutual` (certificates)."""

    def __init__(self, directory: Path) -> None:
        self.certificates = Certificates(directory / "certificates")
        plain, sasl, mutual, controller = free_ports(4)
        self.plain, self.sasl, self.mutual = (f"127.0.0.1:{port}" for port in (plain, sasl, mutual))
        store = directory / "certificates" / "broker-store.pem"
        broker = self.certificates.broker
        store.write_text(broker.with_suffix(".key").read_text() + broker.read_text())
        doors = f"PLAINTEXT://{self.plain},SASL://{self.sasl},MUTUAL://{self.mutual}"
        login = "org.apache.kafka.common.security"
        quoted = PASSWORD.replace("\\", "\\\\").replace('"', '\\"')
        settings = {
            "listeners": f"{doors},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": doors,
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL:SASL_SSL,MUTUAL:SSL",
            "inter.broker.listener.name": "PLAINTEXT",
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
            "listener.name.sasl.plain.sasl.jaas.config": f'{login}.plain.PlainLoginModule required user_{USER}="{quoted}";',
            "listener.name.sasl.scram-sha-256.sasl.jaas.config": f"{login}.scram.ScramLoginModule required;",
            "listener.name.sasl.scram-sha-512.sasl.jaas.config": f"{login}.scram.ScramLoginModule required;",
            "listener.name.mutual.ssl.client.auth": "required",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(store),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.certificates.authority),
        }
        # A properties file takes a backslash for an escape of its own.
        escaped = {name: value.replace("\\", "\\\\") for name, value in settings.items()}
        self.server = EmbeddedKafka(directory / "kafka", plain, settings=escaped)

    def start(self) -> None:
        self.server.start()
        admin = AdminClient({"bootstrap.servers": self.plain})
        for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
            wanted = UserScramCredentialUpsertion(USER, ScramCredentialInfo(mechanism, 4096), PASSWORD.encode())
            for done in admin.alter_user_scram_credentials([wanted]).values():
                done.result(30)

    def with_password(self, mechanism: str = "SCRAM-SHA-512", **fields: Any) -> dict[str, Any]:
        """`kafka` of a pipeline file, for the door with the password; `fields` go over those of `tls` and `sasl`."""
        sasl = {"mechanism": mechanism, "username": USER, "password": PASSWORD} | fields.pop("sasl", {})
        tls = {"caFile": str(self.certificates.authority)} | fields.pop("tls", {})
        return {"bootstrapServers": self.sasl, "tls": tls, "sasl": sasl} | fields

    def with_certificate(self, **fields: Any) -> dict[str, Any]:
        """`kafka` of a pipeline file, for the door that asks for a certificate."""
        tls = {"caFile": str(self.certificates.authority), **self.certificates.client_fields()}
        return {"bootstrapServers": self.mutual, "tls": tls} | fields


@contextmanager
def secured_kafka(directory: Path) -> Iterator[SecuredKafka]:
    """A running one."""
    made = SecuredKafka(directory)
    with or_unavailable("kafka"):
        made.start()
    try:
        yield made
    finally:
        made.server.stop()
