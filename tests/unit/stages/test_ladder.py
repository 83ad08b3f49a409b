"""Which refused records are tried again later, and which are dead letters at once."""

from __future__ import annotations

from typing import Any

import pytest

from tests.reference import Record
from tests.unit.stages.building import counting, log, run, stages_of
from tidegate.stages.batch import BatchResult

HANDLER = {"call": "tests.unit.stages.building:judging"}
LADDER = {"retryTopics": {"delays": ["10 seconds", "1 minute"]}}


def judged(*headers: tuple[tuple[str, bytes], ...], text: str = "refuse", **ladder: Any) -> BatchResult:
    """A batch of records with these headers, after a handler that refuses them."""
    stages = stages_of(handlers=[HANDLER], errorHandling=ladder or LADDER, aggregations=[counting()])
    records = [
        Record(one.offset, 0, one.value, pairs)
        for one, pairs in zip(log(*({"at": 5, "text": text} for _ in headers)), headers, strict=True)
    ]
    try:
        return run(stages, records)
    finally:
        stages.close()


def retry(done: bytes) -> tuple[tuple[str, bytes], ...]:
    return (("tidegate.retry.of", b"flights-0-1"), ("tidegate.retry.attempt", done))


def test_down_the_ladder() -> None:
    """The first failure goes to the first rung, the next to the second, the last is a dead letter; the ledger has deferred
    records apart and balances."""
    result = judged((), retry(b"1"), retry(b"2"))
    assert [(one.rejection.offset, one.rung) for one in result.deferred] == [(0, 0), (1, 1)]
    assert [one.offset for one in result.rejected] == [2]
    ledger = result.ledger
    assert (ledger.read, ledger.deferred, ledger.dead_lettered) == (3, 2, 1)
    assert ledger.balanced


@pytest.mark.parametrize(
    "headers",
    [
        (("tidegate.replay.of", b"flights-0-1"),),
        (*retry(b"1"), ("tidegate.replay.of", b"flights-0-1")),
        (("tidegate.retry.of", b"flights-0-1"),),
        retry(b"-1"),
        retry(b"x"),
        retry(b"9" * 30),
    ],
)
def test_not_deferred(headers: tuple[tuple[str, bytes], ...]) -> None:
    """A replay of a dead letter, and a retry that does not say the how manieth it is, are dead letters."""
    result = judged(headers)
    assert (len(result.rejected), result.deferred) == (1, [])


def test_only_what_may_pass_later() -> None:
    """A malformed record is not tried again; nor is anything in a pipeline without a ladder, or one for other stages."""
    stages = stages_of(errorHandling=LADDER)
    assert run(stages, [Record(0, 0, b"{")]).deferred == []
    stages.close()
    assert judged((), floodGuard={}).deferred == []
    assert judged((), retryTopics={"delays": ["1 second"], "stages": ["sink"]}).deferred == []


def test_too_large_to_wait() -> None:
    """A record that would not fit with the headers of a retry is a dead letter."""
    assert judged((("h", b"x" * 900_000),)).deferred == []


def test_a_retry_is_no_duplicate() -> None:
    """Dedupe lets the retry of a deferred record through; a second one, after an outage has doubled it, is a duplicate."""
    stages = stages_of(handlers=[HANDLER], errorHandling=LADDER, dedupe={"key": "small", "horizon": "1 hour"})
    first, second = log({"at": 5, "small": 1, "text": "refuse"}), log({"at": 5, "small": 1, "text": "ok"}, start=1)
    back = [Record(offset, 0, second[0].value, retry(b"1")) for offset in (1, 2)]
    results = [run(stages, [*first, *back[:number]]) for number in (1, 2)]
    stages.close()
    counts = [(one.ledger.deferred, one.ledger.accepted, one.ledger.duplicate) for one in results]
    assert counts == [(1, 1, 0), (1, 1, 1)]
