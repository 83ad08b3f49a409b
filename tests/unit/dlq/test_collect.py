"""A batch's rejections become letters that hold the right raw records."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlq.collect import dead_letters, schema_name
from tests.unit.dlq.dead_letters import SOURCE, batch, plan, rejection, result
from tidegate.clock import ManualClock
from tidegate.record import TopicPartition
from tidegate.stages.batch import RAW_SCHEMA, RawBatch


@pytest.mark.slow
@settings(deadline=None)  # the first example pays for imports
@given(
    offsets=st.lists(st.integers(0, 2**40), min_size=1, max_size=50, unique=True).map(sorted),
    data=st.data(),
)
def test_each_rejection_gets_its_record(offsets: list[int], data: st.DataObject) -> None:
    """Whatever the gaps between offsets and the order of rejections, each letter holds its own record."""
    chosen = data.draw(st.lists(st.sampled_from(offsets), max_size=60))
    made = dead_letters(result(batch(offsets), [rejection(o) for o in chosen]), plan(), ManualClock(12.5))
    assert [e.id for e in made] == [f"flights-1-{o}" for o in chosen]
    assert [e.value for e in made] == [b"v%d" % o for o in chosen]
    assert [e.key for e in made] == [b"k%d" % o for o in chosen]
    assert [e.timestamp for e in made] == [o * 10 for o in chosen]
    assert all(e.kind.last_failure == 12_500 for e in made)


@pytest.mark.parametrize("offset", [0, 2, 99])
def test_an_offset_that_is_not_there(offset: int) -> None:
    """A rejection for an offset that the batch does not hold is a mistake in the program, and says which."""
    with pytest.raises(ValueError, match=rf"offsets {offset} are not in the batch flights-1 1\.\.5"):
        dead_letters(result(batch([1, 3, 5]), [rejection(offset)]), plan(), ManualClock())


def test_headers_and_context() -> None:
    """Letters hold the record's headers, repeated and null ones too, the topic's timestamp type and the context."""
    raw = batch([1], headers=[("a", b"1"), ("a", None)], tp=TopicPartition("t", 0))
    context = {"engine": "stream", "host": "h1"}
    made = dead_letters(
        result(raw, [rejection(1)]), plan(), ManualClock(), context=context, timestamp_type="LogAppendTime"
    )
    assert made[0].headers == (("a", b"1"), ("a", None))
    assert made[0].kind.timestamp_type == "LogAppendTime"
    assert made[0].kind.context == context


def test_tombstones() -> None:
    """A rejected tombstone without a key is kept as what it was: null and null."""
    rows = [{"offset": 1, "timestamp": 0, "key": None, "value": None, "headers": None}]
    raw = RawBatch(SOURCE, pa.RecordBatch.from_pylist(rows, schema=RAW_SCHEMA))
    made = dead_letters(result(raw, [rejection(1)]), plan(), ManualClock())
    assert (made[0].key, made[0].value) == (None, None)


def test_schema_name_follows_the_schema() -> None:
    """The schema's name is the pipeline's id and a digest which changes with any column."""
    one = plan(schema=[{"name": "a", "type": "bigint"}]).pipeline
    same = plan(schema=[{"name": "a", "type": "bigint", "nullable": True}]).pipeline
    other = plan(schema=[{"name": "a", "type": "bigint", "nullable": False}]).pipeline
    assert schema_name(one) == schema_name(same) != schema_name(other)
    assert schema_name(one).startswith("flights@")


def test_nothing_rejected() -> None:
    """A batch without rejections has no letters."""
    assert dead_letters(result(batch([1])), plan(), ManualClock()) == []
