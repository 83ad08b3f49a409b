"""Arrow types as column types of the store: one declaration, two databases.

SQLite has no exact decimals, no timestamps and no booleans. There a decimal is text with the collation `decimal` (that
of SQLite's own decimal extension), a timestamp an integer of microseconds since the epoch, a boolean 0 or 1.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from sqlalchemy import types
from sqlalchemy.dialects import postgresql

from tidegate.errors import ConfigError

# Bytewise order in both databases, as DuckDB has it: min, max and group order must not depend on the server's locale.
TEXT = types.Text(collation="C").with_variant(types.Text(), "sqlite")
INSTANT = types.TIMESTAMP(timezone=True).with_variant(types.BigInteger(), "sqlite")


def column_type(arrow: pa.DataType, *, where: str) -> types.TypeEngine[Any]:
    """The column that holds values of an Arrow type. `where` names the column in the error.

    Raises ConfigError for types that no column of a store can hold (arrays, structs).
    """
    is_ = pa.types
    if is_.is_boolean(arrow):
        return types.Boolean()
    if is_.is_uint64(arrow):
        return decimal_type(20, 0)
    if is_.is_integer(arrow):
        return types.BigInteger() if arrow.bit_width > 32 or str(arrow) == "uint32" else types.Integer()
    if is_.is_floating(arrow):
        return types.Double()
    if is_.is_decimal(arrow):
        return decimal_type(arrow.precision, arrow.scale)
    if is_.is_string(arrow) or is_.is_large_string(arrow):
        return TEXT
    if is_.is_binary(arrow) or is_.is_large_binary(arrow):
        return types.LargeBinary()
    if is_.is_timestamp(arrow):
        return INSTANT
    if is_.is_date(arrow):
        return types.Date().with_variant(types.Text(), "sqlite")
    raise ConfigError(
        f"{where} has type {arrow}, which a store table cannot hold",
        expected="a number, text, bytes, boolean, date or timestamp",
        hint="group by, or measure, a field of it",
    )


def decimal_type(precision: int, scale: int) -> types.TypeEngine[Any]:
    """An exact number of at most `precision` digits; the database refuses more."""
    return types.Numeric(precision, scale).with_variant(types.Text(collation="decimal"), "sqlite")


def widest_decimal(arrow: pa.DataType) -> int | None:
    """Characters of the longest text, without its sign, of a decimal; None for other types."""
    if pa.types.is_uint64(arrow):
        return 20
    if not pa.types.is_decimal(arrow):
        return None
    precision, scale = int(arrow.precision), int(arrow.scale)
    return max(precision - scale, 1) + (scale + 1 if scale > 0 else 0)


def shown_type(type_: types.TypeEngine[Any], dialect: object) -> str:
    """A column type as the database spells it, without its collation: what is compared and what an error shows."""
    compiled = type_.compile(dialect=dialect or postgresql.dialect())  # type: ignore[arg-type,no-untyped-call]  # SQLAlchemy's dialects have no types
    return compiled.split(" COLLATE")[0].upper().replace("DOUBLE PRECISION", "DOUBLE")
