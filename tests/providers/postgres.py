"""PostgreSQL for tests: where the server comes from, and the database of one test."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from tests.providers.availability import docker_answers, or_unavailable
from tidegate.local.postgres import EmbeddedPostgres

if TYPE_CHECKING:
    from testcontainers.community.postgres import PostgresContainer


@dataclass(frozen=True, slots=True)
class Database:
    """A database of one test's own. `url`: postgresql://…"""

    url: str


@contextmanager
def postgres_address(directory: Path) -> Iterator[str]:
    """The URL of the run's server, for a user that may create databases. `directory`: for an embedded one's data."""
    if given := os.environ.get("TIDEGATE_TEST_POSTGRES"):
        yield given
    elif docker_answers():
        with postgres_container() as container:
            yield container.get_connection_url()
    else:
        with embedded_postgres(directory) as server:
            yield server.url


def postgres_container() -> PostgresContainer:
    """One server as the tests need it, not started."""
    from testcontainers.community.postgres import PostgresContainer

    return PostgresContainer("postgres:18", driver=None)


@contextmanager
def embedded_postgres(directory: Path) -> Iterator[EmbeddedPostgres]:
    """A running server of this test's own."""
    server = EmbeddedPostgres(directory)
    with or_unavailable("postgres"):
        server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def fresh_database(server: str) -> Iterator[Database]:
    """A new empty database on the server, dropped afterwards together with whoever is still connected."""
    name = f"t_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        yield Database(urlsplit(server)._replace(path=f"/{name}").geturl())
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
