"""Handlers per record: a dict in; a dict, or None to filter it out. Sync or async, several at once, ordered per key."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from tidegate.errors import DependencyError
from tidegate.record import TopicPartition, record_id
from tidegate.resilience.guard import Guard
from tidegate.stages.batch import Rejection
from tidegate.stages.handle.context import RecordContext
from tidegate.stages.handle.loop import HANDLER_LOOP
from tidegate.stages.handle.output import Output
from tidegate.stages.handle.references import is_async
from tidegate.stages.handle.step import Handled, Step, refusal, rejection
from tidegate.stages.types import EVENT_TIME, KEY, OFFSET, TIMESTAMP


@dataclass(slots=True)
class _Call:
    """One record on its way through the handler, and what became of it."""

    arguments: tuple[Any, ...]
    offset: int
    result: Any = None
    rejected: Rejection | None = None
    attempt: int = 0


class RecordStep(Step):
    """Calls the handler record by record.

    Records with the same key run one after the other, in offset order; records without a key are free. At most
    `concurrency` run at once, over all partitions that this step serves.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        guard: Guard,
        *,
        with_context: bool,
        concurrency: int,
        input_schema: pa.Schema,
        output_schema: pa.Schema,
    ) -> None:
        self.output_schema, self._input_schema = output_schema, input_schema
        self._function, self._guard = function, guard
        self._with_context, self._concurrency = with_context, concurrency
        self._output = Output(output_schema)
        self._is_async = is_async(function)
        self._one_at_a_time = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._places: asyncio.Semaphore | None = None
        if self._is_async:
            self._places = asyncio.Semaphore(concurrency)
            HANDLER_LOOP.open()
        elif concurrency > 1:
            self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="tidegate-handler")

    def apply(self, rows: pa.Table, tp: TopicPartition) -> Handled:
        calls = self._calls(rows, tp)
        lanes = self._in_order(calls, rows)
        if self._is_async:
            HANDLER_LOOP.run(self._run_async(lanes))
        elif self._pool is not None:
            self._run_pooled(self._pool, lanes)
        else:
            for call in calls:
                with self._one_at_a_time:
                    self._call(call)
        return self._collect(rows, calls)

    def close(self) -> None:
        if self._is_async:
            HANDLER_LOOP.close()
        elif self._pool is not None:
            self._pool.shutdown()

    def _calls(self, rows: pa.Table, tp: TopicPartition) -> list[_Call]:
        records = rows.select(self._input_schema.names).to_pylist()
        offsets = rows.column(OFFSET).to_pylist()
        if not self._with_context:
            return [_Call((record,), offset) for record, offset in zip(records, offsets, strict=True)]
        timestamps = rows.column(TIMESTAMP).to_pylist()
        has_event_time = EVENT_TIME in rows.column_names
        event_times = rows.column(EVENT_TIME).to_pylist() if has_event_time else [None] * len(rows)
        calls = []
        for record, offset, at, event_time in zip(records, offsets, timestamps, event_times, strict=True):
            context = RecordContext(record_id(tp, offset), tp.topic, tp.partition, offset, at, event_time)
            calls.append(_Call((record, context), offset))
        return calls

    def _in_order(self, calls: Sequence[_Call], rows: pa.Table) -> list[list[_Call]]:
        """The calls of one key together, in offset order; a call without key alone."""
        if KEY not in rows.column_names:
            return [[call] for call in calls]
        lanes: dict[Any, list[_Call]] = {}
        for call, key in zip(calls, rows.column(KEY).to_pylist(), strict=True):
            lanes.setdefault(("without", call.offset) if key is None else key, []).append(call)
        return list(lanes.values())

    def _run_pooled(self, pool: ThreadPoolExecutor, lanes: Sequence[list[_Call]]) -> None:
        shared = _Lanes(lanes)
        futures = [pool.submit(self._drain, shared) for _ in range(min(self._concurrency, len(lanes)))]
        wait(futures, return_when=FIRST_EXCEPTION)
        shared.stop()
        wait(futures)  # no handler may still run when the batch is given up
        for future in futures:
            future.result()

    def _drain(self, lanes: _Lanes) -> None:
        for call in lanes:
            self._call(call)

    async def _run_async(self, lanes: Sequence[list[_Call]]) -> None:
        shared = _Lanes(lanes)
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(min(self._concurrency, len(lanes))):
                    tasks.create_task(self._drain_async(shared))
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from group

    async def _drain_async(self, lanes: _Lanes) -> None:
        assert self._places is not None
        for call in lanes:
            async with self._places:
                await self._call_async(call)

    def _call(self, call: _Call) -> None:
        def attempt() -> Any:
            call.attempt += 1
            return self._function(*call.arguments)

        try:
            call.result = self._guard.call(attempt)
        except DependencyError:
            raise
        except Exception as error:  # the handler's own: this record's fault, whatever the class
            call.rejected = rejection(call.offset, error, call.attempt)

    async def _call_async(self, call: _Call) -> None:
        async def attempt() -> Any:
            call.attempt += 1
            return await self._function(*call.arguments)

        try:
            call.result = await self._guard.call_async(attempt)
        except DependencyError:
            raise
        except Exception as error:
            call.rejected = rejection(call.offset, error, call.attempt)

    def _collect(self, rows: pa.Table, calls: Sequence[_Call]) -> Handled:
        rejected: list[Rejection] = []
        results: list[Any] = []
        at: list[int] = []
        for index, call in enumerate(calls):
            if call.rejected is not None:
                rejected.append(call.rejected)
            elif call.result is not None:
                if (problem := self._output.problem(call.result)) is None:
                    results.append(call.result)
                    at.append(index)
                else:
                    rejected.append(refusal(call.offset, problem))
        table, kept, unfit = self._output.columns(results, [calls[index].offset for index in at])
        rejected = sorted([*rejected, *unfit], key=lambda one: one.offset)
        beside = [name for name in rows.column_names if name not in self._input_schema.names]
        carried = rows.select(beside).take(pa.array(np.asarray(at, dtype=np.int64)[kept]))
        for name in beside:
            table = table.append_column(rows.schema.field(name), carried.column(name))
        return Handled(table, rejected, len(calls) - len(kept) - len(rejected))


class _Lanes:
    """Lanes handed out one by one to several threads or tasks, until they are stopped."""

    def __init__(self, lanes: Sequence[list[_Call]]) -> None:
        self._lanes = iter(lanes)
        self._lock = threading.Lock()
        self._stopped = False

    def __iter__(self) -> Iterator[_Call]:
        """The calls of one lane after the other, for one thread or task."""
        while not self._stopped:
            with self._lock:
                lane = next(self._lanes, None)
            if lane is None:
                return
            for call in lane:
                if self._stopped:
                    return
                yield call

    def stop(self) -> None:
        self._stopped = True
