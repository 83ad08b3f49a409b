"""Handlers per batch: an Arrow table in and out. One bad record is found by halving, and only it is dead-lettered."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidegate.errors import ConfigError, DependencyError
from tidegate.record import TopicPartition, record_id
from tidegate.resilience.guard import Guard
from tidegate.stages.batch import Rejection
from tidegate.stages.handle.context import BatchContext
from tidegate.stages.handle.loop import HANDLER_LOOP
from tidegate.stages.handle.references import is_async
from tidegate.stages.handle.step import Handled, Step, refusal, rejection
from tidegate.stages.types import OFFSET


class BatchStep(Step):
    """Calls the handler with the schema's columns and `_offset`; an offset that does not come back is filtered out.

    At most `concurrency` batches are in it at once, over all partitions that this step serves.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        guard: Guard,
        *,
        with_context: bool,
        concurrency: int,
        field: str,
        input_schema: pa.Schema,
        output_schema: pa.Schema,
    ) -> None:
        self.output_schema, self._input_schema, self._field = output_schema, input_schema, field
        self._function, self._guard, self._with_context = function, guard, with_context
        self._places = threading.BoundedSemaphore(concurrency)
        self._is_async = is_async(function)
        if self._is_async:
            HANDLER_LOOP.open()

    def apply(self, rows: pa.Table, tp: TopicPartition) -> Handled:
        """Raises ConfigError when the handler gives back a table of other columns or offsets than it should."""
        given = rows.select([*self._input_schema.names, OFFSET])
        tables: list[pa.Table] = []
        rejected: list[Rejection] = []
        with self._places:
            self._halve(given, tp, tables, rejected)
        return self._collect(rows, tables, rejected)

    def close(self) -> None:
        if self._is_async:
            HANDLER_LOOP.close()

    def _halve(self, given: pa.Table, tp: TopicPartition, tables: list[pa.Table], rejected: list[Rejection]) -> None:
        """The handler on `given`, or on both its halves when it raises: a bad record costs 2·log2(n) calls."""
        if not len(given):
            return
        attempts = 0
        arguments = (given, _context(given, tp)) if self._with_context else (given,)

        def attempt() -> Any:
            nonlocal attempts
            attempts += 1
            return self._function(*arguments)

        try:
            result = HANDLER_LOOP.run(self._guard.call_async(attempt)) if self._is_async else self._guard.call(attempt)
        except DependencyError:
            raise
        except Exception as error:  # the handler's own: some record's fault, whatever the class
            if len(given) == 1:
                rejected.append(rejection(given.column(OFFSET)[0].as_py(), error, attempts))
                return
            middle = len(given) // 2
            self._halve(given.slice(0, middle), tp, tables, rejected)
            self._halve(given.slice(middle), tp, tables, rejected)
        else:
            tables.append(self._checked(result, given))

    def _checked(self, result: Any, given: pa.Table) -> pa.Table:
        """The result with the output's columns in their order, and `_offset`, sorted by it."""
        if isinstance(result, pa.RecordBatch):
            result = pa.Table.from_batches([result])
        if not isinstance(result, pa.Table):
            raise self._broken(f"gave back {type(result).__name__}", "a pyarrow.Table")
        wanted = pa.schema([*self.output_schema, pa.field(OFFSET, pa.int64())])
        if sorted(result.column_names) != sorted(wanted.names):
            raise self._broken(f"gave back the columns {', '.join(result.column_names)}", ", ".join(wanted.names))
        for field in wanted:
            found = result.schema.field(field.name).type
            # A column of nothing but nulls has no type of its own.
            if found != field.type and not pa.types.is_null(found):
                raise self._broken(f"gave back {field.name} as {found}", str(field.type))
        result = result.select(wanted.names).cast(pa.schema([field.with_nullable(True) for field in wanted]))
        offsets = result.column(OFFSET)
        strange = pc.invert(pc.is_in(offsets, value_set=given.column(OFFSET)))
        if offsets.null_count or pc.any(strange).as_py():
            raise self._broken("gave back offsets that it was not given", "`_offset` as it was, for each row")
        if pc.count_distinct(offsets).as_py() != len(offsets):
            raise self._broken("gave back an offset twice", "at most one row per record")
        return result.sort_by(OFFSET)

    def _broken(self, what: str, expected: str) -> ConfigError:
        return ConfigError(f"the batch handler {what}", field=self._field, expected=expected)

    def _collect(self, rows: pa.Table, tables: list[pa.Table], rejected: list[Rejection]) -> Handled:
        schema = pa.schema([field.with_nullable(True) for field in self.output_schema])
        empty = pa.schema([*schema, pa.field(OFFSET, pa.int64())]).empty_table()
        result = pa.concat_tables([empty, *tables]).combine_chunks()
        filtered = len(rows) - len(result) - len(rejected)
        nulls, result = self._without_forbidden_nulls(result)
        at = np.searchsorted(rows.column(OFFSET).to_numpy(), result.column(OFFSET).to_numpy())
        beside = [name for name in rows.column_names if name not in self._input_schema.names]
        carried = rows.select(beside).take(pa.array(at))
        arrays = [*result.select(self.output_schema.names).columns, *carried.columns]
        out = pa.Table.from_arrays(arrays, schema=pa.schema([*self.output_schema, *carried.schema]))
        return Handled(out, sorted([*rejected, *nulls], key=lambda one: one.offset), filtered)

    def _without_forbidden_nulls(self, result: pa.Table) -> tuple[list[Rejection], pa.Table]:
        """Rejections for rows with a null where the output allows none, and the table without them."""
        refused: dict[int, Rejection] = {}
        for field in self.output_schema:
            if field.nullable or not result.column(field.name).null_count:
                continue
            for offset in result.filter(result.column(field.name).is_null()).column(OFFSET).to_pylist():
                message = "the handler gave null for a column that is not nullable"
                refused.setdefault(offset, refusal(offset, message, field=field.name, found="null"))
        if refused:
            keep = pc.invert(pc.is_in(result.column(OFFSET), value_set=pa.array(list(refused))))
            result = result.filter(keep)
        return list(refused.values()), result


def _context(given: pa.Table, tp: TopicPartition) -> BatchContext:
    ids = [record_id(tp, offset) for offset in given.column(OFFSET).to_pylist()]
    return BatchContext(tp.topic, tp.partition, pa.array(ids, pa.string()))
