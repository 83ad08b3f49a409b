"""Where the two databases' SQL differs: adding, comparing and ordering partial columns, and showing instants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import pyarrow as pa


class SqlDialect(Protocol):
    """Fragments of SQL; arguments are SQL too. Aggregates are over the partials of one window and group."""

    def add(self, a: str, b: str, type_: pa.DataType) -> str:
        """a + b, null when either is."""

    def least(self, a: str, b: str) -> str:
        """The smaller one; null only when both are."""

    def greatest(self, a: str, b: str) -> str: ...

    def total(self, column: str, type_: pa.DataType) -> str:
        """Aggregate: the sum, exact for integers and decimals."""

    def smallest(self, column: str, type_: pa.DataType) -> str:
        """Aggregate."""

    def largest(self, column: str, type_: pa.DataType) -> str:
        """Aggregate."""

    def ratio(self, total: str, count: str) -> str:
        """The quotient as a double, null when `count` is null or 0."""

    def rank(self, by: Sequence[str], keys: Sequence[str], *, newest: bool) -> str | None:
        """What numbers the partials of a group by time, 1 first; None where `chosen` needs no such column."""

    def chosen(self, value: str, by: Sequence[str], rank: str, *, newest: bool) -> str:
        """Aggregate: the value with the smallest (largest) `by`: time, offset, value. Without a time none."""

    def joined_hex(self, column: str) -> str:
        """Aggregate: bytes as hexadecimal text, with commas between them."""

    def cast(self, value: str, type_: pa.DataType) -> str:
        """A number in the column type of a result."""

    def instant(self, milliseconds: str) -> str:
        """Milliseconds since the epoch in the form in which a window's bounds are stored."""

    def milliseconds(self, column: str) -> str:
        """A window's bound in ms since the epoch."""

    def shown_instant(self, column: str) -> str:
        """A window's bound as a person reads it."""

    def bytes(self, value: bytes) -> str:
        """A literal."""


class PostgresDialect:
    def add(self, a: str, b: str, type_: pa.DataType) -> str:
        return f"{a} + {b}"

    def least(self, a: str, b: str) -> str:
        return f"LEAST({a}, {b})"

    def greatest(self, a: str, b: str) -> str:
        return f"GREATEST({a}, {b})"

    def total(self, column: str, type_: pa.DataType) -> str:
        return f"sum({column})"

    def smallest(self, column: str, type_: pa.DataType) -> str:
        return f"bool_and({column})" if pa.types.is_boolean(type_) else f"min({column})"

    def largest(self, column: str, type_: pa.DataType) -> str:
        return f"bool_or({column})" if pa.types.is_boolean(type_) else f"max({column})"

    def ratio(self, total: str, count: str) -> str:
        return f"CAST({total} / nullif({count}, 0) AS DOUBLE PRECISION)"

    def rank(self, by: Sequence[str], keys: Sequence[str], *, newest: bool) -> str | None:
        return None

    def chosen(self, value: str, by: Sequence[str], rank: str, *, newest: bool) -> str:
        return f"(array_agg({value} ORDER BY {_ordered(by, newest)}) FILTER (WHERE {by[0]} IS NOT NULL))[1]"

    def joined_hex(self, column: str) -> str:
        return f"string_agg(encode({column}, 'hex'), ',')"

    def cast(self, value: str, type_: pa.DataType) -> str:
        if pa.types.is_integer(type_):
            return f"CAST({value} AS BIGINT)"
        if pa.types.is_decimal(type_):
            return f"CAST({value} AS NUMERIC({type_.precision}, {type_.scale}))"
        return f"CAST({value} AS DOUBLE PRECISION)" if pa.types.is_floating(type_) else value

    def instant(self, milliseconds: str) -> str:
        return f"(TIMESTAMPTZ 'epoch' + ({milliseconds}) * INTERVAL '1 millisecond')"

    def milliseconds(self, column: str) -> str:
        return f"CAST(extract(epoch FROM {column}) * 1000 AS BIGINT)"

    def shown_instant(self, column: str) -> str:
        return column

    def bytes(self, value: bytes) -> str:
        return f"decode('{value.hex()}', 'hex')"


class SqliteDialect:
    """`decimal_add`, `decimal_sum` and the collation `decimal` are of the decimal extension, which the shell has."""

    def add(self, a: str, b: str, type_: pa.DataType) -> str:
        return f"decimal_add({a}, {b})" if pa.types.is_decimal(type_) else f"{a} + {b}"

    def least(self, a: str, b: str) -> str:
        return f"coalesce(min({a}, {b}), {a}, {b})"

    def greatest(self, a: str, b: str) -> str:
        return f"coalesce(max({a}, {b}), {a}, {b})"

    def total(self, column: str, type_: pa.DataType) -> str:
        return f"decimal_sum({column})" if pa.types.is_decimal(type_) else f"sum({column})"

    def smallest(self, column: str, type_: pa.DataType) -> str:
        return f"min({column})"

    def largest(self, column: str, type_: pa.DataType) -> str:
        return f"max({column})"

    def ratio(self, total: str, count: str) -> str:
        return f"CAST({total} AS REAL) / nullif({count}, 0)"

    def rank(self, by: Sequence[str], keys: Sequence[str], *, newest: bool) -> str | None:
        order = f"{by[0]} IS NULL, {_ordered(by, newest)}"
        return f"row_number() OVER (PARTITION BY {', '.join(keys)} ORDER BY {order})"

    def chosen(self, value: str, by: Sequence[str], rank: str, *, newest: bool) -> str:
        return f"max(CASE WHEN {rank} = 1 THEN {value} END)"

    def joined_hex(self, column: str) -> str:
        return f"group_concat(hex({column}), ',')"

    def cast(self, value: str, type_: pa.DataType) -> str:
        return f"CAST({value} AS INTEGER)" if pa.types.is_integer(type_) else value

    def instant(self, milliseconds: str) -> str:
        return f"({milliseconds})"

    def milliseconds(self, column: str) -> str:
        return column

    def shown_instant(self, column: str) -> str:
        return f"strftime('%Y-%m-%dT%H:%M:%fZ', {column} / 1000.0, 'unixepoch')"

    def bytes(self, value: bytes) -> str:
        return f"X'{value.hex()}'"


def _ordered(by: Sequence[str], newest: bool) -> str:
    way = " DESC" if newest else " ASC"
    return ", ".join(column + way for column in by)
