"""Handlers: what they are given, what becomes of what they give back, and of what they raise."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from tests.unit.stages import handlers_for_tests as handlers
from tests.unit.stages.handlers_for_tests import LOG
from tests.unit.stages.records import pipeline
from tidegate.clock import ManualClock
from tidegate.errors import CircuitOpen, ConfigError, DependencyError, DependencyTimeout
from tidegate.record import TopicPartition
from tidegate.resilience.registry import Registry
from tidegate.stages.handle import Handled, HandlerChain, RecordContext
from tidegate.stages.types import value_schema

TP = TopicPartition("orders", 3)
MODULE = "tests.unit.stages.handlers_for_tests"
COLUMNS = [{"name": "n", "type": "bigint", "nullable": False}, {"name": "s", "type": "string"}]
RETRY_AT_ONCE = {"retry": {"maxAttempts": 3, "initialDelayMs": 0}, "circuitBreaker": {"failureThreshold": 3}}

Chain = Callable[..., HandlerChain]


@pytest.fixture(autouse=True)
def _fresh_log() -> None:
    LOG.__init__()  # type: ignore[misc]  # empties the log that the handlers write to
    handlers.RESULTS.clear()


@pytest.fixture
def chain() -> Iterator[Chain]:
    """Builds chains of the named handlers, and closes them."""
    built: list[HandlerChain] = []

    def build(*steps: str | dict[str, Any], error_handling: dict[str, Any] | None = None) -> HandlerChain:
        written = [
            {"call": f"{MODULE}:{s}"} if isinstance(s, str) else {**s, "call": f"{MODULE}:{s['call']}"} for s in steps
        ]
        config = pipeline(schema=COLUMNS, handlers=written, errorHandling=error_handling or RETRY_AT_ONCE)
        clock, rng = ManualClock(), random.Random(1)
        built.append(HandlerChain(config, value_schema(config), clock=clock, rng=rng, registry=Registry()))
        return built[-1]

    yield build
    for one in built:
        one.close()


def rows(*numbers: int, s: list[str | None] | None = None, **beside: list[Any]) -> pa.Table:
    """Rows from offset 10 on, with every column that travels beside."""
    length = len(numbers)
    table = pa.table(
        {
            "n": pa.array(numbers, pa.int64()),
            "s": pa.array(s or [None] * length, pa.string()),
            "_offset": pa.array(range(10, 10 + length), pa.int64()),
            "_timestamp": pa.array(range(1000, 1000 + length), pa.int64()),
            "_lane": pa.array(["live"] * length, pa.string()),
            "_event_time": pa.array(range(5, 5 + length), pa.int64()),
        }
    )
    for name, values in beside.items():
        table = table.append_column(name, pa.array(values))
    return table


def numbers(handled: Handled) -> list[int]:
    """The column n."""
    result: list[int] = handled.rows.column("n").to_pylist()
    return result


BESIDE = ["_offset", "_timestamp", "_lane", "_event_time"]


@pytest.mark.parametrize(
    "step",
    ["double", "async_double", {"call": "double", "concurrency": 3}, {"call": "batch_double", "mode": "batch"}],
)
def test_what_a_handler_gives_back_replaces_the_row(chain: Chain, step: Any) -> None:
    """The columns change, what travels beside stays with its record, the order is that of the offsets."""
    handled = chain(step).apply(rows(1, 2, 3), TP)
    assert numbers(handled) == [2, 4, 6]
    assert handled.rows.select(BESIDE).equals(rows(1, 2, 3).select(BESIDE))
    assert (handled.rejected, handled.filtered) == ([], 0)


@pytest.mark.parametrize("step", ["only_even", {"call": "batch_only_even_backwards", "mode": "batch"}])
def test_records_that_do_not_come_back_are_filtered(chain: Chain, step: Any) -> None:
    """None from a record handler, or a missing offset from a batch handler, drops the record and counts it."""
    handled = chain(step).apply(rows(1, 2, 3, 4), TP)
    assert numbers(handled) == [2, 4]
    assert handled.rows.column("_offset").to_pylist() == [11, 13]
    assert (handled.rejected, handled.filtered) == ([], 2)


@pytest.mark.parametrize("step", ["refuse_negative", {"call": "refuse_negative", "concurrency": 2}])
def test_a_record_that_a_handler_raises_for_is_rejected_at_once(chain: Chain, step: Any) -> None:
    """Class, message, stack and attempt are kept; there is no second try, and the neighbours pass."""
    handled = chain(step).apply(rows(1, -2, 3), TP)
    [rejection] = handled.rejected
    assert numbers(handled) == [1, 3]
    assert (rejection.offset, rejection.stage, rejection.attempt) == (11, "handle", 1)
    assert (rejection.reasons[0].error_type, rejection.reasons[0].message) == ("ValueError", "-2 is negative")
    assert rejection.stack is not None
    assert "refuse_negative" in rejection.stack
    assert sorted(LOG.calls) == [-2, 1, 3]


def test_a_batch_handlers_bad_records_are_found_by_halving(chain: Chain) -> None:
    """Only the records at fault are rejected, in about 2·log2(n) calls each and not one per record."""
    values = list(range(1024))
    values[700] = -1
    handled = chain({"call": "batch_refuse_negative", "mode": "batch"}).apply(rows(*values), TP)
    assert [one.offset for one in handled.rejected] == [710]
    assert handled.rejected[0].reasons[0].error_type == "ValueError"
    assert numbers(handled) == [n for n in values if n >= 0]
    assert len(LOG.calls) == 21


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_a_batch_of_nothing_but_bad_records_is_rejected_whole(chain: Chain, size: int) -> None:
    """Every record gets its own rejection."""
    handled = chain({"call": "batch_refuse_negative", "mode": "batch"}).apply(rows(*[-1] * size), TP)
    assert [one.offset for one in handled.rejected] == list(range(10, 10 + size))
    assert len(handled.rows) == 0
    assert handled.filtered == 0


def test_handlers_run_in_the_order_of_the_file(chain: Chain) -> None:
    """What one filters or rejects does not reach the next."""
    handled = chain("refuse_negative", "only_even", "double").apply(rows(-1, 1, 2), TP)
    assert numbers(handled) == [4]
    assert ([one.offset for one in handled.rejected], handled.filtered) == ([10], 1)


def test_a_handler_may_ask_for_the_records_context(chain: Chain) -> None:
    """The context has an id that is the same whenever the record is handled again."""
    chain("remember_context").apply(rows(1), TP)
    assert LOG.calls == [RecordContext("orders-3-10", "orders", 3, 10, 1000, 5)]


def test_a_batch_handler_may_ask_for_the_context_too(chain: Chain) -> None:
    """It has the ids of exactly the rows that are handed over, also while a bad record is looked for by halving."""
    chain({"call": "batch_remember_context", "mode": "batch"}).apply(rows(1, -2), TP)
    assert LOG.calls == [
        ("orders", 3, ["orders-3-10", "orders-3-11"]),
        ("orders", 3, ["orders-3-10"]),
        ("orders", 3, ["orders-3-11"]),
    ]


def test_an_outage_is_tried_again_and_dead_letters_nothing(chain: Chain) -> None:
    """A handler that fails with an outage twice and then works leaves no trace in the result."""
    LOG.failures_left = 2
    handled = chain("flaky").apply(rows(1), TP)
    assert (numbers(handled), handled.rejected, LOG.calls) == ([1], [], [1, 1, 1])


@pytest.mark.parametrize(
    "step", [{"call": "away"}, {"call": "away", "concurrency": 3}, {"call": "batch_away", "mode": "batch"}]
)
def test_an_outage_that_stays_is_raised(chain: Chain, step: dict[str, Any]) -> None:
    """When the attempts are spent the batch is given up, to be tried again; the handler's own error is the cause."""
    built = chain({**step, "retryOn": [f"{MODULE}:Away"]})
    with pytest.raises(DependencyError) as caught:
        built.apply(rows(1, 2), TP)
    assert isinstance(caught.value, CircuitOpen) or isinstance(caught.value.__cause__, handlers.Away)


