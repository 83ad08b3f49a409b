"""What the audit makes of ids."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlq import headers, late
from tidegate.record import Stage, TopicPartition, record_id
from tidegate.store import audit
from tidegate.store.audit import parse_id
from tidegate.store.distinct import DistinctOffsets

TOPICS = st.from_regex(r"[a-zA-Z0-9._-]{1,40}", fullmatch=True)


@given(TOPICS, st.integers(0, 2**31 - 1), st.integers(0, 2**63 - 1), st.none() | st.sampled_from(Stage))
def test_an_id_tells_its_record(topic: str, partition: int, offset: int, stage: Stage | None) -> None:
    """Partition and offset are read back from every id, dashes in the topic or not."""
    tp = TopicPartition(topic, partition)
    assert parse_id(record_id(tp, offset, stage)) == (tp, offset)


@pytest.mark.parametrize("text", ["", "flights", "flights-1", "flights-x-2", "a-1-²", "a-1--2"])
def test_what_is_no_id_is_not_counted(text: str) -> None:
    """A record with some other id is none of the pipeline's."""
    assert parse_id(text) is None


@given(st.lists(st.integers(0, 50)), st.integers(-1, 60))
def test_offsets_count_once(offsets: list[int], upto: int) -> None:
    """However often an offset comes, it is counted once, and only if it is not beyond `upto`."""
    seen = DistinctOffsets()
    for offset in offsets:
        seen.add(offset)
    assert seen.count(upto) == len({offset for offset in offsets if offset <= upto})
    assert seen.count(upto) == len({offset for offset in offsets if offset <= upto})


@pytest.mark.slow
def test_a_million_offsets_take_little_memory() -> None:
    """A million offsets, each twice, are 8 MB."""
    seen = DistinctOffsets()
    for offset in range(1_000_000):
        seen.add(offset)
        seen.add(offset)
    assert seen.count(2**62) == 1_000_000
    assert seen.nbytes == 8_000_000


def test_header_names_are_those_that_are_written() -> None:
    """The audit's header names are the writer's, which it cannot import."""
    read = (audit.DLQ_ID, audit.DLQ_STAGE, audit.DLQ_ERROR_TYPE, audit.DLQ_PIPELINE, audit.LATE_ID, audit.LATE_PARTIAL)
    written = (headers.ID, headers.STAGE, headers.ERROR_TYPE, headers.PIPELINE, headers.LATE_ID, headers.LATE_PARTIAL)
    assert (*read, audit.LATE_RECORD) == (*written, late.ERROR_TYPE)
