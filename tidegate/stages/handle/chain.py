"""All handlers of a pipeline, one after the other."""

from __future__ import annotations

import random

import pyarrow as pa

from tidegate.clock import Clock
from tidegate.config.pipeline import Pipeline
from tidegate.config.stages import Handler
from tidegate.errors import ConfigError, all_errors
from tidegate.record import TopicPartition
from tidegate.resilience.guard import Guard
from tidegate.resilience.registry import PROCESS, Registry
from tidegate.stages.batch import Rejection
from tidegate.stages.handle.batches import BatchStep
from tidegate.stages.handle.records import RecordStep
from tidegate.stages.handle.references import is_async, load_exceptions, load_function, wants_context
from tidegate.stages.handle.step import Handled, Step
from tidegate.stages.types import KEY, arrow_type


class HandlerChain:
    """The handlers, imported and guarded. Safe under threads: the concurrency of a handler is counted over all of them.

    An outage (OSError, TimeoutError, DependencyError, the classes of `retryOn`) is retried as `errorHandling` says,
    through the handler's breaker, and then raised as DependencyError: the batch is to be tried again, nothing of it is
    dead-lettered. Whatever else a handler raises is the record's fault, and dead-letters it at once.

    Raises ConfigError when a handler cannot be imported or called, ConfigErrors for several.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        schema: pa.Schema,
        *,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        registry: Registry = PROCESS,
    ) -> None:
        self._steps: list[Step] = []
        try:
            with all_errors() as part:
                for index, handler in enumerate(pipeline.handlers):
                    with part():
                        field = f"handlers[{index}]"
                        guard = Guard(
                            f"handler:{handler.call}",
                            pipeline.error_handling,
                            clock=clock,
                            rng=rng,
                            transient=load_exceptions(handler.retry_on, field=f"{field}.retryOn"),
                            timeout_ms=handler.timeout,
                            registry=registry,
                        )
                        self._steps.append(_step(handler, guard, field, schema))
                        schema = self._steps[-1].output_schema
        except ConfigError:
            self.close()
            raise
        self.output_schema = schema

    @property
    def asks(self) -> bool:
        """Whether there is a handler at all."""
        return bool(self._steps)

    def apply(self, rows: pa.Table, tp: TopicPartition) -> Handled:
        """Every handler in turn; records that one filters or fails do not reach the next.

        `rows` has the schema's columns and `_offset`, `_timestamp`, in offset order; other columns travel beside.
        Records with the same `_key`, if that is among them, are handled one after the other.
        """
        rejected: list[Rejection] = []
        filtered = 0
        for step in self._steps:
            handled = step.apply(rows, tp)
            rows = handled.rows
            rejected += handled.rejected
            filtered += handled.filtered
        if KEY in rows.column_names:
            rows = rows.drop_columns([KEY])  # it has kept the order, and nothing after needs it
        return Handled(rows, sorted(rejected, key=lambda one: one.offset), filtered)

    def close(self) -> None:
        """Stop the threads; the event loop stops with its last user."""
        for step in self._steps:
            step.close()
        self._steps = []


def _step(handler: Handler, guard: Guard, field: str, schema: pa.Schema) -> Step:
    function = load_function(handler.call, field=f"{field}.call")
    if handler.timeout is not None and not is_async(function):
        raise ConfigError(
            "a synchronous handler cannot be cut off: what it does might still happen afterwards",
            field=f"{field}.timeout",
            value=f"{handler.timeout} ms",
            hint="make the handler async, or give the timeout to the client that it calls",
        )
    output = schema
    if handler.output is not None:
        output = pa.schema([pa.field(column.name, arrow_type(column), column.nullable) for column in handler.output])
    if handler.mode == "batch":
        return BatchStep(
            function,
            guard,
            with_context=wants_context(function, handler.call, field=f"{field}.call", takes="table"),
            concurrency=handler.concurrency,
            field=f"{field}.call",
            input_schema=schema,
            output_schema=output,
        )
    return RecordStep(
        function,
        guard,
        with_context=wants_context(function, handler.call, field=f"{field}.call", takes="record"),
        concurrency=handler.concurrency,
        input_schema=schema,
        output_schema=output,
    )
