"""Answers: what handlers and sinks have said of a record holds when its batch is repeated, however it is cut then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from tests import fickle
from tests.property.cutting import SeenKeys
from tests.reference import Record
from tests.unit.stages.building import TP, counting, log, refused, run, stages_of
from tidegate.errors import ConfigError
from tidegate.record import record_id
from tidegate.stages.batch import Answers, BatchResult, PartitionState
from tidegate.stages.pipeline import StagePipeline

SCHEMA = [
    {"name": "user", "type": "string"},
    {"name": "amount", "type": "bigint"},
    {"name": "ratio", "type": "double"},
    {"name": "at", "type": "timestamp", "unit": "ms"},
]
KINDS: list[dict[str, Any]] = [
    {"call": "per_record"},
    {"call": "per_record", "concurrency": 3},
    {"call": "per_record_async", "concurrency": 2},
    {"call": "per_batch", "mode": "batch"},
]
MEASURES = {"n": "count", "total": {"type": "sum", "of": "amount"}, "most": {"type": "max", "of": "ratio"}}


def asking(*handlers: dict[str, Any], **parts: Any) -> StagePipeline:
    """A pipeline with fickle handlers, duplicates of `user` left out, and its totals per second."""
    named = [{**handler, "call": f"{fickle.__name__}:{handler['call']}"} for handler in handlers]
    aggregations = [counting(MEASURES)]
    dedupe = {"key": '"user"', "horizon": "1 hour"}
    return stages_of(schema=SCHEMA, handlers=named, aggregations=aggregations, **{"dedupe": dedupe, **parts})


def records(count: int, start: int = 0) -> list[Record]:
    """Records of which some are late, duplicates, malformed, tombstones or replays."""
    rows = [
        {"user": f"u{offset % 30}", "amount": offset, "ratio": 0.5, "at": 0 if offset % 11 == 9 else offset * 100}
        | ({"_replay": True} if offset % 7 == 5 else {})
        for offset in range(start, start + count)
    ]
    made = log(*rows, start=start)
    return [
        replace_value(one, None) if one.offset % 13 == 12 else replace_value(one, b"{") if one.offset % 17 == 3 else one
        for one in made
    ]


def replace_value(record: Record, value: bytes | None) -> Record:
    return record._replace(value=value)


def shown(*results: BatchResult) -> dict[str, Any]:
    """All that consecutive batches change, as one."""
    totals: dict[tuple[int, str], list[Any]] = {}
    for result in results:
        for row in result.deltas["per_second"].to_pylist():
            total = totals.setdefault((row["window_start"], row["lane"]), [0, 0])
            total[0], total[1] = total[0] + row["records"], total[1] + (row["total__sum"] or 0)
    return {
        "state": results[-1].state,
        "accepted": [row for result in results for row in result.accepted.to_pylist()],
        "rejected": [one for result in results for one in result.rejected],
        "late": [one for result in results for one in result.late],
        "totals": totals,
    }


def in_batches(
    stages: StagePipeline, log: Sequence[Record], sizes: Sequence[int], known: Answers | None = None
) -> list[BatchResult]:
    """Consecutive batches; the last takes what is left."""
    results, state, seen, start = list[BatchResult](), PartitionState(), SeenKeys(), 0
    for size in [*sizes, len(log)]:
        if part := log[start : start + size]:
            results.append(run(stages, part, state, seen, known))
            state, start = results[-1].state, start + size
            seen.held.update(results[-1].seen)
    return results


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
@pytest.mark.parametrize("sizes", [[], [7, 1, 20], [1] * 20])
def test_a_batch_that_is_repeated_asks_nobody(kind: dict[str, Any], sizes: list[int]) -> None:
    """With the first run's answers the second changes exactly the same, cut the same way or another; no handler is called,
    though each would have said something else."""
    fickle.start(1)
    stages = asking(kind)
    [first] = in_batches(stages, records(60), [])
    assert fickle.ASKED
    assert min(getattr(first.ledger, outcome) for outcome in ("filtered", "late", "duplicate", "skipped")) > 0
    assert {r.stage.value for r in first.rejected} == {"decode", "handle"}
    fickle.ASKED.clear()
    again = in_batches(stages, records(60), sizes, first.answers)
    assert fickle.ASKED == []
    assert shown(*again) == shown(first)
    assert in_batches(stages, records(60), [])[0].ledger != first.ledger, "the handler would have answered differently"
    stages.close()


def test_answers_of_a_handler_that_has_gone_still_hold() -> None:
    """A handler that gave back the schema's columns and is not in the file any more: what it said is taken as it was."""
    fickle.start(1)
    stages, without = asking(KINDS[0], dedupe=None), stages_of(schema=SCHEMA, aggregations=[counting()])
    first = run(stages, records(30))
    fickle.ASKED.clear()
    again = run(without, records(30), known=first.answers)
    assert fickle.ASKED == []
    assert again.answers is not None
    assert again.answers.rows == first.answers.rows
    stages.close()
    without.close()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_handlers_are_asked_for_what_has_no_answer(kind: dict[str, Any]) -> None:
    """A batch that goes beyond the known stretch: only the records after it reach the handlers, and the rows that come out
    are in the order of their offsets all the same."""
    fickle.start(2)
    stages = asking(kind)
    first = run(stages, records(30))
    fickle.ASKED.clear()
    longer = run(stages, records(60), known=first.answers)
    assert set(fickle.ASKED) <= {record_id(TP, offset) for offset in range(30, 60)}
    assert fickle.ASKED
    head = run(stages, records(30), known=first.answers)
    assert shown(head) == shown(first)
    offsets = longer.accepted["_offset"].to_pylist()
    assert offsets == sorted(offsets)
    assert offsets[: len(first.accepted)] == first.accepted["_offset"].to_pylist()
    again = in_batches(stages, records(60), [25], longer.answers)
    assert shown(*again) == shown(longer)
    stages.close()


