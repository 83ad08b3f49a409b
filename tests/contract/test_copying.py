"""Values at the ends of what a type holds, on their way into PostgreSQL: in either form of COPY the same, or refused."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pyarrow as pa
import pytest
from sqlalchemy import Connection

from tidegate.store import copying
from tidegate.store.failures import Failure, failure_of
from tidegate.store.postgres import connect_server
from tidegate.store.raw import execute, fetch

if TYPE_CHECKING:
    from tests.providers.postgres import Database

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

REFUSED = Failure.REFUSED
_LEAST, _MOST = -(2**63), 2**63 - 1
_US, _MS = pa.timestamp("us", "UTC"), pa.timestamp("ms", "UTC")
CASES: list[tuple[str, pa.DataType, Any, str | Failure]] = [
    ("timestamptz", _US, -1, "1969-12-31 23:59:59.999999+00"),
    ("timestamptz", _US, 253_402_300_800_000_000, "10000-01-01 00:00:00+00"),
    ("timestamptz", _US, _MOST, "294247-01-10 04:00:54.775807+00"),
    ("timestamptz", _US, 9_222_425_352_054_775_807, "294217-01-10 04:00:54.775807+00"),
    # The next four are, in the server's own count, beyond 64 bits or one of its infinities.
    ("timestamptz", _US, _LEAST + 1, REFUSED),
    ("timestamptz", _US, _LEAST + 946_684_799_999_999, REFUSED),
    ("timestamptz", _US, _LEAST + 946_684_800_000_000, REFUSED),
    ("timestamptz", _US, _LEAST + 946_684_800_000_001, REFUSED),
    ("timestamptz", _MS, -1, "1969-12-31 23:59:59.999+00"),
    ("timestamptz", _MS, 9_223_372_036_854_775, "294247-01-10 04:00:54.775+00"),
    ("timestamptz", _MS, 9_224_318_015_999_999, "294276-12-31 23:59:59.999+00"),
    ("timestamptz", _MS, 9_224_318_016_000_000, REFUSED),
    ("timestamptz", _MS, 18_446_744_073_709_552, REFUSED),
    ("timestamptz", _MS, 2**62, REFUSED),
    ("timestamptz", _MS, -(2**62), REFUSED),
    ("date", pa.date32(), -1, "1969-12-31"),
    ("date", pa.date32(), 2_932_897, "10000-01-01"),
    ("date", pa.date32(), -(2**31), REFUSED),
    ("date", pa.date32(), -(2**31) + 10_956, REFUSED),
    ("date", pa.date32(), -(2**31) + 10_957, REFUSED),
    ("date", pa.date32(), 2**31 - 1, REFUSED),
    ("bigint", pa.int64(), _LEAST, str(_LEAST)),
    ("bigint", pa.uint32(), 2**32 - 1, str(2**32 - 1)),
    ("integer", pa.int32(), -(2**31), str(-(2**31))),
    ("integer", pa.uint16(), 2**16 - 1, str(2**16 - 1)),
    ("numeric(20, 0)", pa.uint64(), 2**64 - 1, str(2**64 - 1)),
    ("numeric(38, 10)", pa.decimal128(38, 10), Decimal("-1.5"), "-1.5000000000"),
    ("double precision", pa.float64(), float("-inf"), "-Infinity"),
    ("double precision", pa.float64(), float("nan"), "NaN"),
    ("double precision", pa.float64(), -0.0, "-0"),
    ("double precision", pa.float64(), 5e-324, "5e-324"),
    ("text", pa.string(), "", ""),
    ("text", pa.string(), 'größe "😀", \\N\r\n', 'größe "😀", \\N\r\n'),
    ("text", pa.string(), "a\0b", REFUSED),
    ("bytea", pa.binary(), b"\0\xff", "\\x00ff"),
    ("boolean", pa.bool_(), False, "false"),
]


@pytest.fixture
def connection(postgres: Database) -> Iterator[Connection]:
    engine = connect_server(postgres.url, timeout=10_000)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def copied(connection: Connection, type_: str, value: pa.Array) -> str | Failure | None:
    """What the server has of it, as text, or what its error means."""
    with connection.begin_nested() as undone:
        execute(connection, f"CREATE TEMPORARY TABLE it (v {type_}, n BIGINT)")
        try:
            copying.copy_in(connection, "it", pa.table({"v": value, "n": pa.array([1])}))
        except psycopg.Error as error:
            return failure_of(error)
        else:
            return fetch(connection, "SELECT CAST(v AS TEXT) FROM it")[0][0]
        finally:
            undone.rollback()


@pytest.mark.parametrize("form", ["binary", "csv"])
def test_what_is_stored_is_what_was_sent(connection: Connection, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing becomes another value, whatever the database cannot hold of it; the rows that it refuses can then be found."""
    has_binary = copying.has_binary
    monkeypatch.setattr(copying, "has_binary", lambda schema: form == "binary" and has_binary(schema))
    found = [copied(connection, type_, pa.array([value], arrow)) for type_, arrow, value, _ in CASES]
    assert found == [wanted for *_, wanted in CASES]
    assert {copied(connection, type_, pa.array([None], arrow)) for type_, arrow, *_ in CASES} == {None}
