"""Bad records, each with the stage, error type and field it must be refused for; the schema is that of `PIPELINE`."""

from __future__ import annotations

from dataclasses import dataclass

PIPELINE: dict[str, object] = {
    "pipelineId": "corpus",
    "source": {
        "topics": ["orders"],
        "key": {"column": "customer"},
        "value": {"additionalFields": "reject", "tombstones": "reject"},
    },
    "schema": [
        {"name": "id", "type": "bigint", "nullable": False},
        {"name": "count", "type": "int"},
        {"name": "name", "type": "string", "nullable": False},
        {"name": "ratio", "type": "double"},
        {"name": "price", "type": "decimal(10,2)"},
        {"name": "paid", "type": "boolean"},
        {"name": "day", "type": "date"},
        {"name": "at", "type": "timestamp", "unit": "ms"},
        {"name": "seen", "type": "timestamp", "format": "iso8601"},
        {"name": "local", "type": "timestamp", "format": "%d.%m.%Y %H:%M"},
        {"name": "tags", "type": "array", "items": {"type": "string", "nullable": False}},
        {
            "name": "address",
            "type": "struct",
            "fields": [
                {"name": "city", "type": "string", "nullable": False},
                {"name": "lines", "type": "array", "items": {"type": "string"}},
                {"name": "since", "type": "timestamp", "format": "iso8601"},
                {"name": "fees", "type": "array", "items": {"type": "decimal(6,2)"}},
            ],
        },
    ],
    "rules": [
        {"type": "notNull", "column": "count"},
        {"type": "range", "column": "count", "min": 0, "max": 100},
        {"type": "range", "column": "at", "min": "2001-01-01T00:00:00Z"},
        {"type": "regex", "column": "name", "pattern": "[a-z]+"},
        {"type": "allowedValues", "column": "paid", "values": [True]},
        {"type": "length", "column": "name", "max": 8},
        {"type": "expect", "expression": "price > 0", "name": "priced", "nullPasses": True},
        {"type": "expect", "expression": "address.city <> 'x' OR address IS NULL", "name": "city"},
        {"type": "expect", "expression": "CAST(tags[1] AS INTEGER) >= 0", "name": "numeric tag", "nullPasses": True},
    ],
}

GOOD = b'{"id": 1, "count": 1, "name": "good", "price": 1.50, "tags": ["7"]}'


@dataclass(frozen=True)
class Bad:
    """One bad record and the first reason it is refused for; a `value` of None is a tombstone. `says`: a part of the
    message that a person must find there."""

    name: str
    value: bytes | None
    stage: str
    error_type: str
    field: str | None = None
    found: str | None = None
    key: bytes | None = b"k"
    says: str = ""


def _decode(name: str, fields: str, error_type: str, field: str, found: str | None = None, says: str = "") -> Bad:
    """A record that is good but for the given fields."""
    value = b'{"id": 1, "name": "bad", %s}' % fields.encode()
    return Bad(name, value, "decode", error_type, field, found, says=says)


def _rule(name: str, fields: str, field: str, error_type: str = "RuleViolation", says: str = "") -> Bad:
    base = '"id": 1, "count": 1, "name": "bad"'
    return Bad(name, f"{{{base}, {fields}}}".encode(), "validate", error_type, field, says=says)


