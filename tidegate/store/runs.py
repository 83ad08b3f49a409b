"""Runs of the second engine as the database knows them: a row each, which a run renews, and by which it can be asked to stop.

Over connections of its own: a beat waits for no commit, and none for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    Engine,
    Integer,
    MetaData,
    Table,
    and_,
    case,
    cast,
    delete,
    func,
    inspect,
    literal,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from tidegate.clock import Clock, SystemClock
from tidegate.config.sinks import PostgresSink, SqliteSink
from tidegate.store.check import add_missing_columns
from tidegate.store.columns import TEXT
from tidegate.store.failures import public_error
from tidegate.store.refusal import DRIVER_ERRORS
from tidegate.store.tables import RUNS

GONE_AFTER: Final = 10.0
"""Seconds without a beat after which a run counts as gone; beats come every two."""
_KEPT: Final = 7 * 24 * 3600  # seconds for which a run can be looked up after its last beat
_MOST: Final = 20  # runs that are listed

RUNNING: Final = ("running", "stopping")
"""States of a run that has not ended, unless it is gone."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a source partition is. `upto`: the last applied offset; `lag`: in offsets; `watermark`: ms since the epoch."""

    topic: str
    partition: int
    upto: int | None = None
    lag: int | None = None
    watermark: int | None = None


@dataclass(frozen=True, slots=True)
class Beat:
    """What a run says of itself. `records_per_second`: of the last micro-batches; `batch_seconds`: of the last one.
    `published`: sink beside the database → results that it was given."""

    run: str
    query: str
    host: str
    pid: int
    trigger: str
    state: str = "running"
    doing: str = ""
    error: str | None = None
    batches: int = 0
    read: int = 0
    records_per_second: float | None = None
    batch_seconds: float | None = None
    positions: Sequence[Position] = ()
    metrics: str | None = None
    ui: str | None = None
    published: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """A row. `started` and `beaten` in ms since the epoch, `age` of the last beat in seconds: all by the database's clock."""

    said: Beat
    started: int
    beaten: int
    age: float
    stop_asked: bool

    @property
    def alive(self) -> bool:
        return self.said.state in RUNNING and self.age < GONE_AFTER

    @property
    def state(self) -> str:
        """As the run has said, but `gone` when it says nothing any more."""
        if self.said.state not in RUNNING:
            return self.said.state
        if not self.alive:
            return "gone"
        return "stopping" if self.stop_asked else self.said.state


class Runs:
    """The runs of one pipeline."""

    def __init__(self, engine: Engine, schema: str | None, pipeline: str, clock: Clock, name: str) -> None:
        """`clock`: where the database has none of its own (SQLite)."""
        self._engine, self._schema, self._pipeline, self._clock, self._name = engine, schema, pipeline, clock, name
        self._table = _runs_table(MetaData(schema=schema))

    def prepare(self) -> None:
        """Create the table if it is missing, and forget what is old. Raises StoreUnavailable, ConfigError."""
        with self._transaction() as connection:
            if self._schema is not None:
                from tidegate.store.postgres import take_turn

                take_turn(connection, self._schema)
            inspector = inspect(connection)
            if inspector.has_table(self._table.name, schema=self._schema):
                add_missing_columns(connection, inspector, self._table)
            else:
                self._table.create(connection)
            old = self._now(connection) - _KEPT * 1000
            connection.execute(delete(self._table).where(self._mine, self._table.c.beaten < old))

    def beat(self, beat: Beat) -> bool:
        """Renew the run's row, or make it. Whether somebody has asked the run to stop. Raises StoreUnavailable, ConfigError."""
        columns = self._table.c
        with self._transaction() as connection:
            now = self._now(connection)
            dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
            said = _values(beat) | {"beaten": now}
            insert = dialect.insert(self._table).values(pipeline=self._pipeline, started=now, stop_asked=False, **said)
            renewed = insert.on_conflict_do_update(
                index_elements=[columns.pipeline, columns.run], set_={name: insert.excluded[name] for name in said}
            ).returning(columns.stop_asked)
            return bool(connection.execute(renewed).scalar_one())

    def recent(self) -> list[Run]:
        """Those that are alive, then the newest; none before the first run. Raises StoreUnavailable."""
        columns = self._table.c
        with self._transaction(reads=True) as connection:
            if not connection.dialect.has_table(connection, self._table.name, schema=self._schema):
                return []
            age = (self._now(connection) - columns.beaten).label("age")
            alive = and_(columns.state.in_(RUNNING), self._now(connection) - columns.beaten < GONE_AFTER * 1000)
            order = (case((alive, 0), else_=1), columns.started.desc(), columns.run)
            query = select(*columns, age).where(self._mine).order_by(*order).limit(_MOST)
            return [_run(row._mapping) for row in connection.execute(query)]

    def ask_to_stop(self, run: str) -> None:
        """The run finds it with its next beat. Raises StoreUnavailable."""
        with self._transaction() as connection:
            connection.execute(update(self._table).where(self._mine, self._table.c.run == run).values(stop_asked=True))

    def close(self) -> None:
        self._engine.dispose()

    @property
    def _mine(self) -> Any:
        return self._table.c.pipeline == self._pipeline

    def _now(self, connection: Connection) -> Any:
        """ms. The server's own clock, so that it does not matter how those of the machines differ."""
        if connection.dialect.name == "sqlite":
            return literal(int(self._clock.time() * 1000), BigInteger)
        return cast(func.extract("epoch", func.clock_timestamp()) * 1000, BigInteger)

    @contextmanager
    def _transaction(self, *, reads: bool = False) -> Iterator[Connection]:
        try:
            with self._engine.connect().execution_options(reads=reads) as connection, connection.begin():
                yield connection
        except DRIVER_ERRORS as error:
            raise public_error(error, self._name) from error


