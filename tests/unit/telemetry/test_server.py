"""The HTTP server of /live, /ready and /metrics, asked over a real socket."""

from __future__ import annotations

import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message

import pytest

from tidegate.clock import ManualClock
from tidegate.errors import ConfigError
from tidegate.telemetry.health import Health
from tidegate.telemetry.metric_defs import ASSIGNED_PARTITIONS, RECORDS_CONSUMED
from tidegate.telemetry.metrics import Metrics
from tidegate.telemetry.prometheus import PrometheusReporter
from tidegate.telemetry.server import TelemetryServer


class Served:
    """A running server with its parts."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.health = Health(self.clock, stuck_timeout=300)
        self.reporter = PrometheusReporter()
        self.metrics = Metrics(self.reporter)
        self.server = TelemetryServer(self.health, self.metrics, self.reporter)

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, Message, bytes]:
        request = urllib.request.Request(self.server.url + path, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, refused.headers, refused.read()


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served()
    with served.server:
        yield served


def test_live_and_ready(served: Served) -> None:
    """A healthy process answers 200 with status ok and no reasons."""
    for path in ("/live", "/ready"):
        status, headers, body = served.ask(path)
        assert (status, json.loads(body)) == (200, {"status": "ok", "reasons": {}})
        assert headers["Content-Type"] == "application/json; charset=utf-8"
        assert headers["Cache-Control"] == "no-store"


def test_not_ready(served: Served) -> None:
    """A process that is not ready answers 503 and says why, and is alive."""
    served.health.not_ready("restoring", "2 of 3 partitions restored")
    status, _, body = served.ask("/ready")
    assert status == 503
    assert json.loads(body) == {"status": "unavailable", "reasons": {"restoring": "2 of 3 partitions restored"}}
    assert served.ask("/live")[0] == 200


def test_dead(served: Served) -> None:
    """A process whose loop stands still answers 503 on /live: the server does not depend on that loop."""
    served.health.beat()
    served.clock.advance(60)
    status, _, body = served.ask("/live")
    assert status == 503
    assert json.loads(body)["reasons"] == {"heartbeat": "the process's loop has not turned for 60 s"}


def test_metrics(served: Served) -> None:
    """/metrics has what was counted, and what is computed is brought up to date first."""
    served.metrics.inc(RECORDS_CONSUMED, {"topic": "flights"}, 512)
    served.metrics.before_export(lambda: served.metrics.set(ASSIGNED_PARTITIONS, value=3))
    status, headers, body = served.ask("/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain")
    assert b'tidegate_records_consumed_total{topic="flights"} 512.0\n' in body
    assert b"tidegate_consumer_assigned_partitions 3.0\n" in body


def test_list_of_pages(served: Served) -> None:
    """/ lists the pages; a query string is ignored; an unknown page is 404 and names the known ones."""
    assert set(json.loads(served.ask("/")[2])) == {"/live", "/ready", "/metrics"}
    assert served.ask("/live?verbose=1")[0] == 200
    status, _, body = served.ask("/nothing")
    assert (status, json.loads(body)["pages"]) == (404, ["/live", "/ready", "/metrics"])


def test_methods(served: Served) -> None:
    """HEAD answers without a body; other methods are refused."""
    status, headers, body = served.ask("/live", method="HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > 0
    assert served.ask("/live", method="POST")[0] == 501


def test_many_at_once(served: Served) -> None:
    """A client that says nothing does not keep the others from their answers."""
    host, port = served.server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))):
        results: list[int] = []
        threads = [threading.Thread(target=lambda: results.append(served.ask("/live")[0])) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == [200] * 8


def test_loopback_only_by_default(served: Served) -> None:
    """Unless told otherwise the server listens on the loopback address only."""
    assert served.server.url.startswith("http://127.0.0.1:")


def test_port_taken(served: Served) -> None:
    """A port that somebody uses is refused with the address, what was expected and the way out."""
    port = int(served.server.url.rpartition(":")[2])
    with pytest.raises(ConfigError) as caught:
        TelemetryServer(served.health, served.metrics, served.reporter, port=port)
    message = str(caught.value)
    assert message.startswith("telemetry.port: the telemetry server cannot listen: Address already in use")
    assert f"127.0.0.1:{port}" in message
    assert "port 0 takes any free port" in message


def test_address_of_another_machine(served: Served) -> None:
    """An address that is not this machine's is refused in the same way."""
    with pytest.raises(ConfigError, match="an address of this machine"):
        TelemetryServer(served.health, served.metrics, served.reporter, host="192.0.2.1")


def test_stop_frees_the_port() -> None:
    """After a stop the port is free again; a server that was never started can be stopped, too."""
    served = Served()
    with served.server:
        port = int(served.server.url.rpartition(":")[2])
    again = TelemetryServer(served.health, served.metrics, served.reporter, port=port)
    again.stop()


def test_ipv6() -> None:
    """The server listens on IPv6, and its URL has the brackets."""
    served = Served()
    try:
        server = TelemetryServer(served.health, served.metrics, served.reporter, host="::1")
    except ConfigError:
        pytest.skip("this machine has no IPv6 loopback address")
    served.server.stop()
    served.server = server
    with server:
        assert server.url.startswith("http://[::1]:")
        assert served.ask("/live")[0] == 200
