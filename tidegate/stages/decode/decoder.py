"""The decode stage: one batch of raw records to typed rows and rejections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidegate.arrow import where
from tidegate.config.pipeline import Pipeline
from tidegate.config.schema import Key, Value
from tidegate.headers import REPLAY_OF, RETRY_OF
from tidegate.record import Lane, Stage
from tidegate.stages.batch import Reason, Rejection
from tidegate.stages.decode.codec import Fault, failing
from tidegate.stages.decode.explain import explain
from tidegate.stages.decode.nested import StructCodec
from tidegate.stages.decode.shown import shown
from tidegate.stages.types import KEY, LANE, OFFSET, TIMESTAMP, value_schema

REPLAY_HEADERS = (REPLAY_OF, RETRY_OF)
"""A record that carries one of these is on its second way: its lane is `replay`."""

_REFUSALS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


@dataclass(frozen=True, slots=True)
class Decoded:
    """`rows`: the schema's columns, `_offset` (int64), `_timestamp` (int64 ms), `_lane` (string), in offset order; and
    `_key` (binary) when a handler runs several records at once, since those of one key keep their order.

    `skipped` counts tombstones that the pipeline skips.
    """

    rows: pa.Table
    rejected: list[Rejection]
    skipped: int


class Decoder:
    """Decodes one pipeline's records. Not for use by two threads at once.

    Raises ConfigError for a schema that cannot be decoded to.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.schema = value_schema(pipeline)
        self._columns = pipeline.schema_
        value = pipeline.source.value if pipeline.source is not None else Value()
        self._key = pipeline.source.key if pipeline.source is not None else Key()
        self._forbid_unknown = value.additional_fields == "reject"
        self._rejects_tombstones = value.tombstones == "reject"
        self._object = StructCodec(
            self._columns, forbid_unknown=self._forbid_unknown, field="schema", type_=pa.struct([])
        )
        self._decode = msgspec.json.Decoder(self._object.annotation, strict=True).decode
        travelling = [pa.field(OFFSET, pa.int64()), pa.field(TIMESTAMP, pa.int64()), pa.field(LANE, pa.string())]
        self._keeps_key = any(handler.mode == "record" and handler.concurrency > 1 for handler in pipeline.handlers)
        if self._keeps_key:
            travelling.append(pa.field(KEY, pa.binary()))
        self._rows_schema = pa.schema([*self.schema, *travelling])

    def decode(self, records: pa.RecordBatch) -> Decoded:
        """Rows, rejections and the number of skipped tombstones of a batch of RAW_SCHEMA.

        1. set the tombstones apart
        2. decode each value to a struct; what does not fit is explained and rejected
        3. turn the structs into columns; a decimal or timestamp that does not fit rejects its record
        4. add the key's column, offset, timestamp and lane
        """
        rejected: dict[int, list[Reason]] = {}
        there = np.asarray(records.column("value").is_valid())
        tombstones = np.flatnonzero(~there)
        if self._rejects_tombstones:
            rejected = {int(row): [Reason("Tombstone", "the value is null")] for row in tombstones}
        present = records.filter(pa.array(there)) if len(tombstones) else records

        structs, refused = self._structs(present.column("value"))
        rows_there = np.flatnonzero(there)
        good = np.delete(rows_there, list(refused)) if refused else rows_there
        for row, reasons in refused.items():
            rejected[int(rows_there[row])] = reasons
        kept = records.take(pa.array(good)) if len(good) < len(records) else records

        arrays, faults = self._object.columns(structs)
        key, key_faults = self._key_column(kept)
        bad: dict[int, list[Reason]] = {}
        for fault in (*faults, *key_faults):
            bad.setdefault(fault.row, []).append(_reason(fault))
        for row, reasons in bad.items():
            rejected[int(good[row])] = reasons

        beside = [*_travelling(kept), kept.column("key")] if self._keeps_key else _travelling(kept)
        rows = pa.Table.from_arrays([*arrays, *key, *beside], schema=self._rows_schema)
        if bad:
            rows = where(rows, ~np.isin(np.arange(len(good)), list(bad)))
        failed = sorted(rejected)
        offsets = records.column("offset").to_numpy()[failed].tolist()
        rejections = [
            Rejection(offset, Stage.DECODE, tuple(rejected[row])) for row, offset in zip(failed, offsets, strict=True)
        ]
        return Decoded(rows, rejections, 0 if self._rejects_tombstones else len(tombstones))

    def _structs(self, column: pa.Array) -> tuple[list[Any], dict[int, list[Reason]]]:
        """The structs of the good values, and why the others (by index) are not among them."""
        values = column.to_pylist()
        refused: dict[int, list[Reason]] = {}
        readable: Sequence[int] = range(len(values))
        if unreadable := _not_utf8(column, values):
            refused = {row: self._explain(values[row]) for row in unreadable}
            readable = np.delete(np.arange(len(values)), unreadable).tolist()
        remaining = (values[row] for row in readable) if refused else iter(values)
        structs: list[Any] = []
        bad = 0
        while True:
            try:
                structs.extend(map(self._decode, remaining))
            except _REFUSALS as error:
                row = readable[len(structs) + bad]
                bad += 1
                refused[row] = self._explain(values[row]) or [Reason("WrongType", str(error), found=shown(values[row]))]
            else:
                return structs, refused

    def _explain(self, value: bytes) -> list[Reason]:
        return explain(value, self._columns, forbid_unknown=self._forbid_unknown)

    def _key_column(self, records: pa.RecordBatch) -> tuple[list[pa.Array], list[Fault]]:
        """The key as a column, if the pipeline wants one, and the keys that are no UTF-8."""
        if self._key.column is None:
            return [], []
        keys = records.column("key")
        if self._key.format == "bytes":
            return [keys], []
        try:
            return [keys.cast(pa.string())], []
        except pa.ArrowInvalid:
            texts = keys.to_pylist()
        bad = failing(bytes.decode, [text or b"" for text in texts], UnicodeDecodeError)
        path = f".{self._key.column}"
        faults = [Fault(row, path, "InvalidKey", "the record's key is no UTF-8", texts[row]) for row in bad]
        for row in bad:
            texts[row] = None
        return [pa.array(texts, type=pa.binary()).cast(pa.string())], faults


def _not_utf8(column: pa.Array, values: list[bytes]) -> list[int]:
    """The values that are no UTF-8. msgspec would not look into the fields that it skips."""
    try:
        column.cast(pa.string())
    except pa.ArrowInvalid:
        return failing(bytes.decode, values, UnicodeDecodeError)
    return []


def _reason(fault: Fault) -> Reason:
    return Reason(fault.error_type, fault.message, field=fault.path.removeprefix("."), found=shown(fault.found))


def _travelling(records: pa.RecordBatch) -> list[pa.Array]:
    """`_offset`, `_timestamp` and `_lane`."""
    return [records.column("offset"), records.column("timestamp"), _lanes(records.column("headers"))]


def _lanes(headers: pa.Array) -> pa.Array:
    if headers.null_count == len(headers):
        return pa.repeat(pa.scalar(Lane.LIVE.value), len(headers))
    marked = pc.is_in(pc.struct_field(headers.flatten(), "key"), value_set=pa.array(REPLAY_HEADERS))
    replayed = np.zeros(len(headers), dtype=bool)
    replayed[pc.list_parent_indices(headers).filter(marked).to_numpy()] = True
    return pc.if_else(pa.array(replayed), Lane.REPLAY.value, Lane.LIVE.value)