def test_a_breaker_that_is_open_keeps_the_handler_from_being_called(chain: Chain) -> None:
    """After `failureThreshold` failures in a row the next batch does not reach the handler."""
    built = chain({"call": "away", "retryOn": [f"{MODULE}:Away"]})
    with pytest.raises(DependencyError):
        built.apply(rows(1), TP)
    calls = len(LOG.calls)
    with pytest.raises(CircuitOpen):
        built.apply(rows(1), TP)
    assert len(LOG.calls) == calls == 3


def test_without_retry_on_an_unknown_error_is_the_records_fault(chain: Chain) -> None:
    """A class that is not named in `retryOn` dead-letters the record."""
    handled = chain("away").apply(rows(1), TP)
    assert handled.rejected[0].reasons[0].error_type == "Away"


def test_the_attempt_of_a_fault_after_an_outage_is_counted(chain: Chain) -> None:
    """A record that is refused at the third call says so."""
    LOG.failures_left = 2
    assert chain("outage_then_fault").apply(rows(1), TP).rejected[0].attempt == 3


def test_async_handlers_share_one_loop_of_their_own(chain: Chain) -> None:
    """All async handlers run on one background thread, which ends with the last chain."""
    first, second = chain("async_double"), chain("async_double")
    first.apply(rows(1), TP)
    second.apply(rows(1), TP)
    assert LOG.calls == ["tidegate-handlers"] * 2
    first.close()
    assert "tidegate-handlers" in {thread.name for thread in threading.enumerate()}
    second.close()
    assert "tidegate-handlers" not in {thread.name for thread in threading.enumerate()}


