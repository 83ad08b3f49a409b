"""Decimals, exact from the JSON text: never through a double."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation, localcontext

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from tidegate.stages.decode.codec import Codec, Fault

_NULL = b"null"
_KINDS = {b'"': "a string", b"{": "an object", b"[": "an array", b"t": "a boolean", b"f": "a boolean", b"n": "null"}


def json_kind(raw: bytes) -> str:
    """What a JSON text is, by its first byte: "a string", "a number", ..."""
    return _KINDS.get(raw[:1], "a number")


class DecimalCodec(Codec):
    """msgspec hands over the number's text; Arrow parses the column; when one does not fit, each is judged."""

    annotation = msgspec.Raw
    null = msgspec.Raw(_NULL)

    def __init__(self, type_: pa.DataType, *, nullable: bool) -> None:
        super().__init__(type_)
        self.nullable = nullable

    @property
    def nullable_annotation(self) -> object:
        return msgspec.Raw  # takes null as it is

    def array(self, values: Sequence[msgspec.Raw | None]) -> tuple[pa.Array, list[Fault]]:
        texts = [None if value is None else bytes(value) for value in values]
        column = pa.array(texts, type=pa.binary())
        is_null = pc.equal(column, pa.scalar(_NULL, pa.binary()))
        faults: list[Fault] = []
        if pc.any(is_null).as_py():
            if not self.nullable:
                nulls = [row for row, null in enumerate(is_null.to_pylist()) if null]
                faults += [Fault(row, "", "NullField", "null in a field that is not nullable", "null") for row in nulls]
            column = pc.if_else(is_null, pa.scalar(None, pa.binary()), column)
        try:
            return column.cast(pa.string()).cast(self.type), faults
        except pa.ArrowInvalid:
            texts = column.to_pylist()
        for row, text in enumerate(texts):
            if text is not None and (fault := decimal_fault(text, self.type)) is not None:
                faults.append(Fault(row, "", *fault, text))
                texts[row] = None
        return pa.array([None if text is None else exact(text, self.type) for text in texts], type=self.type), faults


def decimal_fault(text: bytes, type_: pa.DataType) -> tuple[str, str] | None:
    """Error type and message if the JSON text is no number that `type_` holds exactly, else None."""
    if (kind := json_kind(text)) != "a number":
        return "WrongType", f"expected {_written(type_)} as a number, found {kind}"
    if exact(text, type_) is None:
        return (
            "Overflow",
            f"does not fit {_written(type_)}: too many digits, or more than {type_.scale} after the point",
        )
    return None


def exact(text: bytes, type_: pa.DataType) -> Decimal | None:
    """The number at the type's scale; None if digits would be lost."""
    with localcontext(prec=type_.precision) as context:
        try:
            number = Decimal(text.decode("ascii"))
            scaled = number.quantize(Decimal(1).scaleb(-type_.scale), context=context)
        except InvalidOperation:
            return None  # more digits than the precision, or an exponent beyond reason
    return scaled if scaled == number else None


def _written(type_: pa.DataType) -> str:
    return f"decimal({type_.precision},{type_.scale})"
