"""Arrays and structs, to any depth, and the codec of every type."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from itertools import chain
from operator import attrgetter
from typing import Annotated, Any

import msgspec
import numpy as np
import pyarrow as pa

from tidegate.config.schema import Column
from tidegate.errors import all_errors
from tidegate.stages.decode.codec import Codec, Fault, PlainCodec
from tidegate.stages.decode.decimals import DecimalCodec
from tidegate.stages.decode.timestamps import EpochCodec, IsoCodec, StrptimeCodec
from tidegate.stages.types import arrow_type

_INT = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
_BIGINT = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_PLAIN: dict[str, Any] = {"string": str, "int": _INT, "bigint": _BIGINT, "double": float, "boolean": bool, "date": date}


def codec_for(column: Column, *, forbid_unknown: bool, field: str) -> Codec:
    """The codec of a column. Raises ConfigError, naming `field`, for a strptime format that DuckDB does not know."""
    type_, kind = arrow_type(column), column.type
    if kind in _PLAIN:
        return PlainCodec(type_, _PLAIN[kind])
    if kind == "timestamp":
        return _timestamp(column, field)
    if kind == "array":
        assert column.items is not None
        item = codec_for(column.items, forbid_unknown=forbid_unknown, field=f"{field}.items")
        return ListCodec(type_, item, nullable=column.items.nullable)
    if kind == "struct":
        return StructCodec(column.fields, forbid_unknown=forbid_unknown, field=f"{field}.fields", type_=type_)
    return DecimalCodec(type_, nullable=column.nullable)


def _timestamp(column: Column, field: str) -> Codec:
    if column.unit is not None:
        return EpochCodec(column.unit)
    if column.format is None or column.format == "iso8601":
        return IsoCodec()
    return StrptimeCodec(column.format, field=field)


class ListCodec(Codec):
    """An array: its items as one flat column."""

    def __init__(self, type_: pa.DataType, item: Codec, *, nullable: bool) -> None:
        super().__init__(type_)
        self.item = item
        self.annotation = list[item.nullable_annotation if nullable else item.annotation]  # type: ignore[misc]  # an annotation made at run time

    def array(self, values: Sequence[list[Any] | None]) -> tuple[pa.Array, list[Fault]]:
        present = [value or () for value in values]
        flat, inner = self.item.array(list(chain.from_iterable(present)))
        offsets = np.zeros(len(values) + 1, dtype=np.int32)
        np.cumsum([len(value) for value in present], out=offsets[1:])
        mask = pa.array([value is None for value in values], type=pa.bool_())
        array = pa.ListArray.from_arrays(pa.array(offsets), flat, type=self.type, mask=mask)
        faults = []
        for fault in inner:
            row = int(np.searchsorted(offsets, fault.row, side="right")) - 1
            faults.append(fault._replace(row=row, path=f"[{fault.row - int(offsets[row])}]{fault.path}"))
        return array, faults


class StructCodec(Codec):
    """An object: each field as a column. The record's value itself is one."""

    def __init__(self, columns: Sequence[Column], *, forbid_unknown: bool, field: str, type_: pa.DataType) -> None:
        super().__init__(type_)
        self.names = [column.name for column in columns]
        self.codecs: list[Codec] = []
        with all_errors() as part:
            for index, column in enumerate(columns):
                with part():
                    self.codecs.append(codec_for(column, forbid_unknown=forbid_unknown, field=f"{field}[{index}]"))
        self._getters = [attrgetter(f"f{index}") for index in range(len(columns))]
        fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
        for index, (column, codec) in enumerate(zip(columns, self.codecs, strict=True)):
            required = (f"f{index}", codec.annotation)
            fields.append((f"f{index}", codec.nullable_annotation, codec.null) if column.nullable else required)
        self.annotation = msgspec.defstruct(
            "Object",
            fields,
            rename={f"f{index}": name for index, name in enumerate(self.names)},
            forbid_unknown_fields=forbid_unknown,
            kw_only=True,
            gc=False,  # a tree of plain values has no cycles; spares the collector 8192 objects per batch
        )

    def columns(self, rows: Sequence[Any]) -> tuple[list[pa.Array], list[Fault]]:
        """One array per field, of objects that are all there; a fault's path begins with its field's name."""
        arrays: list[pa.Array] = []
        faults: list[Fault] = []
        for name, codec, getter in zip(self.names, self.codecs, self._getters, strict=True):
            array, found = codec.array(list(map(getter, rows)))
            arrays.append(array)
            faults += [fault._replace(path=f".{name}{fault.path}") for fault in found]
        return arrays, faults

    def array(self, values: Sequence[Any]) -> tuple[pa.Array, list[Fault]]:
        there = [row for row, value in enumerate(values) if value is not None]
        arrays, faults = self.columns([values[row] for row in there])
        faults = [fault._replace(row=there[fault.row]) for fault in faults]
        packed = pa.StructArray.from_arrays(arrays, fields=list(self.type))
        if len(there) == len(values):
            return packed, faults
        index = np.full(len(values), -1)
        index[there] = np.arange(len(there))
        return packed.take(pa.array(index, mask=index < 0)), faults