def test_records_of_one_key_keep_their_order_while_others_overtake(chain: Chain) -> None:
    """At most `concurrency` records run at once; those of one key one after the other, in offset order."""
    keys = [b"a", b"a", b"b", b"a", b"b", None, None, b"c"] * 4
    table = rows(*range(32), s=[None if key is None else key.decode() for key in keys], _key=keys)
    handled = chain({"call": "async_slow", "concurrency": 4}).apply(table, TP)
    for name in ("a", "b", "c"):
        of_key = [n for s, n in LOG.calls if s == name]
        assert of_key == sorted(of_key)
    assert LOG.most_running == 4
    assert numbers(handled) == list(range(32))
    assert "_key" not in handled.rows.column_names


def test_a_synchronous_handler_runs_in_as_many_threads(chain: Chain) -> None:
    """Three records wait for each other, so three are in flight at once and no more."""
    handled = chain({"call": "needs_three_at_once", "concurrency": 3}).apply(rows(*range(6)), TP)
    assert numbers(handled) == list(range(6))
    assert LOG.most_running == 3


@pytest.mark.parametrize(
    ("step", "most"),
    [
        ({"call": "lingering"}, 1),
        ({"call": "lingering", "concurrency": 2}, 2),
        ({"call": "async_slow", "concurrency": 2}, 2),
        ({"call": "batch_lingering", "mode": "batch"}, 1),
        ({"call": "batch_lingering", "mode": "batch", "concurrency": 2}, 2),
    ],
)
def test_partitions_share_the_concurrency(chain: Chain, step: dict[str, Any], most: int) -> None:
    """Three partitions at once have no more in flight together than one alone may have."""
    shared = chain(step)
    with ThreadPoolExecutor(3) as partitions:
        handled = list(partitions.map(lambda p: shared.apply(rows(*range(8)), TopicPartition("orders", p)), range(3)))
    assert [numbers(one) for one in handled] == [list(range(8))] * 3
    assert LOG.most_running == most


