"""State rows as bytes, encoded and decoded a batch at a time.

A value is: a 64-bit mask of nulls, the fixed-width columns (little endian), the lengths of the variable-width columns,
their bytes. (Keys: tidegate/rowkeys.py.) Measured on 8 192 rows of 6 fixed columns: 0.25 µs a row to encode, 0.15 µs to decode.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tidegate.rowkeys import one_chunk

_WIDTHS: tuple[tuple[Any, Any], ...] = (
    (pa.types.is_int32, "<i4"),
    (pa.types.is_int64, "<i8"),
    (pa.types.is_float64, "<f8"),
    (pa.types.is_boolean, "|u1"),
    (pa.types.is_date32, "<i4"),
    (pa.types.is_timestamp, "<i8"),
    (pa.types.is_decimal128, "V16"),
)


class RowCodec:
    """Rows of the given columns (at most 64) to one `bytes` each, and back."""

    def __init__(self, columns: Sequence[tuple[str, pa.DataType]]) -> None:
        if len(columns) > 64:
            raise ValueError(f"a state row holds at most 64 columns, not {len(columns)}")
        self.columns = tuple(columns)
        fields: list[tuple[str, str]] = [("nulls", "<u8")]
        self._variable: list[str] = []
        for index, (name, kind) in enumerate(columns):
            width = _fixed_width(kind)
            fields.append((f"c{index}", width or "<i4"))
            if width is None:
                if not (pa.types.is_string(kind) or pa.types.is_binary(kind)):
                    raise ValueError(f"column {name}: a state row cannot hold {kind}")
                self._variable.append(name)
        self._fixed = np.dtype(fields)

    def encode(self, table: pa.Table) -> list[bytes]:
        """One value per row of `table`, which has at least this codec's columns."""
        rows = np.zeros(table.num_rows, dtype=self._fixed)
        tails: list[list[bytes]] = []
        for index, (name, kind) in enumerate(self.columns):
            column = one_chunk(table.column(name))
            if column.null_count:
                rows["nulls"] |= column.is_null().to_numpy(zero_copy_only=False).astype(np.uint64) << np.uint64(index)
            if _fixed_width(kind) is None:
                data = [b"" if v is None else v for v in column.cast(pa.binary()).to_pylist()]
                rows[f"c{index}"] = [len(v) for v in data]
                tails.append(data)
            else:
                rows[f"c{index}"] = _numpy(column, kind)
        width, buffer = self._fixed.itemsize, rows.tobytes()
        values = [buffer[at : at + width] for at in range(0, len(buffer), width)]
        return [b"".join(parts) for parts in zip(values, *tails, strict=True)] if tails else values

    def decode(self, values: Sequence[bytes]) -> pa.Table:
        """The table of these values, in order."""
        width = self._fixed.itemsize
        fixed = [v[:width] for v in values] if self._variable else values
        rows = np.frombuffer(b"".join(fixed), dtype=self._fixed)
        nulls, ends = rows["nulls"], np.full(len(rows), width, dtype=np.int64)
        arrays = []
        for index, (_, kind) in enumerate(self.columns):
            mask = (nulls >> np.uint64(index)) & np.uint64(1) != 0
            cells = rows[f"c{index}"]
            if _fixed_width(kind) is None:
                starts, ends = ends, ends + cells
                data = [v[a:b] for v, a, b in zip(values, starts.tolist(), ends.tolist(), strict=True)]
                arrays.append(pa.array(data, pa.binary(), mask=mask).cast(kind))
            else:
                arrays.append(_arrow(np.ascontiguousarray(cells), kind, mask))
        return pa.table(arrays, names=[name for name, _ in self.columns])


def _fixed_width(kind: pa.DataType) -> str | None:
    return next((width for is_kind, width in _WIDTHS if is_kind(kind)), None)


def _numpy(column: pa.Array, kind: pa.DataType) -> npt.NDArray[Any]:
    """The cells as the fixed dtype; what stands under a null is arbitrary."""
    if pa.types.is_boolean(kind):
        return np.asarray(pc.fill_null(column, False).to_numpy(zero_copy_only=False), dtype=np.uint8)
    dtype = np.dtype(_fixed_width(kind))
    return np.frombuffer(column.buffers()[1], dtype=dtype, count=len(column), offset=column.offset * dtype.itemsize)


def _arrow(cells: npt.NDArray[Any], kind: pa.DataType, mask: npt.NDArray[np.bool_]) -> pa.Array:
    validity = pa.array(~mask).buffers()[1] if mask.any() else None
    if pa.types.is_boolean(kind):
        return pa.array(cells != 0, mask=mask if validity is not None else None)
    return pa.Array.from_buffers(kind, len(cells), [validity, pa.py_buffer(cells.tobytes())])
