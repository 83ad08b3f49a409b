"""Compare a table that exists with the one that is needed, and say what to do when they differ."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, Inspector, Table, UniqueConstraint, inspect
from sqlalchemy.schema import CreateColumn

from tidegate.errors import ConfigError
from tidegate.store.columns import shown_type
from tidegate.store.raw import execute
from tidegate.store.tables import qualified

_WAY_OUT = "give the results another table (sinks.tables), or change this one while no worker runs"


def make_or_check(connection: Connection, tables: Iterable[Table]) -> None:
    """Each is made, or gets the columns of a newer version and is compared with what is needed. Raises ConfigError."""
    inspector = inspect(connection)
    for table in tables:
        if inspector.has_table(table.name, schema=table.schema):
            add_missing_columns(connection, inspector, table)
            check_table(inspector, table)
        else:
            table.create(connection)


def add_missing_columns(connection: Connection, inspector: Inspector, table: Table) -> None:
    """A table of an older version gets the columns that have come since: those with a default, and no others."""
    found = {column["name"] for column in inspector.get_columns(table.name, schema=table.schema)}
    missing = [column for column in table.columns if column.server_default is not None and column.name not in found]
    for column in missing:
        definition = CreateColumn(column).compile(dialect=connection.dialect)
        execute(connection, f"ALTER TABLE {qualified(table)} ADD COLUMN {definition}")
    if missing:
        inspector.clear_cache()


def check_table(inspector: Inspector, table: Table, way_out: str = _WAY_OUT) -> None:
    """Raises ConfigError that names the table, the column, what was found and what was expected."""
    name = ".".join(part for part in (table.schema, table.name) if part)
    dialect = inspector.dialect
    found = {
        column["name"]: shown_type(column["type"], dialect)
        for column in inspector.get_columns(table.name, schema=table.schema)
    }
    for column in table.columns:
        wanted = shown_type(column.type, dialect)
        if column.name not in found:
            raise ConfigError(
                f"table {name} has no column {column.name}", expected=f"{column.name} {wanted}", hint=way_out
            )
        if found[column.name] != wanted:
            raise ConfigError(
                f"table {name}: column {column.name} has another type",
                value=found[column.name],
                expected=wanted,
                hint=way_out,
            )
    for other in found:
        if other not in table.columns:
            raise ConfigError(
                f"table {name} has a column that this pipeline does not fill",
                value=f"{other} {found[other]}",
                expected=", ".join(table.columns.keys()),
                hint=way_out,
            )
    _check_key(inspector, table, name)


def _check_key(inspector: Inspector, table: Table, name: str) -> None:
    """The additive merge finds its row by a unique key, nulls being equal; without it every batch would fail."""
    keys = [constraint for constraint in table.constraints if isinstance(constraint, UniqueConstraint)]
    if not keys or inspector.dialect.name == "sqlite":
        return
    wanted = [column.name for column in keys[0].columns]
    for constraint in inspector.get_unique_constraints(table.name, schema=table.schema):
        nulls_equal = constraint.get("dialect_options", {}).get("postgresql_nulls_not_distinct", False)
        if sorted(constraint["column_names"]) == sorted(wanted) and nulls_equal:
            return
    raise ConfigError(
        f"table {name} lacks its unique key",
        expected=f"UNIQUE NULLS NOT DISTINCT ({', '.join(wanted)})",
        hint=_WAY_OUT,
    )
