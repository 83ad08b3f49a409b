"""Durations as Spark writes them ("10 minutes", "1 hour 30 minutes") and as ISO 8601 does ("PT10M"), in ms."""

from __future__ import annotations

import re
from decimal import Decimal

_UNITS = {
    "millisecond": 1, "milliseconds": 1, "ms": 1,
    "second": 1000, "seconds": 1000, "sec": 1000, "s": 1000,
    "minute": 60_000, "minutes": 60_000, "min": 60_000, "m": 60_000,
    "hour": 3_600_000, "hours": 3_600_000, "h": 3_600_000,
    "day": 86_400_000, "days": 86_400_000, "d": 86_400_000,
    "week": 604_800_000, "weeks": 604_800_000,
}  # fmt: skip
_EXPECTED = 'expected a duration such as "10 minutes", "500 ms" or "PT10M"'
# ASCII digits only, and few enough that no sum leaves Decimal's 28 exact digits.
_PART = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([a-zA-Z]+)\s*")
_ISO = re.compile(
    r"P(?:(?P<weeks>[0-9]{1,12})W)?(?:(?P<days>[0-9]{1,12})D)?(?:T(?:(?P<hours>[0-9]{1,12})H)?"
    r"(?:(?P<minutes>[0-9]{1,15})M)?(?:(?P<seconds>[0-9]{1,15}(?:\.[0-9]{1,9})?)S)?)?"
)


def parse_duration(value: object) -> int:
    """Milliseconds of a written duration. An int is milliseconds: from code only, in a file a number needs its unit.

    Raises ValueError with the accepted forms.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, str) or not value.strip():
        raise ValueError(_EXPECTED)
    text = value.strip()
    if text[0] in "Pp":
        return _iso(text)
    position, total = 0, Decimal(0)
    while position < len(text):
        part = _PART.match(text, position)
        if part is None or part[2].lower() not in _UNITS:
            raise ValueError(_EXPECTED)
        total += Decimal(part[1]) * _UNITS[part[2].lower()]
        position = part.end()
    return _whole(total)


def _iso(text: str) -> int:
    match = _ISO.fullmatch(text.upper())
    if match is None or not any(match.groupdict().values()):
        raise ValueError('expected an ISO 8601 duration such as "PT10M" or "P1DT2H"')
    parts = (Decimal(number) * _UNITS[unit] for unit, number in match.groupdict().items() if number)
    return _whole(sum(parts, Decimal(0)))


def _whole(total: Decimal) -> int:
    if total != int(total):
        raise ValueError("durations are whole milliseconds")
    return int(total)


def format_duration(milliseconds: int) -> str:
    """The shortest written form that reads back as the same number of milliseconds."""
    for unit in ("day", "hour", "minute", "second"):
        size = _UNITS[unit]
        if milliseconds and milliseconds % size == 0:
            count = milliseconds // size
            return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
    return f"{milliseconds} ms"