def test_answers_of_several_handlers_are_those_of_the_chain() -> None:
    """What the first one leaves out never reached the second; a repeat takes what came out of the last."""
    fickle.start(3)
    stages = asking(KINDS[0], KINDS[3])
    first = run(stages, records(60))
    fickle.ASKED.clear()
    assert shown(run(stages, records(60), known=first.answers)) == shown(first)
    assert fickle.ASKED == []
    stages.close()


def test_answers_hold_where_dedupe_cuts_the_batch() -> None:
    """A replay that meets its first record in the batch is judged by what was said of that one, in the repeat as before."""
    stages = asking(KINDS[0])
    rows = log(*({"user": "ann", "amount": 1, "ratio": 0.5, "at": 5, "_replay": n > 0} for n in range(8)))
    for seed in range(8):
        fickle.start(seed, ("as it was", "refused"))
        first = run(stages, rows)
        assert first.answers is not None
        assert (first.answers.after, first.answers.upto) == (-1, 7)
        fickle.ASKED.clear()
        assert shown(*in_batches(stages, rows, [3, 1], first.answers)) == shown(first)
        assert fickle.ASKED == []
    stages.close()


def test_what_a_sink_refuses_later_goes_before_what_the_handler_gave_back() -> None:
    """The batch without a record that the sink has refused: it is dead-lettered, the handler is not asked again, and a
    repeat of that knows both."""
    fickle.start(4, ("changed",))
    stages = asking(KINDS[0])
    first = run(stages, log(*({"amount": n, "ratio": 0.5, "at": 10 + n} for n in range(4))))
    fickle.ASKED.clear()
    rows, known = (
        log(*({"amount": n, "ratio": 0.5, "at": 10 + n} for n in range(4))),
        first.answers_with(refused(2).rejected),
    )
    second = run(stages, rows, known=known)
    assert [(r.offset, r.stage.value) for r in second.rejected] == [(2, "sink")]
    assert second.accepted.to_pylist() == [row for row in first.accepted.to_pylist() if row["_offset"] != 2]
    assert shown(run(stages, rows, known=second.answers)) == shown(second)
    assert fickle.ASKED == []
    stages.close()


def test_a_refusal_can_let_another_record_through_to_the_handlers() -> None:
    """The second replay of a dead letter is a duplicate of the first, until the sink refuses that: now it is asked for."""
    fickle.start(4, ("changed",))
    stages = asking(KINDS[0])
    rows = log(*({"user": "ann", "amount": n, "ratio": 0.5, "at": 10, "_replay": True} for n in range(2)))
    first = run(stages, rows)
    assert [record_id(TP, 0)] == fickle.ASKED
    second = run(stages, rows, known=first.answers_with(refused(0).rejected))
    assert [record_id(TP, 0), record_id(TP, 1)] == fickle.ASKED
    assert second.accepted.column("_offset").to_pylist() == [1]
    assert shown(run(stages, rows, known=second.answers)) == shown(second)
    assert len(fickle.ASKED) == 2
    stages.close()


def test_without_handlers_and_refusals_there_are_no_answers() -> None:
    """Nobody was asked, so there is nothing to keep; what a sink refuses is kept alone."""
    stages = asking()
    first = run(stages, log(1, 2))
    assert first.answers is None
    second = run(stages, log(1, 2), known=first.answers_with(refused(0).rejected))
    assert second.answers is not None
    assert (second.answers.rows, set(second.answers.rejected)) == (None, {0})
    stages.close()


def test_a_pipeline_with_handlers_has_answers_even_when_none_was_called() -> None:
    """Nothing got as far as the handlers: that is an answer too, and a repeat can rely on it."""
    stages = asking(KINDS[0])
    answers = run(stages, [Record(4, 0, b"{")], PartitionState(upto=3)).answers
    assert answers is not None
    assert (answers.after, answers.upto, len(answers.rows), answers.covers(3, 4)) == (3, 4, 0, True)
    assert not answers.covers(2, 4)
    assert not answers.covers(3, 5)
    stages.close()


def test_a_record_that_did_not_reach_the_handlers_then_is_not_guessed_at() -> None:
    """A rule that was taken out lets another record through to the handlers: the error names it, and nobody is asked."""
    fickle.start(5)
    strict = asking(KINDS[0], rules=[{"type": "range", "column": "amount", "min": 1}])
    rows = log(*({"amount": n, "ratio": 0.5, "at": 10} for n in range(3)))
    answers = run(strict, rows).answers
    assert answers is not None
    fickle.ASKED.clear()
    lenient = asking(KINDS[0])
    with pytest.raises(
        ConfigError, match=r"flights-0 up to offset 2 .* offset 0 did not reach(.|\n)*hint: .*before the last"
    ):
        run(lenient, rows, known=replace(answers, settled=True))
    assert fickle.ASKED == []
    strict.close()
    lenient.close()


def test_answers_for_other_columns_are_refused() -> None:
    """When the handlers' output has changed since, the error names both."""
    fickle.start(6, ("as it was",))
    stages = asking(KINDS[0])
    rows = log({"amount": 1, "ratio": 0.5, "at": 10})
    answers = run(stages, rows).answers
    assert answers is not None
    assert answers.rows is not None
    narrower = replace(answers, rows=answers.rows.set_column(1, "amount", pa.array([1], pa.int32())))
    with pytest.raises(
        ConfigError, match=r"columns have changed since(.|\n)*amount int64(.|\n)*amount int32"
    ) as caught:
        run(stages, rows, known=narrower)
    assert caught.value.field == "handlers"
    stages.close()
