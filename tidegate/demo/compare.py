"""What came out of the run beside what had to: window rows, measures, late windows, dead letters, ledger."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import duckdb
import psycopg
from psycopg import sql

from tidegate.demo.truth import AGGREGATIONS, Places

_EXAMPLES = 3
_DOUBLES = 1e-9  # relative: sums of doubles depend on the order of adding
_ESTIMATES = 0.02  # relative: one sigma of a sketch with 4096 registers is 1.6 %; small sets are exact
_ESTIMATED = frozenset({"aircraft", "carriers"})


@dataclass(frozen=True, slots=True)
class Comparison:
    """One thing compared. `different`: rows that are missing, too many or not equal; `examples`: some of them."""

    what: str
    expected: int
    found: int
    values: int
    different: int
    examples: tuple[str, ...] = ()

    @property
    def equal(self) -> bool:
        return self.different == 0 and self.expected == self.found


@dataclass(frozen=True, slots=True)
class _Table:
    """How one table of the truth is compared: its keys, its other columns, and the SELECT that has it in PostgreSQL."""

    name: str
    keys: tuple[str, ...]
    values: tuple[str, ...]
    select: sql.Composable


def _milliseconds(column: str) -> sql.Composable:
    return sql.SQL("CAST(extract(epoch FROM {0}) * 1000 AS bigint) AS {0}").format(sql.Identifier(column))


def _tables(pipeline: str) -> Iterable[_Table]:
    for aggregation in AGGREGATIONS:
        columns = [
            _milliseconds(name) if name.startswith("window_") else sql.Identifier(name)
            for name in (*aggregation.keys, *aggregation.measures)
        ]
        select = sql.SQL("SELECT {} FROM {}").format(sql.SQL(", ").join(columns), sql.Identifier(aggregation.name))
        yield _Table(aggregation.name, aggregation.keys, aggregation.measures, select)
    yield _Table(
        "late_windows",
        ("aggregation", "window_start", "window_end"),
        ("missing", "amended"),
        sql.SQL(
            "SELECT aggregation, {}, {}, sum(missing) AS missing, sum(amended) AS amended FROM tidegate_late_windows "
            "WHERE pipeline = {} GROUP BY 1, 2, 3"
        ).format(_milliseconds("window_start"), _milliseconds("window_end"), sql.Literal(pipeline)),
    )
    counters = ("read", "accepted", "dead_lettered", "late", "skipped", "replayed")
    yield _Table(
        "ledger",
        ("partition",),
        counters,
        sql.SQL("SELECT partition, {} FROM tidegate_partitions WHERE pipeline = {} AND read > 0").format(
            sql.SQL(", ").join(map(sql.Identifier, counters)), sql.Literal(pipeline)
        ),
    )


def compare_with_store(truth: duckdb.DuckDBPyConnection, url: str, pipeline: str) -> list[Comparison]:
    """Each table of the truth with what PostgreSQL has. `url`: postgresql://…; `truth` as compute_truth returns it."""
    with psycopg.connect(url) as connection, tempfile.TemporaryDirectory(prefix="tidegate-") as name:
        comparisons = []
        for table in _tables(pipeline):
            file = Path(name) / f"{table.name}.csv"
            _copy_out(connection, table.select, file)
            truth.execute(f"CREATE OR REPLACE TABLE found AS FROM {table.name} LIMIT 0")
            truth.execute("INSERT INTO found BY NAME FROM read_csv(?, header = true, all_varchar = true)", [str(file)])
            comparisons.append(_compare(truth, table))
        return comparisons


def _copy_out(connection: psycopg.Connection, select: sql.Composable, file: Path) -> None:
    statement = sql.SQL("COPY ({}) TO STDOUT (FORMAT csv, HEADER)").format(select)
    with connection.cursor().copy(statement) as copied, file.open("wb") as out:
        for chunk in copied:
            out.write(chunk)


def _compare(truth: duckdb.DuckDBPyConnection, table: _Table) -> Comparison:
    types = {name: str(kind) for name, kind, *_ in truth.execute(f"DESCRIBE {table.name}").fetchall()}
    differs = [_differs(name, types[name]) for name in table.values]
    keys = ", ".join(f'"{name}"' for name in table.keys)
    truth.execute(
        f"CREATE OR REPLACE TABLE pairs AS SELECT {keys}, "
        f"e._here IS NULL OR f._here IS NULL OR count(*) OVER (PARTITION BY {keys}) > 1 OR {' OR '.join(differs)} "
        f"AS _different "
        f"FROM (SELECT *, true AS _here FROM {table.name}) e FULL JOIN (SELECT *, true AS _here FROM found) f "
        f"USING ({keys})"
    )
    expected, found, different = _counts(truth, table)
    return Comparison(
        table.name.replace("_", " "),
        expected,
        found,
        expected * len(table.values),
        different,
        tuple(_examples(truth, table)) if different else (),
    )


def _differs(name: str, kind: str) -> str:
    """SQL that is true when the measure is not what it must be."""
    expected, found = f'e."{name}"', f'f."{name}"'
    if name in _ESTIMATED:
        near = f"abs({found} - {expected}) <= {_ESTIMATES} * {expected}"
    elif kind == "DOUBLE":
        near = f"abs({found} - {expected}) <= {_DOUBLES} * greatest(abs({expected}), abs({found}))"
    else:
        return f"({expected} IS DISTINCT FROM {found})"
    return f"(({expected} IS NULL) <> ({found} IS NULL) OR NOT coalesce({near}, true))"


def _counts(truth: duckdb.DuckDBPyConnection, table: _Table) -> tuple[int, int, int]:
    row = truth.execute(
        f"SELECT (SELECT count(*) FROM {table.name}), (SELECT count(*) FROM found), "
        "(SELECT count(*) FROM pairs WHERE _different)"
    ).fetchone()
    assert row is not None
    return row[0], row[1], row[2]


def _examples(truth: duckdb.DuckDBPyConnection, table: _Table) -> Iterable[str]:
    names = (*table.keys, *table.values)
    for side, other, word in ((table.name, "found", "expected"), ("found", table.name, "found")):
        columns = ", ".join(f'"{name}"' for name in names)
        keys = ", ".join(f'"{name}"' for name in table.keys)
        rows = truth.execute(
            f"SELECT {columns} FROM {side} WHERE ({keys}) IN (SELECT ({keys}) FROM pairs WHERE _different "
            f"ORDER BY ALL LIMIT {_EXAMPLES}) ORDER BY {keys}"
        ).fetchall()
        yield from (f"{word}: {dict(zip(names, row, strict=True))}" for row in rows)
        if not rows:
            yield f"{word}: nothing for these keys (see {other})"


def compare_places(what: str, expected: Places, found: Iterable[tuple[int, int]]) -> Comparison:
    """Exactly the right records (partition, offset), each once."""
    there = list(found)
    different = expected.symmetric_difference(there)
    examples = [
        f"{'missing' if place in expected else 'not expected'}: {place}" for place in sorted(different, key=str)
    ]
    return Comparison(what, len(expected), len(there), len(expected), len(different), tuple(examples[:_EXAMPLES]))
