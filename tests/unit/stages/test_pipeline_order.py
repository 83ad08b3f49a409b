"""The whole way: each record ends in one place, and the ledger says which."""

from __future__ import annotations

from typing import Any

import pytest

from tests.reference import Record, raw_batch
from tests.unit.stages.building import TP, counting, judging, log, refused, run, stages_of
from tidegate.ledger import Ledger
from tidegate.stages import pipeline as pipeline_module
from tidegate.stages.batch import PartitionState
from tidegate.stages.handle import Handled
from tidegate.stages.handle.ask import Asked
from tidegate.stages.pipeline import accepted_schema

_PARTS = {
    "rules": [{"type": "range", "column": "small", "min": 0}],
    "dedupe": {"key": '"user"', "horizon": "1 hour"},
    "handlers": [{"call": f"{judging.__module__}:judging"}],
    "aggregations": [counting({"n": "count", "s": {"type": "sum", "of": "100 // (big - 1)"}, "t": {"type": "sum",
    "of": "CAST(text AS INTEGER)"}})],
}  # fmt: skip
_ROWS: list[dict[str, Any]] = [
    {"user": "a", "at": 9_000, "text": "1"},  # accepted
    {"user": "a", "at": 9_000, "text": "1"},  # duplicate
    {"user": "b", "at": 9_000, "text": "1", "small": -1},  # validate
    {"user": "c", "text": "1"},  # event time
    {"user": "d", "at": 100, "text": "1"},  # late
    {"user": "e", "at": 9_000, "text": "drop"},  # filtered
    {"user": "f", "at": 9_000, "text": "refuse"},  # handle
    {"user": "g", "at": 9_000, "text": "x"},  # aggregate
    {"user": "h", "at": 9_000, "text": "2"},  # refused by a sink before
]


def test_each_record_ends_in_one_place() -> None:
    """One record for each place, a tombstone and bad bytes: the ledger, the rejections and the late list tell all."""
    stages = stages_of(**_PARTS)
    records = [*log(*_ROWS), Record(9, 0, None), Record(10, 0, b"{")]
    known = refused(8, after=7, upto=8)
    result = run(stages, records, known=known)
    assert (
        result.ledger
        == result.state.ledger
        == Ledger(read=11, accepted=1, dead_lettered=6, late=1, duplicate=1, filtered=1, skipped=1)
    )
    assert {r.offset: r.stage.value for r in result.rejected} == {
        2: "validate", 3: "event_time", 6: "handle", 7: "aggregate", 8: "sink", 10: "decode"
    }  # fmt: skip
    assert result.rejected == sorted(result.rejected, key=lambda r: r.offset)
    assert result.rejected[4] is known.rejected[8]
    assert [late.offset for late in result.late] == [4]
    assert result.accepted["small"].to_pylist() == [42]
    assert result.accepted.schema.names == accepted_schema(stages.plan).names
    assert (result.state.upto, result.state.high_water) == (10, 9_000)
    assert set(result.seconds) == {"decode", "validate", "dedupe", "event_time", "handle", "aggregate"}
    stages.close()


def test_what_nobody_looks_at_does_not_go_on() -> None:
    """Without handlers the rows keep what event time, dedupe and aggregations read: rules have seen the rest."""
    parts = {name: part for name, part in _PARTS.items() if name != "handlers"}
    stages = stages_of(**parts)
    result = run(
        stages, log({"user": "a", "at": 9_000, "text": "1"}, {"user": "b", "at": 9_000, "text": "1", "small": -1})
    )
    assert [rejection.reasons[0].found for rejection in result.rejected] == ["-1"]
    assert result.accepted.schema.names == accepted_schema(stages.plan).names
    assert set(result.accepted.schema.names) >= {"user", "text", "big", "at"}
    assert not {"small", "price", "flag", "tags"} & set(result.accepted.schema.names)
    stages.close()


def test_what_handlers_and_sinks_refuse_moves_the_high_water() -> None:
    """The record after a refused one is late by it, so that lateness does not depend on the outside world."""
    stages = stages_of(**_PARTS)
    rows = [{"user": "a", "at": 9_000, "text": "refuse"}, {"user": "b", "at": 0, "text": "1"}]
    assert run(stages, log(*rows)).ledger.late == 1
    stages.close()


