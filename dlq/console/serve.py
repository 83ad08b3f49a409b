"""The console's web server, until it is stopped."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace

import uvicorn

from dlq.console.app import create_app
from dlq.service import DeadLetterIndex
from tidegate.config.console import Console
from tidegate.errors import ConfigError

_BACKLOG = 128
_GRACE = 3  # seconds that answers under way may take when it ends


def serve(index: DeadLetterIndex, local_user: str, *, started: Callable[[str], None]) -> None:
    """Listen where the pipeline file says, tell `started` the URL, and answer until SIGINT or SIGTERM.

    Raises ConfigError when the address cannot be had.
    """
    settings = index.pipeline.dead_letters.console
    with _listen(settings) as listening:
        port = int(listening.getsockname()[1])
        app = create_app(index, local_user)
        app.state.gate.listens_on(port)
        config = uvicorn.Config(
            app, log_config=None, access_log=False, server_header=False, proxy_headers=False, lifespan="off",
            timeout_graceful_shutdown=_GRACE, limit_concurrency=200,
        )  # fmt: skip
        host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
        started(f"http://{f'[{host}]' if ':' in host else host}:{port}")
        uvicorn.Server(config).run(sockets=[listening])


def at(index: DeadLetterIndex, host: str | None, port: int | None) -> DeadLetterIndex:
    """The index with another address for its console. Raises ConfigError when nobody could be kept out there."""
    settings = index.pipeline.dead_letters.console
    changed = {"host": host or settings.host, "port": settings.port if port is None else port}
    moved = settings.model_copy(update=changed)
    if not moved.is_loopback and not moved.tokens:
        raise ConfigError(
            "the console would answer everybody who can reach it",
            field="--host",
            value=moved.host,
            expected="127.0.0.1, or tokens in the pipeline file",
            hint="deadLetters.console.tokens: [{name: ada, role: admin, token: '${ADA_TOKEN}'}]",
        )
    dead_letters = index.pipeline.dead_letters.model_copy(update={"console": moved})
    return replace(index, pipeline=index.pipeline.model_copy(update={"dead_letters": dead_letters}))


def _listen(settings: Console) -> socket.socket:
    host = settings.host.strip("[]")
    try:
        family = socket.getaddrinfo(host, settings.port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, settings.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"the console cannot listen: {error.strerror}",
            field="deadLetters.console.port",
            value=f"{settings.host}:{settings.port}",
            expected="an address of this machine with a port that nobody uses",
            hint="--port 0 takes any free port",
        ) from error
