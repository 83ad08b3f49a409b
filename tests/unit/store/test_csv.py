"""CSV for PostgreSQL's COPY, without a database."""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa

from tidegate.store.csv import from_csv, to_csv


def test_null_and_empty_text_are_two_things() -> None:
    """Nothing between commas is null; two quotes are empty text; quotes, commas and line ends are kept."""
    table = pa.table({"a": [None, "", 'x"y', "p,q\r\n"], "b": pa.array([1, None, 3, 4], pa.int64())})
    text = to_csv(table).to_pybytes()
    assert text == b',1\n"",\n"x""y",3\n"p,q\r\n",4\n'
    assert from_csv([text], table.schema) == table


def test_numbers_keep_every_digit() -> None:
    """Doubles and decimals come back bit for bit."""
    table = pa.table(
        {
            "d": [0.1, 1e308, 5e-324, float("inf"), -0.0],
            "n": pa.array([Decimal(10**38 - 1), Decimal(-1), Decimal(0), None, Decimal(7)], pa.decimal128(38, 0)),
        }
    )
    assert from_csv([to_csv(table).to_pybytes()], table.schema) == table


def test_bytes_are_hexadecimal() -> None:
    """As PostgreSQL reads bytea."""
    assert to_csv(pa.table({"b": pa.array([b"\x00\xff", None, b""], pa.binary())})).to_pybytes() == (
        b'"\\x00ff"\n\n"\\x"\n'
    )
