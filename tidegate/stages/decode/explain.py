"""Why a value was refused: every fault of one record, with its path and what was there.

msgspec decides, quickly and at its first fault; this goes through a refused record again, text by text, and finds them
all. Timestamps in a strptime format are the one exception: DuckDB judges them, with the column.
"""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from datetime import date
from decimal import Decimal, InvalidOperation
from math import isfinite

import msgspec

from tidegate.config.schema import Column
from tidegate.stages.batch import Reason
from tidegate.stages.decode.decimals import decimal_fault, json_kind
from tidegate.stages.decode.moments import NOT_ISO_8601, epoch_micros, iso_micros
from tidegate.stages.decode.shown import shown
from tidegate.stages.types import arrow_type, nearest_name

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_STRING = msgspec.json.Decoder(str)
_BOUNDS = {"int": 2**31, "bigint": 2**63}
_KIND_OF = {
    "string": "a string",
    "date": "a string",
    "boolean": "a boolean",
    "array": "an array",
    "struct": "an object",
}

_Fault = tuple[str, str, str, bytes]  # path, error type, message, what was there


def explain(value: bytes, columns: Sequence[Column], *, forbid_unknown: bool) -> list[Reason]:
    """All reasons, in the schema's order; empty if nothing is wrong (but for strptime formats)."""
    if not value.strip():
        return [Reason("EmptyValue", "the value is empty", found=shown(repr(value)[1:]))]
    try:
        value.decode("utf-8")
    except UnicodeDecodeError as error:
        context = value[max(0, error.start - 20) : error.start + 20]
        path = _place_of_bad_text(value)
        return [
            Reason("InvalidUtf8", f"byte {error.start} is no UTF-8 ({error.reason})", field=path, found=shown(context))
        ]
    try:
        members = _OBJECT.decode(value)
    except msgspec.ValidationError:
        return [Reason("NotAnObject", f"expected an object, found {json_kind(value.lstrip())}", found=shown(value))]
    except (msgspec.DecodeError, RecursionError) as error:
        return [Reason("MalformedJson", _syntax(value, error), found=shown(value))]
    faults = _object(members, value, columns, "", forbid_unknown)
    return [Reason(kind, message, field=path, found=shown(found)) for path, kind, message, found in faults]


def _place_of_bad_text(value: bytes) -> str | None:
    """The field whose text is no UTF-8, if the record is an object of UTF-8 names."""
    try:
        members = _OBJECT.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    for name, raw in members.items():
        try:
            bytes(raw).decode("utf-8")
        except UnicodeDecodeError:
            return name
    return None


def _syntax(value: bytes, error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if value.startswith(BOM_UTF8):
        return "it begins with a byte order mark, which JSON does not have"
    constants: list[str] = []
    try:
        json.loads(value, parse_constant=constants.append)
    except (ValueError, RecursionError):
        said = str(error).removeprefix("JSON is malformed: ")
        return "it ends before the JSON is complete" if said == "Input data was truncated" else said
    if constants:
        return f"{constants[0]} is no JSON number"
    return "an escape that is half of a surrogate pair, and no character"


def _object(
    members: dict[str, msgspec.Raw], value: bytes, columns: Sequence[Column], at: str, forbid_unknown: bool
) -> Iterator[_Fault]:
    prefix = f"{at}." if at else ""
    for column in columns:
        raw = members.get(column.name)
        if raw is None and not column.nullable:
            unknown = members.keys() - {known.name for known in columns}
            near = nearest_name(column.name, tuple(sorted(unknown)))
            hint = f"; there is {near!r}" if near else ""
            yield f"{prefix}{column.name}", "MissingField", f"a field that is not nullable is missing{hint}", value
        elif raw is not None:
            yield from _value(bytes(raw), column, f"{prefix}{column.name}", forbid_unknown)
    if forbid_unknown:
        known = tuple(column.name for column in columns)
        for name in sorted(members.keys() - set(known)):
            near = nearest_name(name, known)
            hint = f"; did you mean {near!r}?" if near else ""
            yield f"{prefix}{name}", "UnknownField", f"the schema has no such field{hint}", bytes(members[name])


def _value(raw: bytes, column: Column, path: str, forbid_unknown: bool) -> Iterator[_Fault]:
    kind = column.type
    if raw == b"null":
        if not column.nullable:
            yield path, "NullField", "null in a field that is not nullable", raw
        return
    number = column.unit is not None if kind == "timestamp" else kind not in _KIND_OF
    expected = "a number" if number else _KIND_OF.get(kind, "a string")
    if (found := json_kind(raw)) != expected:
        wanted = expected if kind in expected else f"{column.type} as {expected}"  # "a string", but "date as a string"
        yield path, "WrongType", f"expected {wanted}, found {found}", raw
    elif kind == "struct":
        yield from _object(_OBJECT.decode(raw), raw, column.fields, path, forbid_unknown)
    elif kind == "array" and column.items is not None:
        for index, item in enumerate(_ARRAY.decode(raw)):
            yield from _value(bytes(item), column.items, f"{path}[{index}]", forbid_unknown)
    elif (fault := _leaf(raw, column, kind)) is not None:
        yield path, *fault, raw


def _leaf(raw: bytes, column: Column, kind: str) -> tuple[str, str] | None:
    """What is wrong with a string, number or boolean of the right JSON type: error type and message."""
    if kind in _BOUNDS:
        return _integer(raw, kind)
    if kind == "double":
        return None if isfinite(float(raw)) else ("Overflow", "does not fit a double")
    if kind == "date":
        return None if _is_date(_STRING.decode(raw)) else ("InvalidDate", "not a date of the form YYYY-MM-DD")
    if kind == "timestamp" and column.unit is not None:
        number = _number(raw)
        good = number is not None and epoch_micros(number, column.unit) is not None
        return None if good else ("InvalidTimestamp", f"no time as a number of {column.unit} since 1970")
    if kind == "timestamp" and (column.format is None or column.format == "iso8601"):
        good = iso_micros(_STRING.decode(raw)) is not None
        return None if good else ("InvalidTimestamp", NOT_ISO_8601)
    if kind.startswith("decimal"):
        return decimal_fault(raw, arrow_type(column))
    return None


def _integer(raw: bytes, kind: str) -> tuple[str, str] | None:
    if not raw.removeprefix(b"-").isdigit():
        return "WrongType", f"expected {kind}, found a number with a point or exponent"
    bound = _BOUNDS[kind]
    # More than 20 digits are out of range anyway, and Python refuses to convert thousands of them.
    if len(raw) > 20 or not -bound <= int(raw) < bound:
        return "Overflow", f"does not fit {kind} ({-bound} to {bound - 1})"
    return None


def _number(raw: bytes) -> int | float | None:
    try:
        number = Decimal(raw.decode("ascii"))
    except InvalidOperation:
        return None
    if any(mark in raw for mark in b".eE"):
        return float(number) if isfinite(float(number)) else None
    return int(number) if len(raw) <= 20 else None


def _is_date(text: str) -> bool:
    try:
        return len(text) == len("YYYY-MM-DD") and date.fromisoformat(text) is not None
    except ValueError:
        return False
