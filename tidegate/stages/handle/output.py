"""What a record handler gave back, checked against its output's schema, strictly, and made into columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any

import msgspec
import pyarrow as pa

from tidegate.stages.batch import Rejection
from tidegate.stages.decode.shown import shown
from tidegate.stages.handle.step import refusal

_NATIVE = (bytes, datetime, date, Decimal)  # must be such values: text is not read as one
_INT = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
_BIGINT = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class Output:
    """Checks and collects the results of a record handler."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self._type = _record_type(schema)

    def problem(self, result: object) -> str | None:
        """What is wrong with a result, in words; None if it fits the schema."""
        if not isinstance(result, Mapping):
            return f"the handler gave back {type(result).__name__}; expected a dict, or None to drop the record"
        try:
            msgspec.convert(result, self._type, strict=True, builtin_types=_NATIVE)
        except msgspec.ValidationError as error:
            return f"the handler's record does not fit its output: {error}"
        return None

    def columns(
        self, results: Sequence[Mapping[str, Any]], offsets: Sequence[int]
    ) -> tuple[pa.Table, list[int], list[Rejection]]:
        """What fits as a table, its indices, and rejections for results with a number too large for its decimal."""
        rejected: dict[int, Rejection] = {}
        arrays = []
        for field in self.schema:
            values = [_naive(result[field.name]) for result in results]
            try:
                arrays.append(pa.array(values, type=field.type))
            except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
                for index, value in enumerate(values):
                    if (problem := _unstorable(value, field.type)) is not None:
                        message = f"does not fit {field.type}: {problem}"
                        rejected[index] = refusal(offsets[index], message, field=field.name, found=shown(value))
                        values[index] = None
                arrays.append(pa.array(values, type=field.type))
        table = pa.Table.from_arrays(arrays, schema=self.schema)
        kept = [index for index in range(len(results)) if index not in rejected]
        if rejected:
            table = table.take(pa.array(kept, type=pa.int64()))
        return table, kept, list(rejected.values())


def _unstorable(value: object, type_: pa.DataType) -> str | None:
    try:
        pa.array([value], type=type_)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        return str(error).splitlines()[0]
    return None


def _naive(value: Any) -> Any:
    """A moment with an offset as naive UTC, as all timestamps are here; nested ones Arrow converts the same way."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).replace(tzinfo=None)
    return value


def _record_type(schema: Any) -> Any:
    fields = [(f"f{index}", _annotation(field)) for index, field in enumerate(schema)]
    names = {f"f{index}": field.name for index, field in enumerate(schema)}
    return msgspec.defstruct("Record", fields, rename=names, forbid_unknown_fields=True, kw_only=True)


def _annotation(field: pa.Field) -> Any:
    plain = _plain(field.type)
    return plain | None if field.nullable else plain


def _plain(type_: pa.DataType) -> Any:
    if pa.types.is_struct(type_):
        return _record_type(type_)
    if pa.types.is_list(type_):
        return list[_annotation(type_.value_field)]  # type: ignore[misc]  # an annotation made at run time
    if pa.types.is_decimal(type_):
        return Decimal
    return _PYTHON[type_]


_PYTHON: dict[pa.DataType, Any] = {
    pa.string(): str,
    pa.int32(): _INT,
    pa.int64(): _BIGINT,
    pa.float64(): float,
    pa.bool_(): bool,
    pa.date32(): date,
    pa.timestamp("us"): datetime,
    pa.binary(): bytes,
}