def test_the_timeout_of_an_async_handler_is_an_outage(chain: Chain) -> None:
    """A call that does not come back is cut off, tried again, and raised as DependencyTimeout."""
    built = chain({"call": "async_hanging", "timeout": "5 ms"}, error_handling={"retry": {"maxAttempts": 1}})
    with pytest.raises(DependencyTimeout):
        built.apply(rows(1), TP)


def test_an_outage_of_one_record_ends_those_beside_it(chain: Chain) -> None:
    """When one record's dependency is away, calls in flight are cancelled and the batch is given up."""
    step = {"call": "async_away", "concurrency": 2, "retryOn": [f"{MODULE}:Away"]}
    with pytest.raises(DependencyError):
        chain(step, error_handling={"retry": {"maxAttempts": 1}}).apply(rows(0, 1), TP)


def test_an_async_batch_handler_is_awaited(chain: Chain) -> None:
    """Arrow in, Arrow out, from a coroutine."""
    assert numbers(chain({"call": "async_batch", "mode": "batch"}).apply(rows(1, 2), TP)) == [1, 2]


@pytest.mark.parametrize("step", ["double", "async_double", {"call": "batch_double", "mode": "batch"}])
def test_an_empty_batch_reaches_no_handler(chain: Chain, step: Any) -> None:
    """Without records nothing is called, and the columns are those of the output."""
    handled = chain(step).apply(rows(), TP)
    assert (len(handled.rows), LOG.calls) == (0, [])
    assert handled.rows.schema.names == ["n", "s", *BESIDE]


def test_a_pipeline_without_handlers_passes_everything(chain: Chain) -> None:
    """No handlers: the same rows."""
    assert chain().apply(rows(1, 2), TP).rows.equals(rows(1, 2))


OUTPUT = [
    {"name": "n", "type": "int", "nullable": False},
    {"name": "price", "type": "decimal(4,2)"},
    {"name": "at", "type": "timestamp", "unit": "ms"},
    {"name": "tags", "type": "array", "items": {"type": "struct", "fields": [{"name": "x", "type": "string"}]}},
]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ("text", "gave back str"),
        ({"n": 1}, "missing required field `price`"),
        ({"n": None, "price": None, "at": None, "tags": None}, "Expected `int`, got `null`"),
        ({"n": 1.5, "price": None, "at": None, "tags": None}, "got `float` - at `$.n`"),
        ({"n": "1", "price": None, "at": None, "tags": None}, "got `str` - at `$.n`"),
        ({"n": 2**31, "price": None, "at": None, "tags": None}, "<= 2147483647"),
        ({"n": 1, "price": 1.5, "at": None, "tags": None}, "at `$.price`"),
        ({"n": 1, "price": None, "at": "2024-01-01T00:00:00Z", "tags": None}, "at `$.at`"),
        ({"n": 1, "price": None, "at": None, "tags": [{"x": 1}]}, "at `$.tags[0].x`"),
        ({"n": 1, "price": None, "at": None, "tags": None, "more": 1}, "unknown field `more`"),
    ],
)
def test_a_result_that_does_not_fit_the_output_is_rejected(chain: Chain, result: Any, message: str) -> None:
    """Types do not coerce and no column may be missing or too many; the reason says which."""
    handlers.RESULTS.extend([{"n": 7, "price": None, "at": None, "tags": None}, result])
    handled = chain({"call": "as_is", "output": OUTPUT}).apply(rows(0, 1), TP)
    [rejection] = handled.rejected
    assert (rejection.offset, rejection.reasons[0].error_type) == (11, "HandlerError")
    assert message in rejection.reasons[0].message
    assert numbers(handled) == [7]


def test_a_decimal_too_large_for_its_column_is_rejected_alone(chain: Chain) -> None:
    """What only the column can refuse names the column and the value."""
    one = {"n": 1, "price": Decimal("1.50"), "at": None, "tags": [{"x": "a"}]}
    handlers.RESULTS.extend([one, {**one, "price": Decimal("100.00")}, {**one, "n": 3}])
    handled = chain({"call": "as_is", "output": OUTPUT}).apply(rows(0, 1, 2), TP)
    assert [(r.offset, r.reasons[0].field, r.reasons[0].found) for r in handled.rejected] == [(11, "price", "100.00")]
    assert numbers(handled) == [1, 3]
    assert handled.rows.column("_offset").to_pylist() == [10, 12]