BAD: list[Bad] = [
    # Not a JSON object at all.
    Bad("no bytes", b"", "decode", "EmptyValue"),
    Bad("white space", b" \n ", "decode", "EmptyValue"),
    Bad("a tombstone", None, "decode", "Tombstone"),
    Bad("cut off", GOOD[:-5], "decode", "MalformedJson", says="ends before the JSON is complete"),
    Bad("trailing text", GOOD + b" {}", "decode", "MalformedJson", says="trailing characters (byte 69)"),
    Bad("two objects", GOOD + GOOD, "decode", "MalformedJson"),
    Bad("a trailing comma", b'{"id": 1, "name": "a",}', "decode", "MalformedJson"),
    Bad("single quotes", b"{'id': 1}", "decode", "MalformedJson"),
    Bad("a comment", b'{"id": 1, /* one */ "name": "a"}', "decode", "MalformedJson"),
    Bad("NaN", b'{"id": 1, "name": "a", "ratio": NaN}', "decode", "MalformedJson", says="NaN is no JSON number"),
    Bad(
        "minus Infinity",
        b'{"id": 1, "name": "a", "ratio": -Infinity}',
        "decode",
        "MalformedJson",
        says="-Infinity is no JSON number",
    ),
    Bad("a leading zero", b'{"id": 01, "name": "a"}', "decode", "MalformedJson"),
    Bad("a raw line break in a string", b'{"id": 1, "name": "a\nb"}', "decode", "MalformedJson"),
    Bad(
        "half a surrogate pair",
        b'{"id": 1, "name": "\\ud800"}',
        "decode",
        "MalformedJson",
        says="half of a surrogate pair",
    ),
    Bad("a byte order mark", b"\xef\xbb\xbf" + GOOD, "decode", "MalformedJson", says="byte order mark"),
    Bad("a hundred thousand brackets", b'{"id": 1, "tags": ' + b"[" * 100_000, "decode", "MalformedJson"),
    Bad(
        "deep and well formed",
        b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "decode",
        "MalformedJson",
        says="nested too deeply",
    ),
    Bad("binary", bytes(range(128, 192)), "decode", "InvalidUtf8"),
    Bad("Latin-1 in a column", b'{"id": 1, "name": "caf\xe9"}', "decode", "InvalidUtf8", "name"),
    Bad("Latin-1 in an unknown field", b'{"id": 1, "name": "a", "x": "\xe9"}', "decode", "InvalidUtf8", "x"),
    Bad("UTF-16", GOOD.decode().encode("utf-16"), "decode", "InvalidUtf8"),
    Bad("an array", b"[" + GOOD + b"]", "decode", "NotAnObject"),
    Bad("a string", b'"text"', "decode", "NotAnObject"),
    Bad("a number", b"42", "decode", "NotAnObject"),
    Bad("null as text", b"null", "decode", "NotAnObject"),
    # Fields that are not there, or should not be.
    Bad("no id", b'{"name": "a"}', "decode", "MissingField", "id"),
    Bad("an empty object", b"{}", "decode", "MissingField", "id"),
    Bad("a misspelt field", b'{"id": 1, "nmae": "a"}', "decode", "MissingField", "name"),
    Bad("null for a required field", b'{"id": null, "name": "a"}', "decode", "NullField", "id", "null"),
    _decode("a field too many", '"colour": 1', "UnknownField", "colour", "1"),
    _decode("a nested field missing", '"address": {}', "MissingField", "address.city"),
    _decode("a nested field too many", '"address": {"city": "a", "zip": 1}', "UnknownField", "address.zip", "1"),
    _decode("null among items", '"tags": ["a", null]', "NullField", "tags[1]", "null"),
    # Types never coerce.
    _decode(
        "text for a number",
        '"count": "12"',
        "WrongType",
        "count",
        '"12"',
        says="expected int as a number, found a string",
    ),
    _decode("a fraction for an int", '"count": 1.0', "WrongType", "count", "1.0"),
    _decode("an exponent for an int", '"count": 1e2', "WrongType", "count", "1e2"),
    _decode("true for an int", '"count": true', "WrongType", "count", "true"),
    _decode("1 for a boolean", '"paid": 1', "WrongType", "paid", "1", says="expected a boolean, found a number"),
    _decode("text for a boolean", '"paid": "true"', "WrongType", "paid", '"true"'),
    _decode("text for a double", '"ratio": "1.5"', "WrongType", "ratio", '"1.5"'),
    _decode("text for a decimal", '"price": "1.50"', "WrongType", "price", '"1.50"'),
    _decode("an object for a string", '"day": {}', "WrongType", "day", "{}"),
    _decode("text for an array", '"tags": "a"', "WrongType", "tags", '"a"', says="expected an array, found a string"),
    _decode("a number among strings", '"address": {"city": "a", "lines": [2]}', "WrongType", "address.lines[0]", "2"),
    _decode(
        "an array for a struct",
        '"address": []',
        "WrongType",
        "address",
        "[]",
        says="expected struct as an object, found an array",
    ),
    _decode("text for milliseconds", '"at": "2024-01-01"', "WrongType", "at", '"2024-01-01"'),
    _decode("a number for ISO 8601", '"seen": 0', "WrongType", "seen", "0"),
    # Numbers that do not fit.
    _decode("an int of 32 bits and one", '"count": 2147483648', "Overflow", "count", "2147483648"),
    _decode("an int below its bounds", '"count": -2147483649', "Overflow", "count", "-2147483649"),
    Bad("2 to the 63rd", b'{"id": 9223372036854775808, "name": "a"}', "decode", "Overflow", "id"),
    Bad("a bigint below its bounds", b'{"id": -9223372036854775809, "name": "a"}', "decode", "Overflow", "id"),
    Bad("5000 digits", b'{"id": %s, "name": "a"}' % (b"9" * 5000), "decode", "Overflow", "id"),
    _decode("a double beyond doubles", '"ratio": 1e999', "Overflow", "ratio", "1e999"),
    _decode("a decimal of three places", '"price": 1.005', "Overflow", "price", "1.005"),
    _decode("a decimal too wide", '"price": 123456789.00', "Overflow", "price", "123456789.00"),
    _decode("a decimal beyond reason", '"price": 1e999999999', "Overflow", "price", "1e999999999"),
    _decode("a nested decimal", '"address": {"city": "a", "fees": [1, 0.001]}', "Overflow", "address.fees[1]", "0.001"),
    # Dates and times that are none.
    _decode(
        "the 30th of February",
        '"day": "2024-02-30"',
        "InvalidDate",
        "day",
        '"2024-02-30"',
        says="not a date of the form YYYY-MM-DD",
    ),
    _decode("a date with a time", '"day": "2024-01-01T00:00:00"', "InvalidDate", "day", '"2024-01-01T00:00:00"'),
    _decode(
        "month 13",
        '"seen": "2024-13-01T00:00:00Z"',
        "InvalidTimestamp",
        "seen",
        "2024-13-01T00:00:00Z",
        says="not an ISO 8601 date and time such as",
    ),
    _decode("words for a time", '"seen": "yesterday"', "InvalidTimestamp", "seen", "yesterday"),
    _decode("hour 24", '"seen": "2024-01-01T24:00:00"', "InvalidTimestamp", "seen", "2024-01-01T24:00:00"),
    _decode(
        "another format",
        '"local": "2024-01-01 10:00"',
        "InvalidTimestamp",
        "local",
        "2024-01-01 10:00",
        says="not a timestamp in the format %d.%m.%Y",
    ),
    _decode("the year 10000", '"at": 253402300800000', "InvalidTimestamp", "at", "253402300800000"),
    _decode("a nested time", '"address": {"city": "a", "since": "x"}', "InvalidTimestamp", "address.since", "x"),
    # The key.
    Bad("a key that is no UTF-8", GOOD, "decode", "InvalidKey", "customer", "\\xff", key=b"\xff"),
    # Rules.
    Bad("a value that must be there", b'{"id": 1, "name": "bad"}', "validate", "RuleViolation", "count", "null"),
    Bad("above the range", b'{"id": 1, "count": 101, "name": "bad"}', "validate", "RuleViolation", "count", "101"),
    _rule("before the range", '"at": 0', "at"),
    Bad("a line break after a match", b'{"id": 1, "count": 1, "name": "bad\\n"}', "validate", "RuleViolation", "name"),
    Bad("too long", b'{"id": 1, "count": 1, "name": "abcdefghi"}', "validate", "RuleViolation", "name", "abcdefghi"),
    _rule("a value not allowed", '"paid": false', "paid", says="expected one of true"),
    _rule("a condition that is false", '"price": -1', "price"),
    _rule("a nested condition", '"address": {"city": "x"}', "address"),
    _rule("an expression that breaks", '"tags": ["many"]', "tags", "ExpressionError"),
]