def open_runs(sink: PostgresSink | SqliteSink, pipeline: str, clock: Clock | None = None) -> Runs:
    """The runs of a pipeline in the database of a sink; nothing is connected yet."""
    found = clock or SystemClock()
    if isinstance(sink, PostgresSink):
        from tidegate.store.postgres import connect_server

        engine = connect_server(sink.url.get_secret_value(), timeout=sink.timeout)
        return Runs(engine, sink.schema_, pipeline, found, f"sink {sink.name!r} (PostgreSQL)")
    from pathlib import Path

    from tidegate.store.sqlite import connect_file

    engine = connect_file(Path(sink.path), timeout=sink.timeout)
    return Runs(engine, None, pipeline, found, f"sink {sink.name!r} (SQLite {sink.path})")


def _runs_table(metadata: MetaData) -> Table:
    """`started` and `beaten` in ms since the epoch, by the database's clock; `positions` and `published`: JSON."""
    return Table(
        RUNS,
        metadata,
        Column("pipeline", TEXT, primary_key=True),
        Column("run", TEXT, primary_key=True),
        Column("query", TEXT, nullable=False),
        Column("host", TEXT, nullable=False),
        Column("pid", Integer, nullable=False),
        Column("trigger", TEXT, nullable=False),
        Column("started", BigInteger, nullable=False),
        Column("beaten", BigInteger, nullable=False),
        Column("state", TEXT, nullable=False),
        Column("stop_asked", Boolean(create_constraint=False), nullable=False),
        Column("doing", TEXT, nullable=False),
        Column("error", TEXT),
        Column("batches", BigInteger, nullable=False),
        Column("read", BigInteger, nullable=False),
        Column("records_per_second", Double),
        Column("batch_seconds", Double),
        Column("positions", TEXT, nullable=False),
        Column("metrics", TEXT),
        Column("ui", TEXT),
        Column("published", TEXT, nullable=False, server_default="{}"),
    )


def _values(beat: Beat) -> dict[str, Any]:
    values = {field.name: getattr(beat, field.name) for field in fields(Beat)}
    names = [field.name for field in fields(Position)]
    positions = [{name: getattr(position, name) for name in names} for position in beat.positions]
    # PostgreSQL's text has no NUL, and an error may quote a record that has.
    texts = {name: value.replace("\0", "�") for name, value in values.items() if isinstance(value, str)}
    return values | texts | {"positions": json.dumps(positions), "published": json.dumps(dict(beat.published))}


def _run(row: Any) -> Run:
    said = Beat(**{field.name: row[field.name] for field in fields(Beat)})
    positions = tuple(Position(**one) for one in json.loads(row["positions"]))
    age = max(0, row["age"]) / 1000
    said = replace(said, positions=positions, published=json.loads(row["published"]))
    return Run(said, row["started"], row["beaten"], age, bool(row["stop_asked"]))
