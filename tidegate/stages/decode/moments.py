"""Timestamps as they are written, to microseconds since the epoch, UTC. Naive text is UTC; years 1 to 9999."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from math import isfinite

MIN_MICROS = -62_135_596_800_000_000  # 0001-01-01T00:00:00: Python's, and safely inside PostgreSQL's and DuckDB's range
MAX_MICROS = 253_402_300_799_999_999  # 9999-12-31T23:59:59.999999

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

NOT_ISO_8601 = "not an ISO 8601 date and time such as 2024-01-31T10:00:00Z"

# Extended or basic form, `T` or a space; digits beyond the microsecond are cut off. All but the length of a month is
# here, so that a column of them is judged by RE2 and not by an exception each.
ISO_8601 = re.compile(
    r"\d{4}(?:-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])|(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01]))"
    r"(?:[Tt ](?:[01]\d|2[0-3])(?::?[0-5]\d(?::?[0-5]\d(?:[.,]\d{1,12})?)?)?"
    r"(?:Z|[+-](?:[01]\d|2[0-3])(?::?[0-5]\d)?)?)?",
    re.ASCII,
)

PER_UNIT = {"s": 1_000_000, "ms": 1000, "us": 1}  # microseconds; nanoseconds are divided


def iso_micros(text: str) -> int | None:
    """Microseconds of an ISO 8601 date and time; None if it is none or outside the years 1 to 9999."""
    if ISO_8601.fullmatch(text) is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None  # well formed, but no such day or hour
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return _in_range((moment - _EPOCH) // _MICROSECOND)


def epoch_micros(number: int | float, unit: str) -> int | None:
    """Microseconds of a number of `unit` since the epoch; None outside the years 1 to 9999.

    Integers are exact (nanoseconds are floored), fractions are rounded to the microsecond.
    """
    if isinstance(number, int):
        return _in_range(number // 1000 if unit == "ns" else number * PER_UNIT[unit])
    micros = number / 1000 if unit == "ns" else number * PER_UNIT[unit]
    return _in_range(round(micros)) if isfinite(micros) else None


def _in_range(micros: int) -> int | None:
    return micros if MIN_MICROS <= micros <= MAX_MICROS else None
