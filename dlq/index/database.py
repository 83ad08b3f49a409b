"""The index's database: PostgreSQL or one SQLite file; its tables made or checked, its errors put into our words."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy.exc
from sqlalchemy import Connection, Engine, inspect, make_url, schema, text
from sqlalchemy.dialects import postgresql, sqlite

from dlq.index.tables import IndexTables, index_tables
from tidegate.config.deadletters import DeadLetters
from tidegate.config.pipeline import Pipeline
from tidegate.config.sinks import PostgresSink
from tidegate.config.urls import ENCODED, POSTGRES_URL, SQLITE_URL, is_index_url
from tidegate.errors import ConfigError, StoreUnavailable
from tidegate.store.check import add_missing_columns, check_table
from tidegate.store.failures import at_the_start, public_error
from tidegate.store.postgres import connect_server
from tidegate.store.sqlite import connect_file

DRIVER_ERRORS = (sqlalchemy.exc.DBAPIError, psycopg.Error, sqlite3.Error)
_WAY_OUT = (
    "give the index another schema (deadLetters.schema), or drop this one: the agent fills it anew from the topic"
)
_WORDS = (
    "CREATE VIRTUAL TABLE IF NOT EXISTS letters_words USING fts5(message, content='letters', content_rowid='letter')"
)


def index_location(pipeline: Pipeline, given: str | None = None) -> str:
    """The URL of a pipeline's index: given on the command line, in the file, that of the PostgreSQL sink, or a file."""
    if given is not None:
        return given
    if pipeline.dead_letters.index is not None:
        return pipeline.dead_letters.index.get_secret_value()
    for sink in pipeline.sinks:
        if isinstance(sink, PostgresSink):
            return sink.url.get_secret_value()
    return f"sqlite:///{Path(pipeline.worker.state_dir) / pipeline.pipeline_id}-dlq.sqlite"


class IndexDatabase:
    """Safe under threads and processes. Nothing is connected before it is used."""

    def __init__(self, url: str, settings: DeadLetters) -> None:
        """Raises ConfigError for a URL of another kind."""
        if not is_index_url(url):
            raise ConfigError(
                "not the URL of an index", field="--index", expected=f"{POSTGRES_URL} or {SQLITE_URL}", hint=ENCODED
            )
        parsed = make_url(url)
        self.is_postgres = parsed.get_backend_name() != "sqlite"
        self.schema = settings.schema_ if self.is_postgres else None
        self.tables: IndexTables = index_tables(self.schema)
        self.file = None if self.is_postgres else Path(parsed.database or "")
        self.name = "the index of dead letters " + (f"(SQLite {self.file})" if self.file else "(PostgreSQL)")
        self._engine = self._connect(url, settings.timeout)

    def _connect(self, url: str, timeout: int) -> Engine:
        if self.file is not None:
            return connect_file(self.file, timeout=timeout)
        scheme, _, rest = url.partition("://")
        return connect_server(f"{scheme.split('+')[0].replace('postgresql', 'postgres')}ql://{rest}", timeout=timeout)

    def prepare(self) -> None:
        """Make what is missing and check what is there. Raises ConfigError, StoreUnavailable."""
        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
        with at_the_start("the index's URL"), self.transaction() as connection:
            if self.schema is not None:
                # Two agents that start together take turns: CREATE … IF NOT EXISTS can fail on the catalogue's own key.
                lock = text("SELECT pg_advisory_xact_lock(hashtext(:name))")
                connection.execute(lock, {"name": f"tidegate index {self.schema}"})
                if self.schema not in inspect(connection).get_schema_names():
                    connection.execute(schema.CreateSchema(self.schema))
            inspector = inspect(connection)
            for table in self.tables.metadata.sorted_tables:
                if inspector.has_table(table.name, schema=self.schema):
                    add_missing_columns(connection, inspector, table)
                    check_table(inspector, table, _WAY_OUT)
                    for index in table.indexes:  # those that have come since the table was made
                        index.create(connection, checkfirst=True)
                else:
                    table.create(connection)
            if not self.is_postgres:
                connection.execute(text(_WORDS))

    def exists(self) -> bool:
        """Whether the index has been made. Raises StoreUnavailable."""
        if self.file is not None and not self.file.exists():
            return False
        with self.transaction(reads=True) as connection:
            return inspect(connection).has_table("letters", schema=self.schema)

    @contextmanager
    def transaction(self, *, reads: bool = False, translate: bool = True) -> Iterator[Connection]:
        """One transaction, committed at the end. Raises StoreUnavailable or ConfigError; the driver's own error with
        `translate=False`."""
        try:
            with self._engine.connect().execution_options(reads=reads) as connection, connection.begin():
                yield connection
        except DRIVER_ERRORS as error:
            if translate:
                raise public_error(error, self.name) from error
            raise
        except sqlalchemy.exc.TimeoutError as error:
            raise StoreUnavailable(f"{self.name}: no connection became free: {error}") from error

    def insert(self, table: Any) -> Any:
        """An INSERT of this database's dialect, which knows ON CONFLICT."""
        return postgresql.insert(table) if self.is_postgres else sqlite.insert(table)

    def close(self) -> None:
        self._engine.dispose()
