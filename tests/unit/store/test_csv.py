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


def test_chunks_without_rows_are_nothing() -> None:
    """Tables that were put together from parts, some of them empty, are the same rows; and a table without rows is no text."""
    part = pa.table({"a": pa.array([1, 2], pa.int64()), "b": pa.array(["x", None], pa.string())})
    for parts in ([part.slice(0, 0), part], [part, part.slice(0, 0), part], [part, part.slice(0, 0)]):
        table = pa.concat_tables(parts).set_column(0, "a", pa.array([7] * sum(map(len, parts)), pa.int64()))
        assert to_csv(table).to_pybytes() == b'7,"x"\n7,\n' * (table.num_rows // 2)
    assert to_csv(part.slice(0, 0)).to_pybytes() == b""