def test_a_batch_that_was_applied_changes_nothing() -> None:
    """All its offsets are at or before `upto`: an empty result and the state as it was."""
    stages = stages_of(aggregations=[counting()])
    state = run(stages, log(1, 2, 3)).state
    again = run(stages, log(1, 2, 3), state)
    assert (again.state, again.before, len(again.raw), again.accepted.num_rows) == (state, state, 0, 0)
    assert again.accepted.schema.names == accepted_schema(stages.plan).names


def test_a_batch_that_overlaps_is_cut_at_upto() -> None:
    """Only the records after `upto` are read, and the result's raw batch holds only them."""
    stages = stages_of(aggregations=[counting()])
    state = run(stages, log(1, 2, 3)).state
    result = run(stages, log(1, 2, 3, 4, 5), state)
    assert (result.ledger.read, result.raw.first, result.state.upto) == (2, 3, 4)


def test_an_empty_batch_changes_nothing() -> None:
    """Nothing was read: the state is what it was."""
    state = PartitionState(upto=7, high_water=3)
    assert stages_of().run(raw_batch(TP, []), state).state == state


def test_any_record_ends_idleness() -> None:
    """A partition that was idle holds windows open again."""
    assert run(stages_of(), log(1), PartitionState(idle=True)).state.idle is False


def test_the_state_stays_that_of_its_topic() -> None:
    """Whatever a batch changes, the offsets are still those of the same log."""
    assert run(stages_of(), log(1), PartitionState(topic_id="abc")).state.topic_id == "abc"


def test_a_batch_that_does_not_balance_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were a record lost between two stages, nothing of the batch would be written."""
    stages = stages_of()
    monkeypatch.setattr(
        pipeline_module, "ask", lambda chain, rows, *_: Asked(Handled(chain.apply(rows.slice(1), TP).rows, [], 0), None)
    )
    with pytest.raises(AssertionError, match=r"flights-0, offsets 0 to 1: the ledger does not balance"):
        run(stages, log(1, 2))


def test_the_offsets_behind_a_delta_row_are_found() -> None:
    """By window, lane and group, nulls included; a record that was late for that window is not behind it."""
    aggregation = counting(groupBy=["user"], window={"type": "hopping", "size": "2 seconds", "hop": "1 second"})
    stages = stages_of(aggregations=[aggregation])
    rows = log(
        {"at": 0}, {"at": 0, "user": "ann"}, {"at": 100}, {"at": 100, "_replay": True}, {"at": 1_000}, {"at": 2_000},
        {"at": 1_500}
    )  # fmt: skip
    result = run(stages, rows)
    delta = result.deltas["per_second"].to_pylist()
    where = [(row["window_start"], row["user"], row["lane"]) for row in delta]

    def behind(*wanted: tuple[int, str | None, str]) -> list[int]:
        return stages.offsets_of(result, "per_second", [where.index(key) for key in wanted])

    assert behind((0, None, "live")) == [0, 2, 4]
    assert behind((0, "ann", "live"), (0, None, "replay")) == [1, 3]
    assert behind((1_000, None, "live")) == [4, 5, 6]
    assert [record.offset for record in result.late] == [6]
    assert result.late[0].partial


def test_what_a_sink_refused_takes_a_record_out_of_the_results() -> None:
    """Running the batch again with what the sink said gives the same state but for the account, and results without those
    records.
    """
    stages = stages_of(aggregations=[counting()])
    first = run(stages, log(1, 2, 1_500))
    offsets = stages.offsets_of(first, "per_second", [first.deltas["per_second"]["window_start"].to_pylist().index(0)])
    again = run(stages, log(1, 2, 1_500), known=refused(*offsets))
    assert offsets == [0, 1]
    assert (again.ledger.dead_lettered, again.ledger.accepted) == (2, 1)
    assert again.deltas["per_second"]["window_start"].to_pylist() == [1_000]
    assert again.state.high_water == first.state.high_water
