"""Replays that were sent a second time: each counts once, and nothing that only looks like one is left out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.property.cutting import SeenKeys
from tests.reference import Record, as_replay, raw_batch
from tests.unit.stages.building import NOTED, TP, counting, log, noted, run, stages_of
from tidegate.ledger import Ledger
from tidegate.record import TopicPartition
from tidegate.stages import repeats
from tidegate.stages.batch import BatchResult, PartitionState
from tidegate.stages.repeats import Memory, passages, sent_to

JOB, OTHER = "00112233445566ff", "ffeeddccbbaa9988"


def sent(*places: str, start: int = 0) -> list[Record]:
    """Replays as jobs send them to this partition: JOB/POSITION each; the letter of a position is the same whenever."""
    found = []
    for offset, place in enumerate(places, start):
        job, _, position = place.partition("/")
        value = json.dumps({"user": position, "text": position, "at": 1}).encode()
        found.append(as_replay(Record(offset, 0, value, key=position.encode()), job, position))
    return found


def accepted(result: BatchResult) -> list[int]:
    found: list[int] = result.accepted["_offset"].to_pylist()
    return found


@pytest.mark.parametrize("dedupe", [None, {"key": '"user"', "horizon": "1 second"}])
@pytest.mark.parametrize("cut", [0, 2, 3])
def test_a_replay_that_is_sent_again_counts_once(dedupe: object, cut: int) -> None:
    """In the same batch or in a later one, with dedupe and without: the second is a duplicate, the letters behind it go on."""
    stages = stages_of(dedupe=dedupe, aggregations=[counting()])
    records = sent(f"{JOB}/1", f"{JOB}/2", f"{JOB}/3", f"{JOB}/2", f"{JOB}/3", f"{JOB}/4")
    seen, state, found = SeenKeys(), PartitionState(), list[int]()
    for part in filter(None, (records[:cut], records[cut:])):
        result = run(stages, part, state, seen)
        seen.held.update(result.seen)
        state = result.state
        found += accepted(result)
    assert found == [0, 1, 2, 5]
    assert state.ledger == Ledger(read=6, accepted=4, duplicate=2, replayed=6)


def test_it_gets_nowhere() -> None:
    """No handler is asked, no rule fails, nothing is refused or skipped a second time."""
    stages = stages_of(
        handlers=[{"call": f"{noted.__module__}:noted"}],
        rules=[{"type": "length", "column": "text", "max": 5}],
    )
    values = (b'{"text": "good", "at": 1}', b'{"text": "too long", "at": 1}', b"{", None)
    first = [as_replay(Record(n, 0, value), JOB, n + 1) for n, value in enumerate(values)]
    NOTED.clear()
    result = run(stages, [*first, *(one._replace(offset=one.offset + 4) for one in first)])
    assert NOTED == ["good"]
    assert [rejection.offset for rejection in result.rejected] == [1, 2]
    assert result.rules["length(text)"].failures == 1
    assert result.ledger == Ledger(read=8, accepted=1, dead_lettered=2, duplicate=4, skipped=1, replayed=8)
    assert result.repeats == 4


def test_each_job_by_itself() -> None:
    """Jobs whose letters alternate: what one has sent says nothing of another's."""
    places = (f"{JOB}/5", f"{OTHER}/3", f"{JOB}/6", f"{OTHER}/4", f"{OTHER}/3", f"{JOB}/7", f"{OTHER}/5", f"{JOB}/6")
    result = run(stages_of(), sent(*places))
    assert accepted(result) == [0, 1, 2, 3, 5, 6]


def test_what_a_job_has_passed_it_has_sent() -> None:
    """A letter that comes to this partition only the second time was sent to another one the first time: the topic has grown."""
    assert accepted(run(stages_of(), sent(f"{JOB}/1", f"{JOB}/7", f"{JOB}/5"))) == [0, 1]


def _changed(record: Record, name: str, value: bytes) -> Record:
    return record._replace(headers=tuple((n, value if n == name else v) for n, v in record.headers))


