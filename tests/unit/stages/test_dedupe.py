"""Dedupe: the first record with a key wins, for a horizon of event time."""

from __future__ import annotations

import pytest

from tests.property.cutting import SeenKeys
from tests.reference import Record
from tests.unit.stages.building import counting, log, refused, run, stages_of
from tidegate.record import Stage
from tidegate.stages.batch import BatchResult, PartitionState
from tidegate.stages.pipeline import StagePipeline


def deduping(key: str = '"user"', **parts: object) -> StagePipeline:
    return stages_of(dedupe={"key": key, "horizon": "1 second"}, aggregations=[counting()], **parts)


def offsets(result: BatchResult) -> list[int]:
    found: list[int] = result.accepted["_offset"].to_pylist()
    return found


def test_the_first_offset_wins() -> None:
    """Of two records with one key the one with the smaller offset is kept, though its event time is larger."""
    result = run(deduping(), log({"user": "ann", "at": 500}, {"user": "ann", "at": 400}, {"user": "bob", "at": 500}))
    assert (offsets(result), result.ledger.duplicate) == ([0, 2], 1)
    assert sorted(result.seen) == [(b"ann", 500), (b"bob", 500)]


def test_a_null_key_is_never_a_duplicate() -> None:
    """Records without a key are all kept, and none is remembered."""
    result = run(deduping(), log(1, 2, 3))
    assert (result.ledger.accepted, result.seen) == (3, [])


def test_a_key_is_forgotten_after_the_horizon() -> None:
    """When the clock is more than the horizon past the first record, the next one with its key is first again."""
    rows = [{"user": "ann", "at": 0}, {"user": "bob", "at": 1_000}, {"user": "ann", "at": 900}]
    assert run(deduping(), log(*rows)).ledger.duplicate == 1
    rows[1]["at"] = 1_001
    assert run(deduping(), log(*rows, {"user": "ann", "at": 1_001})).ledger.duplicate == 1


def test_duplicates_move_the_clock_and_not_the_high_water() -> None:
    """A duplicate with a later event time makes keys expire, but makes nobody late."""
    result = run(deduping(), log({"user": "ann", "at": 0}, {"user": "ann", "at": 5_000}, {"user": "ann", "at": 0}))
    assert (result.state.high_water, result.state.dedupe_clock) == (0, 5_000)
    assert (offsets(result), result.ledger.late) == ([0, 2], 0)


def test_what_was_seen_before_this_batch_counts() -> None:
    """A key from an earlier batch makes a duplicate of the first record of this one."""
    result = run(deduping(), log({"user": "ann", "at": 10}), seen=SeenKeys({b"ann": 5}))
    assert (result.ledger.duplicate, result.seen) == (1, [])


def test_a_batch_that_comes_again_is_no_duplicate_of_itself() -> None:
    """Before it was written it gives the same once more; afterwards its records are left out, and counted as nothing."""
    rows, stages = log({"user": "ann", "at": 10}, {"user": "bob", "at": 20}, {"user": "ann", "at": 30}), deduping()
    first = run(stages, rows)
    again = run(stages, rows)
    assert (again.ledger, offsets(again), again.seen) == (first.ledger, offsets(first), first.seen)
    assert first.ledger.duplicate == 1
    applied = run(stages, rows, first.state, seen=SeenKeys(dict(first.seen)))
    assert applied.state == first.state


def test_keys_can_be_expressions_of_any_single_type() -> None:
    """A number, a moment or a text with umlauts is a key; equal values are one key."""
    rows = log({"user": "zoë", "small": 1, "at": 0}, {"user": "ZOË", "small": 1, "at": 0})
    assert run(deduping("lower(\"user\") || '-' || small"), rows).ledger.duplicate == 1
    assert run(deduping('"at"'), rows).ledger.duplicate == 1


def test_a_key_that_cannot_be_computed_rejects_only_its_record() -> None:
    """The record goes to the dead letters at stage dedupe; the others are deduplicated as ever."""
    rows = log(*({"text": text, "at": 0} for text in ("1", "x", "1", "2")))
    result = run(deduping("CAST(text AS INTEGER)"), rows)
    [rejection] = result.rejected
    assert (rejection.offset, rejection.stage, rejection.reasons[0].error_type) == (1, Stage.DEDUPE, "ExpressionError")
    assert "'x'" in rejection.reasons[0].message
    assert offsets(result) == [0, 3]


def replayed(first: dict[str, object], stages: StagePipeline, *, refuse: bool) -> tuple[BatchResult, ...]:
    """One record, refused by a sink or not, then two replays of it, each in a batch of its own."""
    seen, state, results = SeenKeys(), PartitionState(), []
    known = refused(0) if refuse else None
    for offset in range(3):
        row = first | ({"_replay": True} if offset else {})
        results.append(run(stages, log(row, start=offset), state, seen, known))
        seen.held.update(results[-1].seen)
        state = results[-1].state
    return tuple(results)


@pytest.mark.parametrize(("refuse", "duplicates"), [(True, [0, 0, 1]), (False, [0, 1, 1])])
def test_a_replay_of_a_refused_record_goes_through_once(refuse: bool, duplicates: list[int]) -> None:
    """The first record's key does not keep its own replay out; a second replay is a duplicate of the first replay."""
    results = replayed({"user": "ann", "at": 5}, deduping(), refuse=refuse)
    assert [result.ledger.duplicate for result in results] == duplicates


def test_a_replay_of_a_record_that_never_was_valid_is_no_duplicate() -> None:
    """What decode refused had no key yet; its mended replay is the first record with it."""
    broken = [Record(0, 0, b'{"user": "ann", "at": "yesterday"}')]
    result = run(deduping(), broken + log({"user": "ann", "at": 0, "_replay": True}, start=1))
    assert (len(result.rejected), offsets(result)) == (1, [1])


def test_a_replay_is_a_duplicate_of_what_came_in_meanwhile() -> None:
    """When another record with the key was accepted, the replay is not counted a second time."""
    result = run(deduping(), log({"user": "ann", "at": 0}, {"user": "ann", "at": 0, "_replay": True}))
    assert (offsets(result), result.ledger.duplicate) == ([0], 1)


def test_a_batch_is_cut_before_a_replay_that_meets_its_first_record() -> None:
    """In one batch as in two: the refused record's replay counts, and the whole batch gives one result."""
    rows = log({"user": "ann", "at": 7}, {"user": "bob", "at": 8}, {"user": "ann", "at": 7, "_replay": True})
    result = run(deduping(), rows, known=refused(0))
    assert (offsets(result), [r.offset for r in result.rejected]) == ([1, 2], [0])
    assert len(result.raw) == 3
    assert result.state.upto == 2
    assert sum(result.deltas["per_second"]["records"].to_pylist()) == 2


def test_live_records_do_not_see_what_a_sink_refused() -> None:
    """A duplicate of a refused record stays a duplicate, so that lateness never depends on a sink."""
    result = run(deduping(), log({"user": "ann", "at": 0}, {"user": "ann", "at": 3}), known=refused(0))
    assert (result.ledger.duplicate, result.ledger.accepted, result.state.high_water) == (1, 0, 0)
