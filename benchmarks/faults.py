"""What error handling costs while it is not needed much: dead letters in the stream, and guards around outside calls."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from benchmarks.results import Section, thousands
from benchmarks.stack import Bench
from benchmarks.throughput import Run, measure
from tidegate.config.errorhandling import ErrorHandling
from tidegate.record import TopicPartition
from tidegate.resilience.guard import Guard
from tidegate.resilience.registry import Registry
from tidegate.stages.handle.batches import BatchStep
from tidegate.stages.types import OFFSET

_KEYS, _BAD = 10_000, 0.01
_DEAD_LETTER_COST = 0.05
_PAIRS, _QUICK_PAIRS = 9, 2
_GUARD_US = 1.0  # per record
_ROWS = 8_192  # of a batch: what one fetch brings of a partition at full speed
_CALLS, _ROUNDS = 2_000, 9


def run(bench: Bench) -> Section:
    section = Section("faults", "What error handling costs")
    _dead_letters(bench, section)
    _guards(section)
    return section


def _dead_letters(bench: Bench, section: Section) -> None:
    """Pairs of runs, in turn with and without, so that a slow minute of the machine falls on both."""
    topics = {0.0: bench.events(_KEYS, bench.records), _BAD: bench.events(_KEYS, bench.records, bad=_BAD)}
    runs: dict[float, list[Run]] = {bad: [] for bad in topics}
    pairs = _QUICK_PAIRS if bench.quick else _PAIRS
    for number in range(pairs):
        for bad in list(topics) if number % 2 == 0 else [*topics][::-1]:
            runs[bad].append(measure(bench, topics[bad], bench.records))
            last = runs[bad][-1]
            print(f"  {bad:.0%} dead letters: {last.rate:,.0f} records/s, {last.cpu:.2f} µs CPU/record", flush=True)
    both = list(zip(runs[0.0], runs[_BAD], strict=True))
    cost = statistics.median(1 - some.rate / none.rate for none, some in both)
    cpu = statistics.median(some.cpu / none.cpu - 1 for none, some in both)
    section.text(
        f"{thousands(bench.records)} records of {thousands(_KEYS)} users, the job of the throughput; every hundredth record "
        f"breaks a rule and becomes a dead letter in the batch's transaction. {pairs} pairs of runs, in turn; medians, and "
        "for the cost the median over the pairs."
    )
    section.table(
        ["dead letters", "records/s", "CPU µs/record", "of it dead letters, µs"],
        [
            [f"{bad:.0%}", *(f"{statistics.median(values):{form}}" for values, form in _columns(each))]
            for bad, each in runs.items()
        ],
    )
    section.text(f"Cost of 1 %: {cost:.1%} of the throughput, {cpu:.1%} more processor time.")
    section.target(
        f"1 % dead letters cost < {_DEAD_LETTER_COST:.0%} of the throughput", f"{cost:.1%}", cost < _DEAD_LETTER_COST
    )


def _columns(runs: list[Run]) -> list[tuple[list[float], str]]:
    return [([r.rate for r in runs], ",.0f"), ([r.cpu for r in runs], ".2f"), ([r.stages["dlq"] for r in runs], ".2f")]


def _guards(section: Section) -> None:
    """A call with retries and breaker against the bare call; then a batch handler with a guard and without."""
    guard = Guard("bench", ErrorHandling(), registry=Registry())
    call = _difference(lambda: _repeat(guard.call, _nothing), lambda: _repeat(_bare, _nothing)) / _CALLS
    in_loop = asyncio.run(_async_call(guard))
    guarded, bare = _handler(guard), _handler(_Bare())
    rows = pa.table({"id": range(_ROWS), OFFSET: range(_ROWS)})
    tp, calls = TopicPartition("bench", 0), _CALLS // 10

    def apply(step: BatchStep) -> Callable[[], None]:
        return lambda: _repeat(step.apply, rows, tp, times=calls)

    handler = _difference(apply(guarded), apply(bare)) / calls / _ROWS
    sink = in_loop / _ROWS
    section.text(
        f"Retry and breaker around a call that succeeds, against the bare call; batches of {thousands(_ROWS)} records, one "
        f"guarded call each. Median of {_ROUNDS} rounds, in turn; for the handler the whole step was timed, so that it may "
        "drown in the noise; the target is held against the largest of it and both calls over the records of a batch."
    )
    section.table(
        ["", "µs/call", "µs/record in a batch"],
        [
            ["synchronous: a handler", f"{call:.2f}", f"{handler:.4f}"],
            ["asynchronous: the store", f"{in_loop:.2f}", f"{sink:.4f}"],
        ],
    )
    worst = max(handler, call / _ROWS, sink)
    section.target(
        f"retry and breaker < {_GUARD_US:.0f} µs per record in batches", f"{worst:.4f} µs", worst < _GUARD_US
    )


class _Bare:
    """A guard that guards nothing."""

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)


def _handler(guard: Any) -> BatchStep:
    schema = pa.schema([("id", pa.int64())])
    return BatchStep(
        _same, guard, with_context=False, concurrency=1, field="handlers[0]", input_schema=schema, output_schema=schema
    )


def _same(table: pa.Table) -> pa.Table:
    return table


def _nothing() -> None:
    return None


def _bare(function: Callable[[], None]) -> None:
    function()


def _repeat(function: Callable[..., Any], *args: Any, times: int = _CALLS) -> None:
    for _ in range(times):
        function(*args)


def _difference(one: Callable[[], None], other: Callable[[], None]) -> float:
    """Microseconds by which `one` takes longer: the median over rounds of one and the other."""
    found = []
    for _ in range(_ROUNDS):
        times = []
        for call in (one, other):
            began = time.perf_counter()
            call()
            times.append(time.perf_counter() - began)
        found.append((times[0] - times[1]) * 1e6)
    return statistics.median(found)


async def _async_call(guard: Guard) -> float:
    """Microseconds by which a guarded `await` takes longer than a bare one."""

    async def nothing() -> None:
        return None

    found = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        for _ in range(_CALLS):
            await guard.call_async(nothing)
        middle = time.perf_counter()
        for _ in range(_CALLS):
            await nothing()
        found.append((2 * middle - began - time.perf_counter()) / _CALLS * 1e6)
    return statistics.median(found)
