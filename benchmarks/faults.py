"""What error handling costs while it is not needed much: dead letters in the stream, and guards around outside calls."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.events import PER_MS, WINDOW
from benchmarks.process import Sample, Worker, job, running, watch
from benchmarks.results import Section, thousands
from benchmarks.stack import Bench
from tidegate.config.errorhandling import ErrorHandling
from tidegate.record import TopicPartition
from tidegate.resilience.guard import Guard
from tidegate.resilience.registry import Registry
from tidegate.stages.handle.batches import BatchStep
from tidegate.stages.types import OFFSET

_KEYS, _BAD = 10_000, 0.01
_DEAD_LETTER_COST = 0.05
_RUNS, _BLOCKS = 6, 6  # fours of stretches in a run: the median of 18 still moved by 3 % from one time to the next
_STRETCH = WINDOW * PER_MS  # records: a minute of event time, so that every stretch opens and closes as many windows
_EDGE = 0.1  # of a stretch at either end: partitions are not equally far
_GUARD_US = 1.0  # per record
_ROWS = 8_192  # of a batch: what one fetch brings of a partition at full speed
_CALLS, _ROUNDS = 2_000, 9


@dataclass(frozen=True, slots=True)
class Stretch:
    """Some of a run's records: how many, the seconds that they took, processor seconds, how many are dead letters."""

    records: float
    seconds: float
    processor: float
    letters: float

    @property
    def rate(self) -> float:
        """Records per second."""
        return self.records / self.seconds

    @property
    def cpu(self) -> float:
        """Processor µs per record."""
        return self.processor / self.records * 1e6

    @property
    def dead(self) -> float:
        """The share of dead letters."""
        return self.letters / self.records

    def __add__(self, other: Stretch) -> Stretch:
        return Stretch(
            self.records + other.records,
            self.seconds + other.seconds,
            self.processor + other.processor,
            self.letters + other.letters,
        )


def run(bench: Bench) -> Section:
    section = Section("faults", "What error handling costs")
    _dead_letters(bench, section)
    _guards(section)
    return section


def _dead_letters(bench: Bench, section: Section) -> None:
    """Runs over one topic whose stretches have none and some by turns: a slow second of the machine falls on both, and
    neither has the start of a process in it."""
    runs, count = (1, 1) if bench.quick else (_RUNS, _BLOCKS)
    records = _STRETCH * (1 + 4 * count)
    topic = bench.events(_KEYS, records, bad=_BAD, stretch=_STRETCH)
    blocks = list[tuple[Stretch, Stretch]]()
    for number in range(runs):
        for block in _blocks(_run(bench, topic, records), count):
            blocks.append(block)
            costs = f"{_rate_cost(*block):+.1%} of the throughput, {_cpu_cost(*block):+.1%} processor time"
            print(f"  run {number + 1}: 1 % dead letters cost {costs}", flush=True)
    cost = statistics.median(_rate_cost(*block) for block in blocks)
    section.text(
        f"{thousands(records)} records of {thousands(_KEYS)} users, the job of the throughput; {runs} runs. Of every four "
        f"stretches of {thousands(_STRETCH)} records, a minute of event time, the two in the middle have 1 % dead letters and "
        "the others none, so that what changes evenly cancels out: every hundredth record breaks a rule and is dead-lettered "
        "in its batch's transaction. The start, and a tenth at either end of each stretch, are not counted. Medians over "
        f"{len(blocks)} such fours; the cost is the median of their own, in brackets its quartiles."
    )
    section.table(
        ["dead letters", "records/s", "CPU µs/record"],
        [
            [f"{_middle(each, 'dead'):.2%}", thousands(_middle(each, "rate")), f"{_middle(each, 'cpu'):.2f}"]
            for each in zip(*blocks, strict=True)
        ],
    )
    letter = statistics.median((some.cpu - none.cpu) / (some.dead - none.dead) for none, some in blocks)
    section.text(
        f"Cost of 1 %: {_with_quartiles([_rate_cost(*block) for block in blocks])} of the throughput, "
        f"{_with_quartiles([_cpu_cost(*block) for block in blocks])} more processor time of the worker: {letter:.0f} µs a letter."
    )
    section.target(
        f"1 % dead letters cost < {_DEAD_LETTER_COST:.0%} of the throughput", f"{cost:.1%}", cost < _DEAD_LETTER_COST
    )


def _run(bench: Bench, topic: str, records: int) -> list[Sample]:
    with running(Worker(job(bench, topic), bench.directory)) as worker:
        return watch(worker, records)


def _blocks(samples: Sequence[Sample], count: int) -> Iterator[tuple[Stretch, Stretch]]:
    """Of every four stretches behind the first, those without dead letters and those with some."""
    for first in range(1, 4 * count, 4):
        none, some, more, again = (_stretch(samples, number) for number in range(first, first + 4))
        yield none + again, some + more


def _stretch(samples: Sequence[Sample], number: int) -> Stretch:
    """Between two looks what was done is taken to have grown evenly."""
    ends = (number + _EDGE) * _STRETCH, (number + 1 - _EDGE) * _STRETCH
    done = [sample.done for sample in samples]
    at, cpu, dead = (
        float(np.diff(np.interp(ends, done, [getattr(sample, name) for sample in samples]))[0])
        for name in ("at", "cpu", "dead")
    )
    return Stretch(ends[1] - ends[0], at, cpu, dead)


def _rate_cost(none: Stretch, some: Stretch) -> float:
    return 1 - some.rate / none.rate


def _cpu_cost(none: Stretch, some: Stretch) -> float:
    return some.cpu / none.cpu - 1


def _middle(stretches: Sequence[Stretch], name: str) -> float:
    return float(statistics.median(getattr(stretch, name) for stretch in stretches))


def _with_quartiles(shares: Sequence[float]) -> str:
    low, middle, high = np.quantile(shares, [0.25, 0.5, 0.75])
    return f"{middle:.1%} ({low:.1%} – {high:.1%})"


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
