"""Arrow tables as the CSV of PostgreSQL's COPY, and back.

Both sides tell an absent value (nothing between the commas) from empty text (two quotes). Bytes travel as hexadecimals.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

_LAST = "9999-12-31T23:59:59"
_WRITE = pyarrow.csv.WriteOptions(include_header=False, quoting_style="needed")


def to_csv(table: pa.Table) -> pa.Buffer:
    """The rows, for `COPY … FROM STDIN (FORMAT csv)`."""
    if not table.num_rows:
        return pa.py_buffer(b"")
    # For a chunk without rows pyarrow 26 writes what the chunk before has left in its buffer, or anything.
    if any(not len(chunk) for column in table.columns for chunk in column.chunks):
        table = table.combine_chunks()
    for index, field in enumerate(table.schema):
        if pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type):
            table = table.set_column(index, field.name, _hex(table.column(index)))
        elif pa.types.is_timestamp(field.type):
            table = table.set_column(index, field.name, _as_text(table.column(index)))
        elif pa.types.is_decimal(field.type) and field.type.scale < 0:
            table = table.set_column(index, field.name, table.column(index).cast(pa.decimal128(38, 0)))
    sink = pa.BufferOutputStream()
    pyarrow.csv.write_csv(table, sink, _WRITE)
    return sink.getvalue()


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Instants as text, each different one once: that takes 1 µs, and a batch's rows are of a few windows."""
    encoded = column.combine_chunks().dictionary_encode()
    instants: NDArray[np.datetime64] = encoded.dictionary.to_numpy(zero_copy_only=False)
    texts = encoded.dictionary.cast(pa.string())
    if (instants > np.datetime64(_LAST, column.type.unit)).any():  # of later years Arrow writes 16 bits
        texts = pa.array(np.datetime_as_string(instants))
    return pa.chunked_array([texts.take(encoded.indices)])


def _hex(column: pa.ChunkedArray) -> pa.Array:
    return pa.array([None if value is None else f"\\x{value.hex()}" for value in column.to_pylist()], pa.string())


def from_csv(rows: list[bytes], schema: pa.Schema) -> pa.Table:
    """Rows of `COPY … TO STDOUT (FORMAT csv)`, as the types of `schema`; text must be read as pa.string()."""
    return pyarrow.csv.read_csv(
        pa.BufferReader(b"".join(rows)),
        read_options=pyarrow.csv.ReadOptions(column_names=schema.names, use_threads=False),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=schema,
            null_values=[""],
            true_values=["t"],
            false_values=["f"],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
