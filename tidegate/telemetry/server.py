"""/live, /ready and /metrics over HTTP, in a thread of its own: it answers while the process's loop is stuck."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from types import TracebackType
from typing import NamedTuple, Self

import structlog

from tidegate.errors import ConfigError
from tidegate.telemetry.health import Health, Report
from tidegate.telemetry.metrics import Metrics
from tidegate.telemetry.prometheus import PrometheusReporter

log = structlog.get_logger(__name__)

_STOP_POLL = 0.05  # seconds that a stop may take; the default of 0.5 is felt in every shutdown

JSON = "application/json; charset=utf-8"
PAGES = {
    "/live": "whether the process should go on running (200 or 503)",
    "/ready": "whether it is at work, and if not, why (200 or 503)",
    "/metrics": "Prometheus metrics",
}


class Answer(NamedTuple):
    status: HTTPStatus
    content_type: str
    body: bytes


class TelemetryServer:
    """Serves health and metrics. Use as a context manager, or `start` and `stop`."""

    def __init__(
        self,
        health: Health,
        metrics: Metrics,
        reporter: PrometheusReporter,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        field: str = "telemetry.port",
    ) -> None:
        """`port` 0: any free port, see `url`. Raises ConfigError, of `field`, when the address cannot be had."""
        self._health, self._metrics, self._reporter = health, metrics, reporter
        try:
            self._server = _Server(host, port, self._answer)
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"the telemetry server cannot listen: {error.strerror if isinstance(error, OSError) else error}",
                field=field,
                value=f"{host}:{port}",
                expected="an address of this machine with a port that nobody uses",
                hint="port 0 takes any free port",
            ) from error
        serve = self._server.serve_forever
        self._thread = threading.Thread(target=serve, args=(_STOP_POLL,), name="telemetry", daemon=True)

    @property
    def url(self) -> str:
        """Where it answers, such as http://127.0.0.1:6060"""
        host, port = self._server.server_address[:2]
        shown = f"[{host!s}]" if ":" in str(host) else str(host)
        return f"http://{shown}:{port}"

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()
        log.info("telemetry.listening", url=self.url)

    def stop(self) -> None:
        """Stop answering and free the port."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _answer(self, path: str, accept: str) -> Answer:
        """The answer to GET `path`."""
        if path == "/live":
            return _report(self._health.live())
        if path == "/ready":
            return _report(self._health.ready())
        if path == "/metrics":
            self._metrics.refresh()
            body, content_type = self._reporter.render(accept)
            return Answer(HTTPStatus.OK, content_type, body)
        if path == "/":
            return _json(HTTPStatus.OK, PAGES)
        return _json(HTTPStatus.NOT_FOUND, {"error": f"no page {path}", "pages": list(PAGES)})


def _report(report: Report) -> Answer:
    status = HTTPStatus.OK if report.fine else HTTPStatus.SERVICE_UNAVAILABLE
    return _json(status, {"status": report.status, "reasons": dict(report.reasons)})


def _json(status: HTTPStatus, content: object) -> Answer:
    return Answer(status, JSON, json.dumps(content, ensure_ascii=False).encode() + b"\n")


class _Server(ThreadingHTTPServer):
    """One thread per request, none of which keeps the process alive."""

    daemon_threads = True

    def __init__(self, host: str, port: int, answer: Callable[[str, str], Answer]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.answer = answer
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        TCPServer.server_bind(
            self
        )  # not HTTPServer's: it looks the host's name up, which takes seconds without a resolver
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])


class _Handler(BaseHTTPRequestHandler):
    """GET and HEAD. Anything else is refused by the base class."""

    server: _Server
    server_version = "tidegate"
    sys_version = ""
    timeout = 10  # seconds that a silent client may hold its thread

    def do_GET(self) -> None:
        self._send(with_body=True)

    def do_HEAD(self) -> None:
        self._send(with_body=False)

    def _send(self, *, with_body: bool) -> None:
        answer = self.server.answer(self.path.partition("?")[0], self.headers.get("Accept", ""))
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if with_body:
            self.wfile.write(answer.body)

    def log_message(self, format: str, *args: object) -> None:
        log.debug("telemetry.request", client=self.client_address[0], request=format % args)
