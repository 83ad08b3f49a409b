"""The view that adds an aggregation's partials up: made, replaced, and left alone, in PostgreSQL."""

from __future__ import annotations

import hashlib

import psycopg
from sqlalchemy import Connection

from tidegate.errors import ConfigError
from tidegate.stages.sql import literal, quote
from tidegate.store.raw import execute, fetch


def prepare_view(connection: Connection, schema: str, view: str, query: str, *, pipeline: str, way_out: str) -> None:
    """Make the view if it is missing, or bring it up to `query`, in the caller's transaction. `way_out`: the hint for a
    name that is taken. Raises ConfigError.

    The view's comment holds its pipeline and a digest of the query, so that an unchanged view is left alone: replacing it
    would lock out readers, and need rights that a worker may not have.
    """
    name = f"{quote(schema)}.{quote(view)}"
    owner = f"tidegate pipeline {pipeline}"
    comment = f"{owner} {hashlib.sha256(query.encode()).hexdigest()[:16]}"
    found = fetch(
        connection,
        f"SELECT relkind, obj_description(oid, 'pg_class') FROM pg_class WHERE oid = to_regclass({literal(name)})",
    )
    if found and (found[0][0] not in ("v", b"v") or not (found[0][1] or "").startswith(f"{owner} ")):
        raise ConfigError(
            f"{schema}.{view} exists and is not the view of this pipeline",
            value=found[0][1],
            expected=f"no such table, or the view of pipeline {pipeline}",
            hint=way_out,
        )
    if found and found[0][1] == comment:
        return
    if found:
        _replace(connection, name, query, way_out)
    else:
        execute(connection, f"CREATE VIEW {name} AS {query}")
    execute(connection, f"COMMENT ON VIEW {name} IS {literal(comment)}")


def _replace(connection: Connection, name: str, query: str, way_out: str) -> None:
    """In place while the columns allow it, so that grants and other people's views on it stay: PostgreSQL takes new columns at
    the end, and neither another order nor another type. A view with other columns is dropped and made anew."""
    savepoint = connection.begin_nested()
    try:
        execute(connection, f"CREATE OR REPLACE VIEW {name} AS {_in_the_old_order(connection, name, query)}")
    except psycopg.errors.InvalidTableDefinition:
        savepoint.rollback()
    else:
        savepoint.commit()
        return
    grants = fetch(
        connection,
        "SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE CAST(CAST(a.grantee AS regrole) AS text) END, a.privilege_type, "
        "a.is_grantable FROM pg_class AS c, aclexplode(c.relacl) AS a "
        f"WHERE c.oid = to_regclass({literal(name)}) AND a.grantee <> c.relowner",
    )
    try:
        execute(connection, f"DROP VIEW {name}")
    except psycopg.errors.DependentObjectsStillExist as error:
        raise ConfigError(
            f"the columns of view {name} have changed, and others depend on it: {error.diag.message_detail}",
            hint=f"drop those, start once, and make them anew; or {way_out}",
        ) from error
    execute(connection, f"CREATE VIEW {name} AS {query}")
    for role, right, grantable in grants:
        execute(connection, f"GRANT {right} ON {name} TO {role}{' WITH GRANT OPTION' if grantable else ''}")


def _in_the_old_order(connection: Connection, name: str, query: str) -> str:
    """The query with the columns that the view has where they are, and its new ones behind them."""
    numbers = f"attrelid = to_regclass({literal(name)}) AND attnum > 0"
    old = [row[0] for row in fetch(connection, f"SELECT attname FROM pg_attribute WHERE {numbers} ORDER BY attnum")]
    new = _columns(connection, query)
    order = [column for column in old if column in new] + [column for column in new if column not in old]
    return query if order == new else f"SELECT {', '.join(map(quote, order))} FROM ({query}) AS t"


def _columns(connection: Connection, query: str) -> list[str]:
    cursor = connection.connection.cursor()
    try:
        cursor.execute(f"SELECT * FROM ({query}) AS t LIMIT 0")
        return [column[0] for column in cursor.description or ()]
    finally:
        cursor.close()
