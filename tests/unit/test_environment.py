"""What the project stands on: pinned packages, and containers for the tests where Docker is."""

from __future__ import annotations

import json
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import Distribution, distribution
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.providers.availability import docker_answers
from tests.providers.kafka import kafka_container
from tests.providers.postgres import postgres_container

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())


def needed(requirement: Requirement, found: dict[str, Distribution]) -> None:
    """The installed packages that a requirement brings, with all that they bring."""
    extras = {"", *requirement.extras}
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
        return
    name = canonicalize_name(requirement.name)
    if name in found and extras == {""}:
        return
    found[name] = distribution(name)
    for line in found[name].requires or ():
        inner = Requirement(line)
        if inner.marker is None or any(inner.marker.evaluate({"extra": extra}) for extra in extras):
            inner.marker = None
            needed(inner, found)


def test_every_package_is_pinned() -> None:
    """What the project names and what that brings is installed in exactly the version of pyproject.toml."""
    pins: dict[str, list[Requirement]] = {}
    for line in PROJECT["tool"]["uv"]["constraint-dependencies"]:
        pin = Requirement(line)
        pins.setdefault(canonicalize_name(pin.name), []).append(pin)
    found: dict[str, Distribution] = {}
    extras = PROJECT["project"]["optional-dependencies"].values()
    for line in [*PROJECT["project"]["dependencies"], *chain(*extras), *PROJECT["dependency-groups"]["dev"]]:
        needed(Requirement(line), found)
    found.pop("tidegate")  # the development group names its extra
    assert len(found) > 100
    applied = {
        name: [str(pin.specifier) for pin in given if pin.marker is None or pin.marker.evaluate()]
        for name, given in pins.items()
    }
    assert {name: applied.get(name) for name in found} == {name: [f"=={one.version}"] for name, one in found.items()}


class _Docker(BaseHTTPRequestHandler):
    """As much of an engine as a client asks for before it starts anything."""

    def do_GET(self) -> None:
        body = (
            b"OK"
            if self.path.endswith("_ping")
            else json.dumps({"ApiVersion": "1.47", "MinAPIVersion": "1.24"}).encode()
        )
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def docker(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Docker)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("TIDEGATE_TEST_DOCKER", "1")
    yield
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.slow
def test_containers_are_set_up_as_the_tests_need_them(docker: None) -> None:
    """With Docker there, and asked for: one broker with transactions that keeps records of 2013, and a PostgreSQL 18."""
    assert docker_answers()
    broker, database = kafka_container(), postgres_container()
    broker.configure()
    assert (broker.env["KAFKA_PROCESS_ROLES"], broker.env["KAFKA_LOG_RETENTION_MS"]) == ("broker,controller", "-1")
    assert (
        broker.env["KAFKA_TRANSACTION_STATE_LOG_MIN_ISR"] == broker.env["KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR"] == "1"
    )
    assert (database.image, database.driver, database.port) == ("postgres:18", "", 5432)
    assert callable(broker.get_bootstrap_server)
    assert callable(database.get_connection_url)