LIKE = {
    "of another topic": _changed(
        sent(f"{JOB}/1")[0], "tidegate.replay.to", sent_to(TopicPartition("other", 0), b"1", sent(f"{JOB}/1")[0].value)
    ),
    "of another partition": _changed(
        sent(f"{JOB}/1")[0],
        "tidegate.replay.to",
        sent_to(TopicPartition("flights", 1), b"1", sent(f"{JOB}/1")[0].value),
    ),
    "with another value": sent(f"{JOB}/1")[0]._replace(value=b'{"at": 1}'),
    "with another key": sent(f"{JOB}/1")[0]._replace(key=b"k"),
    "without where it was sent": sent(f"{JOB}/1")[0]._replace(headers=sent(f"{JOB}/1")[0].headers[:2]),
    "without its letter": sent(f"{JOB}/1")[0]._replace(headers=sent(f"{JOB}/1")[0].headers[1:]),
    "with a header twice": sent(f"{JOB}/1")[0]._replace(headers=sent(f"{JOB}/1")[0].headers * 2),
    **{
        f"with {job!r}": _changed(sent(f"{JOB}/1")[0], "tidegate.replay.job", job)
        for job in (b"", b"abcd/1", JOB.encode(), b"%s/" % JOB.encode(), b"%s/-1" % JOB.encode(), b"\xff" * 16 + b"/1")
    },
}


@pytest.mark.parametrize("like", LIKE)
def test_what_only_looks_like_a_repeat_goes_on(like: str) -> None:
    """Others copy headers to what they make of a record; what is no job's own replay to this partition, or is not what the job
    has sent, is a record like any other."""
    result = run(stages_of(), [*sent(f"{JOB}/1"), LIKE[like]._replace(offset=1)])
    assert (accepted(result), result.ledger.duplicate) == ([0, 1], 0)


def test_a_position_of_another_topic_moves_nothing() -> None:
    """A job sends to several topics: how far it is in one, copied with a record's headers, is not how far it is in another."""
    ahead = as_replay(Record(0, 0, b'{"at": 1}'), JOB, 500, "upstream/0")
    result = run(stages_of(), [ahead, *sent(f"{JOB}/400", start=1)])
    assert accepted(result) == [0, 1]


def test_what_was_made_of_a_replay_moves_nothing() -> None:
    """It may be there before the replay itself: of one that a transaction which was aborted had sent, say."""
    ahead = sent(f"{JOB}/500")[0]._replace(value=b'{"at": 1}')
    result = run(stages_of(), [ahead, *sent(f"{JOB}/400", f"{JOB}/500", start=1)])
    assert accepted(result) == [0, 1, 2]


def test_the_jobs_that_were_there_last_are_remembered() -> None:
    """Of more than are remembered the one that was there longest ago is forgotten, whichever came first."""
    jobs = [f"{n:016x}" for n in range(repeats.MOST + 1)]
    state = run(stages_of(), sent(*(f"{job}/9" for job in jobs[:-1]))).state
    state = run(stages_of(), sent(f"{jobs[0]}/8", f"{jobs[-1]}/9", start=300), state).state
    result = run(stages_of(), sent(*(f"{jobs[n]}/9" for n in (2, 0, -1, 1)), start=400), state)
    assert accepted(result) == [403]
    assert len(state.replays) < 15 * repeats.MOST


def test_a_batch_without_replays_leaves_the_memory_as_it_is() -> None:
    before = run(stages_of(), sent(f"{JOB}/1")).state
    after = run(stages_of(), log(1, 2, start=1), before).state
    assert (before.replays != b"", after.replays, after.ledger.replayed) == (True, before.replays, 1)


@given(
    st.lists(st.tuples(st.sampled_from([JOB, OTHER, "0" * 16, "1" * 16]), st.integers(1, 6)), max_size=30),
    st.integers(1, 4),
    st.lists(st.integers(0, 30), max_size=4),
)
def test_passages_are_to_the_memory_what_the_records_are(
    places: Sequence[tuple[str, int]], most: int, cuts: list[int]
) -> None:
    """Whatever the pieces in which the log is looked at, and however few jobs are remembered."""
    records = sent(*(f"{job}/{position}" for job, position in places))
    bounds = [0, *sorted(cuts), len(records)]
    with patch.object(repeats, "MOST", most):
        one_by_one, by_passage = Memory(), Memory()
        for job, position in places:
            one_by_one.see(bytes.fromhex(job), position)
        for start, end in pairwise(bounds):
            for job_id, highest in passages(raw_batch(TP, records[start:end])):
                by_passage.see(job_id, highest)
    assert one_by_one.encoded() == by_passage.encoded()