def test_an_output_may_have_other_columns(chain: Chain) -> None:
    """With `output` the rows have those columns, and the next handler gets them."""
    built = chain({"call": "as_is", "output": [{"name": "n", "type": "int"}]}, "double")
    handlers.RESULTS.append({"n": 5})
    assert built.output_schema == pa.schema([("n", pa.int32())])
    assert built.apply(rows(0), TP).rows.to_pylist() == [
        {"n": 10, "_offset": 10, "_timestamp": 1000, "_lane": "live", "_event_time": 5}
    ]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda table: None, "gave back NoneType"),
        (lambda table: table.drop_columns(["s"]), "gave back the columns n, _offset"),
        (lambda table: table.drop_columns(["_offset"]), "gave back the columns n, s"),
        (lambda table: table.set_column(0, "n", table.column("n").cast(pa.int32())), "gave back n as int32"),
        (lambda table: pa.concat_tables([table, table]), "an offset twice"),
        (lambda table: table.set_column(2, "_offset", pa.array([1, 2])), "offsets that it was not given"),
    ],
)
def test_a_batch_handler_that_breaks_its_contract_stops_the_pipeline(chain: Chain, result: Any, message: str) -> None:
    """Wrong columns, types or offsets are the handler's mistake and no record's: nothing is dead-lettered for it."""
    handlers.RESULTS.append(result)
    with pytest.raises(ConfigError, match=message) as caught:
        chain({"call": "batch_columns", "mode": "batch"}).apply(rows(1, 2), TP)
    assert caught.value.field == "handlers[0].call"


def test_a_null_that_a_batch_handler_may_not_give_rejects_its_record(chain: Chain) -> None:
    """A null in a column that is not nullable is that record's fault."""
    handlers.RESULTS.append(lambda table: table.set_column(0, "n", pa.array([1, None], pa.int64())))
    handled = chain({"call": "batch_columns", "mode": "batch"}).apply(rows(1, 2), TP)
    assert ([one.offset for one in handled.rejected], numbers(handled), handled.filtered) == ([11], [1], 0)


@pytest.mark.parametrize(
    ("step", "field", "message"),
    [
        ({"call": "dubble"}, "handlers[0].call", "did you mean 'double'"),
        ({"call": "NOT_CALLABLE"}, "handlers[0].call", "cannot be called"),
        ({"call": "no_argument"}, "handlers[0].call", r"expected: a function of \(record\) or \(record, context\)"),
        (
            {"call": "no_argument", "mode": "batch"},
            "handlers[0].call",
            r"no batch handler(.|\n)*a function of \(table\) or \(table, context",
        ),
        ({"call": "double", "timeout": "1 s"}, "handlers[0].timeout", "make the handler async"),
        ({"call": "double", "retryOn": ["builtins:Missing"]}, "handlers[0].retryOn[0]", "has no 'Missing'"),
        ({"call": "double", "retryOn": ["builtins:int"]}, "handlers[0].retryOn[0]", "this is no exception"),
    ],
)
def test_a_handler_that_cannot_run_is_refused_when_the_pipeline_is_compiled(
    chain: Chain, step: dict[str, Any], field: str, message: str
) -> None:
    """The field and the way out are named before the first record."""
    with pytest.raises(ConfigError, match=message) as caught:
        chain(step)
    assert caught.value.field == field


def test_a_module_that_is_not_there_is_named() -> None:
    """An import error is a configuration error with the module's name."""
    config = pipeline(schema=COLUMNS, handlers=[{"call": "no_such_module:f"}])
    with pytest.raises(ConfigError, match="cannot import no_such_module"):
        HandlerChain(config, value_schema(config))
