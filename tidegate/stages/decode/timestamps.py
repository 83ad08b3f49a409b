"""Timestamps: numbers with a unit, ISO 8601 text, text in a strptime format. Whole columns at once; bad ones singly."""

from __future__ import annotations

import re
from collections.abc import Sequence

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidegate.errors import ConfigError
from tidegate.stages.decode.codec import Codec, Fault
from tidegate.stages.decode.moments import (
    ISO_8601,
    MAX_MICROS,
    MIN_MICROS,
    NOT_ISO_8601,
    PER_UNIT,
    epoch_micros,
    iso_micros,
)
from tidegate.stages.sql import connect, literal, query

_MICROS = pa.timestamp("us")
_INVALID = "InvalidTimestamp"


class EpochCodec(Codec):
    """A number of seconds, milli-, micro- or nanoseconds since the epoch."""

    annotation = int | float

    def __init__(self, unit: str) -> None:
        super().__init__(_MICROS)
        self.unit = unit
        self._outside = f"outside the years 1 to 9999, as a number of {unit} since 1970"

    def array(self, values: Sequence[int | float | None]) -> tuple[pa.Array, list[Fault]]:
        try:
            numbers = pa.array(values)
        except (pa.ArrowInvalid, OverflowError):  # an integer beyond 64 bits, or beyond 2^53 among fractions
            return self._singly(values)
        if not pa.types.is_integer(numbers.type):  # fractions, or nothing but nulls
            return self._singly(values)
        plain = numbers.fill_null(0).to_numpy(zero_copy_only=False)
        if self.unit == "ns":  # 64 bits of nanoseconds do not leave the years 1 to 9999
            outside = np.zeros(len(plain), dtype=bool)
            micros = np.floor_divide(plain, 1000).astype(np.int64)
        else:
            factor = PER_UNIT[self.unit]
            outside = (plain < MIN_MICROS // factor) | (plain > MAX_MICROS // factor)
            micros = np.where(outside, 0, plain).astype(np.int64) * factor
        mask = np.asarray(numbers.is_null()) | outside
        faults = [Fault(row, "", _INVALID, self._outside, values[row]) for row in np.flatnonzero(outside).tolist()]
        return pa.array(micros, type=_MICROS, mask=mask), faults

    def _singly(self, values: Sequence[int | float | None]) -> tuple[pa.Array, list[Fault]]:
        micros = [None if value is None else epoch_micros(value, self.unit) for value in values]
        faults = [
            Fault(row, "", _INVALID, self._outside, value)
            for row, (value, moment) in enumerate(zip(values, micros, strict=True))
            if value is not None and moment is None
        ]
        return pa.array(micros, type=pa.int64()).cast(_MICROS), faults


class IsoCodec(Codec):
    """ISO 8601 text; without an offset it is UTC."""

    annotation = str

    def __init__(self) -> None:
        super().__init__(_MICROS)

    def array(self, values: Sequence[str | None]) -> tuple[pa.Array, list[Fault]]:
        texts = pa.array(values, type=pa.string())
        moments = _cast(texts)
        if moments is not None:
            return moments, []
        well_formed = pc.match_substring_regex(texts, f"^(?:{ISO_8601.pattern})$").fill_null(True)
        kept = pc.if_else(well_formed, texts, pa.scalar(None, pa.string()))
        bad = set(np.flatnonzero(~np.asarray(well_formed)).tolist())
        moments = _cast(kept)
        if moments is None:  # the 30th of February, or forms that Arrow does not read in one go
            micros = [None if text is None else iso_micros(text) for text in kept.to_pylist()]
            bad.update(row for row, at in enumerate(micros) if at is None and values[row] is not None)
            moments = pa.array(micros, type=pa.int64()).cast(_MICROS)
        return moments, [Fault(row, "", _INVALID, NOT_ISO_8601, values[row]) for row in sorted(bad)]


def _cast(texts: pa.Array) -> pa.Array | None:
    """All texts as moments, by Arrow's parser; None if they are not all of one plain form in the years 1 to 9999.

    The first text says whether they have offsets: Arrow writes an error for each value that differs, 5 ms for 8192.
    """
    first = next((text.as_py() for text in texts if text.is_valid), "")
    has_offset = re.search(r"(?:Z|[+-]\d\d:?(?:\d\d)?)$", first[len("YYYY-MM-DD") :]) is not None
    try:
        moments = texts.cast(pa.timestamp("us", "UTC") if has_offset else _MICROS).cast(_MICROS)
    except pa.ArrowInvalid:
        return None
    micros = moments.view(pa.int64()).drop_null().to_numpy()
    inside = len(micros) == 0 or (micros.min() >= MIN_MICROS and micros.max() <= MAX_MICROS)
    return moments if inside else None


class StrptimeCodec(Codec):
    """Text in a strptime format, parsed by DuckDB; `%z` gives an offset, without one the text is UTC."""

    annotation = str

    def __init__(self, format_: str, *, field: str) -> None:
        super().__init__(_MICROS)
        self.format = format_
        self._con = connect()
        self._sql = f"SELECT try_strptime(x, {literal(format_)})::TIMESTAMP AS moment FROM texts"
        try:
            query(self._con, self._sql, texts=pa.table({"x": pa.array([""])}))
        except duckdb.Error as error:
            raise ConfigError(
                f"no timestamp format: {str(error).splitlines()[0]}",
                field=f"{field}.format",
                value=format_,
                expected="iso8601, or a strptime format such as %d/%m/%Y %H:%M:%S",
            ) from error

    def array(self, values: Sequence[str | None]) -> tuple[pa.Array, list[Fault]]:
        texts = pa.table({"x": pa.array(values, type=pa.string())})
        moments = query(self._con, self._sql, texts=texts).column(0).combine_chunks().cast(_MICROS)
        micros = moments.view(pa.int64())
        inside = pc.and_(pc.greater_equal(micros, MIN_MICROS), pc.less_equal(micros, MAX_MICROS)).fill_null(False)
        moments = pc.if_else(inside, moments, pa.scalar(None, _MICROS))
        if moments.null_count == texts.column(0).null_count:
            return moments, []
        message = f"not a timestamp in the format {self.format}"
        faults = [
            Fault(row, "", _INVALID, message, value)
            for row, (value, good) in enumerate(zip(values, inside.to_pylist(), strict=True))
            if value is not None and not good
        ]
        return moments, faults
