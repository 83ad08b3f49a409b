"""Values written in the pipeline file, as SQL of a column's type. Nothing coerces: text is no number."""

from __future__ import annotations

from datetime import date
from decimal import Decimal, InvalidOperation
from math import isfinite

import pyarrow as pa

from tidegate.stages.decode.moments import iso_micros
from tidegate.stages.sql import literal

Written = str | int | float | bool
Comparable = Decimal | float | str | date | int


def typed(value: Written, type_: pa.DataType) -> Comparable | None:
    """The written value as one that compares with the column's; None when it is of another type.

    Numbers become exact decimals (floats for a double column), dates and timestamps are written as ISO 8601 text, a
    decimal may be written as text too. Timestamps become microseconds.
    """
    if pa.types.is_boolean(type_):
        return value if isinstance(value, bool) else None
    if isinstance(value, bool):
        return None
    if pa.types.is_decimal(type_):
        return _decimal(value)
    if pa.types.is_integer(type_):
        return _decimal(value) if not isinstance(value, str) else None
    if pa.types.is_floating(type_):
        return _float(value) if not isinstance(value, str) else None
    if not isinstance(value, str):
        return None
    if pa.types.is_string(type_):
        return value
    if pa.types.is_date(type_):
        return _date(value)
    return iso_micros(value) if pa.types.is_timestamp(type_) else None


def sql(value: Comparable, type_: pa.DataType) -> str:
    """A typed value in SQL."""
    if isinstance(value, bool):
        return str(value).upper()
    if pa.types.is_timestamp(type_):
        return f"make_timestamp({value})"
    if isinstance(value, date):
        return f"DATE {literal(value.isoformat())}"
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, float):
        return f"CAST({literal(repr(value))} AS DOUBLE)"
    return literal(str(value))


def _decimal(value: str | int | float) -> Decimal | None:
    try:
        number = Decimal(repr(value) if isinstance(value, float) else value)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _float(value: int | float) -> float | None:
    try:
        return float(value) if isfinite(value) else None
    except OverflowError:
        return None


def _date(value: str) -> date | None:
    try:
        return date.fromisoformat(value) if len(value) == len("YYYY-MM-DD") else None
    except ValueError:
        return None


def written_as(type_: pa.DataType) -> str:
    """How a value for such a column is written in the file."""
    if pa.types.is_date(type_):
        return 'a date such as "2024-01-31"'
    if pa.types.is_timestamp(type_):
        return 'an ISO 8601 timestamp such as "2024-01-31T00:00:00Z"'
    if pa.types.is_boolean(type_):
        return "true or false"
    return "text" if pa.types.is_string(type_) else "a number"
