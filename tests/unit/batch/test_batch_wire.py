"""What executors send arrives as it was."""

from __future__ import annotations

import pyarrow as pa
import pytest

from batch import wire
from tidegate import errors
from tidegate.errors import CircuitOpen, ConfigError, RowTooLarge, SinkRecordError, TidegateError
from tidegate.ledger import Ledger
from tidegate.record import TopicPartition
from tidegate.stages.batch import PartitionState

A, B = TopicPartition("t", 0), TopicPartition("t", 1)


@pytest.mark.parametrize(
    "error",
    [
        ConfigError("wrong", field="a.b", value=1, expected="two", hint="three"),
        CircuitOpen("handler:x", 250),
        RowTooLarge("topic", 10),
        SinkRecordError("no", aggregation="a", tp=A, rows=(1, 2)),
        errors.FloodGuardTripped("flood"),
        errors.AggregateOverflow("sum", "39 digits"),
    ],
)
def test_an_error_is_raised_as_it_was(error: TidegateError) -> None:
    """Class, text and attributes; whatever its constructor asks for."""
    with pytest.raises(type(error)) as raised:
        wire.receive(pa.Table.from_batches([wire.send_error(error)]))
    assert str(raised.value) == str(error)
    assert raised.value.__dict__ == error.__dict__


def test_partitions_come_sorted_with_their_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Partials are cut so that no value grows too large, and are whole again; tasks may end in any order."""
    monkeypatch.setattr(wire, "_SLICE", 3)
    deltas = pa.table({"n": list(range(8))})
    applied = {tp: wire.Applied(PartitionState(), PartitionState(5, ledger=Ledger(6, 6)), None, None) for tp in (A, B)}
    rows = [*wire.send_deltas(B, {"a": deltas}), wire.send(B, applied[B]), wire.send(A, applied[A])]
    first, second = wire.receive(pa.Table.from_batches(rows))
    assert (first.tp, first.applied, first.deltas) == (A, applied[A], {})
    assert second.tp == B
    assert [table.num_rows for table in second.deltas["a"]] == [3, 3, 2]
    assert pa.concat_tables(second.deltas["a"]).equals(deltas)


def test_partials_are_packed() -> None:
    """The JVM copies what it is sent several times."""
    deltas = pa.table({"window_start": [1_700_000_000_000] * 1_000, "n": list(range(1_000))})
    (row,) = wire.send_deltas(A, {"a": deltas})
    assert row.column("payload")[0].as_buffer().size < deltas.nbytes / 2
